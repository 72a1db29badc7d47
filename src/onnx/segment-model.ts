/**
 * A segment of a partition as a model that a runtime can load. Its inputs, outputs and inner values go by their
 * identities, so that segments fit together by name.
 */
import { PolyheadError } from "../base/errors.js";
import type { CanonicalGraph } from "./canonical.js";
import type { Identity } from "./identity.js";
import { joinOperatorSets } from "./merge.js";
import { graph, type Model, model, type Node, type ValueInfo, type ValueType, valueInfo } from "./model.js";
import type { Segment } from "./partition.js";

/** A model without functions (see `inlined`) whose nodes take part in a partition. */
export interface SegmentSource {
  readonly model: Model;
  readonly graph: CanonicalGraph;
  /** Dtypes and shapes of its values by identity. */
  readonly types: ReadonlyMap<Identity, ValueType>;
}

/**
 * The model of a segment.
 * @param sources the models that the partition was made of
 * @throws PolyheadError MODEL_UNSUPPORTED when the type of a value at its border is not known, or when the models
 *   use operator sets that do not go together
 */
export function segmentModel(segment: Segment, sources: readonly SegmentSource[]): Model {
  // By what they make: the segment's node may be several nodes of the sources in one.
  const wanted = new Set(segment.nodes.flatMap(({ makes }) => makes));
  const contributions = sources.flatMap((source) => {
    const nodes: Node[] = [];
    for (const { makes, node } of source.graph.nodes) {
      if (!makes.some((identity) => wanted.has(identity))) continue;
      for (const identity of makes) wanted.delete(identity);
      nodes.push(node);
    }
    return nodes.length > 0 ? [{ model: source.model, nodes }] : [];
  });
  const read = new Set(segment.nodes.flatMap(({ reads }) => reads));
  const weights = [...read].flatMap((identity) => {
    const source = sources.find((each) => each.graph.weights.has(identity));
    const found = source?.graph.weights.get(identity);
    return found ? [found] : [];
  });
  const border = (identity: Identity) => borderInfo(identity, sources);
  const main = graph("segment", {
    nodes: segment.nodes.map(({ node }) => node),
    inputs: segment.inputs.map(border),
    outputs: segment.outputs.map(border),
    weights,
  });
  const models = contributions.map((each) => each.model);
  return Object.assign(model(main), {
    irVersion: BigInt(Math.max(...models.map(({ irVersion }) => Number(irVersion)))),
    opsetImport: joinOperatorSets(contributions),
  });
}

/** The type at a segment's border: of the source that leaves most open, so that any batch fits. */
function borderInfo(identity: Identity, sources: readonly SegmentSource[]): ValueInfo {
  const types = sources.flatMap(({ types }) => types.get(identity) ?? []);
  const open = types.find(({ shape }) => typeof shape?.[0] === "string") ?? types[0];
  if (open) return valueInfo(identity, open.dtype, open.shape);
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The dtype of a value between two segments (identity ${identity.slice(0, 16)}...) is not known, because of an operator that Polyhead does not know; declare it in the model's value_info.`,
    { identity },
  );
}
