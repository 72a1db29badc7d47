/** Where training takes place: a backbone in evaluation mode, the tap that the head reads, and how images come in. */
import { PolyheadError } from "../base/errors.js";
import { isProduct } from "../onnx/boundaries.js";
import { NodeCosts } from "../onnx/cost.js";
import { defaultCut } from "../onnx/cuts.js";
import { toEvaluation } from "../onnx/evaluation.js";
import { extract } from "../onnx/extract.js";
import { DataFlow } from "../onnx/flow.js";
import { GraphIndex } from "../onnx/graph.js";
import { type Identity, identify } from "../onnx/identity.js";
import { inlined } from "../onnx/inline.js";
import { readMetadata, type Tap } from "../onnx/metadata.js";
import type { Model, ValueType } from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import { type ChannelPlace, type Pooling, poolingOf } from "../teach/pooling.js";
import { tapSource } from "../teach/tap-source.js";
import { preprocessingFor } from "../vision/model-input.js";
import type { Preprocessing } from "../vision/preprocessing.js";
import { HEAD_OUTPUTS, type HeadOutputs } from "./head-network.js";

/** What is asked for. */
export interface SiteOptions {
  /** Value that the head reads: the backbone's only tap, or what enters a model's classifier, by default. */
  readonly tap?: string | undefined;
  /** Recipe or JSON record, where the model does not say it itself. */
  readonly preprocess?: string | undefined;
  readonly channels?: ChannelPlace | undefined;
}

/** A backbone and a tap of it. */
export interface Site {
  readonly model: Model;
  readonly index: GraphIndex;
  readonly types: ReadonlyMap<string, ValueType>;
  readonly identities: ReadonlyMap<string, Identity>;
  /** The image. */
  readonly input: string;
  readonly tap: Tap;
  readonly pooling: Pooling;
  /** As it was given. */
  readonly channels: ChannelPlace | undefined;
  readonly preprocessing: Preprocessing;
  /** What a head's outputs are called, unlike anything in the model. */
  readonly outputs: HeadOutputs;
  readonly notes: readonly string[];
}

/** A value at which a branch may leave the stem, and what lies between it and the tap. */
export interface LeavingPoint {
  readonly value: string;
  /** Elements of the weights after it. */
  readonly parameters: number;
  /** Floating-point operations of one row after it. */
  readonly flops: number;
}

/**
 * Looks at a model.
 * @throws PolyheadError as `tapSource`, `defaultCut`, `poolingOf` and `preprocessingFor` do
 */
export async function openSite(given: Model, options: SiteOptions): Promise<Site> {
  const evaluation = toEvaluation(given);
  const model = inlined(evaluation.model);
  const types = inferTypes(model);
  const source = await tapSource(model, options.tap ?? usualTap(model, types));
  const preprocessing = preprocessingFor(model, options.preprocess);
  const { dtype, shape = [] } = types.get(source.tap) ?? { dtype: source.dtype };
  const fallback = preprocessing.layout === "nchw" ? "first" : "last";
  const open = ["batch", ...shape.slice(1)];
  const pooling = poolingOf(open, options.channels, fallback);
  return {
    model,
    types,
    index: new GraphIndex(model.graph),
    identities: await identify(model),
    input: source.input,
    tap: { name: source.tap, dtype, shape: open, identity: source.identity },
    pooling,
    channels: options.channels,
    preprocessing,
    outputs:
      types.has("logits") || types.has("probabilities")
        ? { logits: "head_logits", probabilities: "head_probabilities" }
        : HEAD_OUTPUTS,
    notes: evaluation.notes,
  };
}

/** A whole model is read where its classifier would be cut off. */
function usualTap(model: Model, types: ReadonlyMap<string, ValueType>): string | undefined {
  if (readMetadata(model).taps) return undefined;
  const cut = defaultCut(model, types);
  return cut.length === 1 ? cut[0] : undefined;
}

/** The part of a site's model from one value to others. */
export function partOf({ model, index, types }: Site, from: string, to: readonly string[]): Model {
  return extract(model, index, [from], to, types);
}

/**
 * The values through which all data goes on its way to the tap and after which there is something to train, the last
 * first; of those between two layers with weights the last one.
 */
export function leavingPoints(site: Site): LeavingPoint[] {
  const trunk = partOf(site, site.input, [site.tap.name]);
  const index = new GraphIndex(trunk.graph);
  const flow = new DataFlow(index);
  const costs = new NodeCosts(index, site.types);
  const found: LeavingPoint[] = [];
  let previous = site.tap.name;
  for (const value of flow.funnels()) {
    const isNew = flow.between(value, previous).some(isProduct);
    previous = value;
    if (!isNew) continue;
    found.push({ value, ...costs.of(flow.between(value, site.tap.name)) });
  }
  return found;
}

/**
 * A leaving point by name.
 * @throws PolyheadError NOT_FOUND for no value; CUT_INVALID when data goes around it, or nothing is left to train
 */
export function leavingPoint(site: Site, value: string): LeavingPoint {
  const part = partOf(site, value, [site.tap.name]);
  const index = new GraphIndex(part.graph);
  const cost = new NodeCosts(index, site.types).of(index.order);
  if (cost.parameters > 0) return { value, ...cost };
  throw new PolyheadError(
    "CUT_INVALID",
    `Between ${JSON.stringify(value)} and ${JSON.stringify(site.tap.name)} there is nothing to train; let the branch leave earlier: ${leavingPoints(
      site,
    )
      .slice(0, 5)
      .map((each) => each.value)
      .join(", ")}.`,
    { value, tap: site.tap.name },
  );
}
