/**
 * What several models have in common, found by identity alone: the segments of their partition, and what they
 * cost together against each by itself. Within a model, and within a segment, equal constants count once. Equal
 * constants of different segments are not shared: only equal computations are.
 */
import { PolyheadError } from "../base/errors.js";
import { type CanonicalGraph, canonicalGraph } from "./canonical.js";
import { nodeFlops, parametersOf } from "./cost.js";
import { GraphIndex } from "./graph.js";
import { type Identity, identify } from "./identity.js";
import { inlined } from "./inline.js";
import type { Model, ValueType } from "./model.js";
import { partition } from "./partition.js";
import { inferTypes } from "./shapes.js";

/** A model under a name. */
export interface NamedModel {
  readonly name: string;
  readonly model: Model;
}

/** Something counted for each model by itself, and for all of them when what is equal exists once. */
export interface Shared {
  readonly separate: number;
  readonly shared: number;
}

/** Computations that the same models need. */
export interface SharedSegment {
  /** Names of the models. */
  readonly usedBy: readonly string[];
  /** Number of nodes, without those that only make constants. */
  readonly nodes: number;
  /** Elements of the weights that it reads, see {@link parametersOf}. */
  readonly parameters: number;
  /** Floating-point operations for one row. */
  readonly flops: number;
}

/** What models have in common. */
export interface ShareReport {
  /** Those that more models need first. */
  readonly segments: readonly SharedSegment[];
  readonly parameters: Shared;
  readonly flops: Shared;
}

/**
 * What the given models have in common.
 * @throws PolyheadError ALREADY_EXISTS when two have one name
 */
export async function shareReport(models: readonly NamedModel[]): Promise<ShareReport> {
  const graphs = new Map<string, CanonicalGraph>();
  const types = new Map<Identity, ValueType>();
  for (const { name, model: given } of models) {
    if (graphs.has(name)) {
      throw new PolyheadError(
        "ALREADY_EXISTS",
        `Two of the models are called ${JSON.stringify(name)}; expected different names.`,
        { name },
      );
    }
    const model = inlined(given);
    const identities = await identify(model);
    graphs.set(name, canonicalGraph(new GraphIndex(model.graph), identities));
    for (const [value, type] of inferTypes(model)) types.set(identities.get(value) ?? value, type);
  }
  const sizes = new Map<Identity, number>();
  for (const { weights } of graphs.values())
    for (const [identity, weight] of weights) sizes.set(identity, parametersOf(weight));
  const elements = (identities: Iterable<Identity>) =>
    sum([...new Set(identities)].map((identity) => sizes.get(identity) ?? 0));
  const members = [...graphs].map(([name, graph]) => ({
    name,
    graphs: [graph],
    outputs: [...graph.outputs.values()],
  }));
  const segments = partition(members);
  const cost = (used: typeof segments) => {
    const nodes = used.flatMap((segment) => segment.nodes);
    return {
      parameters: elements(nodes.flatMap(({ reads }) => reads)),
      flops: sum(nodes.filter(({ varies }) => varies).map(({ node }) => nodeFlops(node, types))),
    };
  };
  const ofSegments = segments.map((segment) => cost([segment]));
  const ofModels = members.map(({ name }) => cost(segments.filter(({ usedBy }) => usedBy.includes(name))));
  const both = (measure: "parameters" | "flops"): Shared => ({
    separate: sum(ofModels.map((each) => each[measure])),
    shared: sum(ofSegments.map((each) => each[measure])),
  });
  return {
    segments: segments.map((segment) => ({
      usedBy: segment.usedBy,
      nodes: segment.nodes.filter(({ varies }) => varies).length,
      ...cost([segment]),
    })),
    parameters: both("parameters"),
    flops: both("flops"),
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
