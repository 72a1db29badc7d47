/** What training hands over: an ordinary head, and after full training a backbone, that say how they were made. */
import { classCounts } from "../data/balance.js";
import { costOf } from "../onnx/cost.js";
import { extract } from "../onnx/extract.js";
import { tapsOf } from "../onnx/fit.js";
import { GraphIndex } from "../onnx/graph.js";
import { joinModels } from "../onnx/join.js";
import { readMetadata, type Tap, withMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import { shareReport } from "../onnx/share.js";
import type { Cost } from "./depths.js";
import type { Examples } from "./examples.js";
import type { Judged } from "./judge.js";
import { partOf, type Site } from "./site.js";

/** How something was made, for its metadata; JSON-serialisable. */
export type Making = Readonly<Record<string, unknown>>;

/** The classes, the data and the quality as metadata have them. */
export function aboutData({ data, targets }: Examples, name: string): Making {
  const counts = classCounts(targets, data.labels.length);
  return {
    name,
    digest: data.digest,
    images: Object.fromEntries(data.labels.map((label, at) => [label, counts[at]])),
  };
}

/** A head that reads a value of the site's backbone. */
export function headModel(
  model: Model,
  tap: Tap,
  { site, data }: Examples,
  judged: Judged,
  provenance: Making,
): Model {
  const { quality } = judged;
  return withMetadata(model, {
    role: "head",
    taps: [tap],
    task: "classification",
    labels: data.labels,
    activation: "softmax",
    decoding: undefined,
    notes: undefined,
    preprocessing: { ...site.preprocessing },
    provenance,
    quality: {
      measure: "accuracy",
      how: judged.how,
      accuracy: judged.mean,
      ...(judged.deviation !== undefined && { accuracyDeviation: judged.deviation }),
      accuracyInterval: [quality.interval.low, quality.interval.high],
      balancedAccuracy: quality.balancedAccuracy,
      baseline: quality.baseline,
      logLoss: quality.logLoss,
      calibrationError: quality.calibrationError,
      examples: quality.examples,
      recall: quality.perClass.map(({ recall }) => recall),
    },
  });
}

/** A value of the backbone as a tap. */
export async function tapAt(examples: Examples, value: string): Promise<Tap> {
  const { types, identities, tap } = examples.site;
  if (value === tap.name) return tap;
  const { dtype } = types.get(value) ?? { dtype: "float32" };
  return { name: value, dtype, shape: await examples.shapeOf(value), identity: identities.get(value) ?? "" };
}

/** A trained whole in two: the new backbone with all that the old one gave, and the head on its tap. */
export async function splitTrained(
  trained: Model,
  site: Site,
  provenance: Making,
): Promise<{ readonly backbone: Model; readonly head: Model; readonly tap: Tap }> {
  const { input, tap, outputs } = site;
  const index = new GraphIndex(trained.graph);
  const types = inferTypes(trained);
  const kept = [...new Set([...keptOutputs(site), tap.name])];
  const part = extract(trained, index, [input], kept, types);
  const backbone = await backboneModel(part, site, provenance);
  const head = extract(trained, index, [tap.name], [outputs.logits, outputs.probabilities], types);
  return { backbone, head, tap: readMetadata(backbone).taps?.find(({ name }) => name === tap.name) ?? tap };
}

/** What computes taps, as a backbone that says how it was made. */
export async function backboneModel(
  part: Model,
  { preprocessing }: Site,
  provenance: Making,
): Promise<Model> {
  return withMetadata(part, {
    role: "backbone",
    taps: await tapsOf(part),
    preprocessing: { ...preprocessing },
    provenance,
    task: undefined,
    labels: undefined,
    activation: undefined,
    decoding: undefined,
    quality: undefined,
  });
}

/** What a head and the backbone have in common, found by identity: the stem that runs once for all. */
export interface SharedStem {
  readonly nodes: number;
  readonly flops: number;
  /** Share of the work of backbone and head together that is done once. */
  readonly share: number;
}

/**
 * Proves that a head reads what the backbone computes, by joining both and looking for what is equal.
 * @throws PolyheadError HEAD_MISMATCH when it does not
 */
export async function sharedStem({ model, input, tap }: Site, head: Model): Promise<SharedStem> {
  const joined = await joinModels(model, head);
  const trunk = extract(model, new GraphIndex(model.graph), [input], [tap.name], inferTypes(model));
  const { segments, flops } = await shareReport([
    { name: "backbone", model: trunk },
    { name: "head", model: joined },
  ]);
  const stem = segments.filter(({ usedBy }) => usedBy.length === 2);
  const sum = (value: (each: (typeof stem)[number]) => number) =>
    stem.reduce((total, each) => total + value(each), 0);
  return {
    nodes: sum(({ nodes }) => nodes),
    flops: sum((each) => each.flops),
    share: sum((each) => each.flops) / flops.shared,
  };
}

/** What a model costs, but for the time. */
export function staticCost(model: Model): Omit<Cost, "milliseconds"> {
  const index = new GraphIndex(model.graph);
  const { flops, parameters } = costOf(index.order, index, inferTypes(model));
  return { flops, bytes: 4 * parameters };
}

/** Outputs that a new backbone has to have because the old one had them. */
export function keptOutputs({ model, tap }: Site): string[] {
  const { role, taps } = readMetadata(model);
  const isBackbone = role === "backbone" || taps !== undefined;
  return isBackbone ? new GraphIndex(model.graph).outputNames : [tap.name];
}

/** The old backbone up to the same outputs. */
export function oldBackbone(site: Site): Model {
  return partOf(site, site.input, keptOutputs(site));
}
