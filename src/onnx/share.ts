/**
 * What several models have in common, found by identity alone: the segments of their partition, and what they
 * cost together against each by itself. Within a model, and within a segment, equal constants count once. Equal
 * constants of different segments are not shared: only equal computations are.
 */
import { PolyheadError } from "../base/errors.js";
import { elementCount } from "../tensor/shape.js";
import { type CanonicalGraph, canonicalGraph } from "./canonical.js";
import { GraphIndex } from "./graph.js";
import { type Identity, identify } from "./identity.js";
import type { Model } from "./model.js";
import { partition } from "./partition.js";
import { weightShape } from "./weight.js";

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
  /** Elements of the constants that it reads. */
  readonly parameters: number;
}

/** What models have in common. */
export interface ShareReport {
  /** Those that more models need first. */
  readonly segments: readonly SharedSegment[];
  readonly parameters: Shared;
}

/**
 * What the given models have in common.
 * @throws PolyheadError ALREADY_EXISTS when two have one name
 */
export async function shareReport(models: readonly NamedModel[]): Promise<ShareReport> {
  const graphs = new Map<string, CanonicalGraph>();
  for (const { name, model } of models) {
    if (graphs.has(name)) {
      throw new PolyheadError(
        "ALREADY_EXISTS",
        `Two of the models are called ${JSON.stringify(name)}; expected different names.`,
        { name },
      );
    }
    graphs.set(name, canonicalGraph(new GraphIndex(model.graph), await identify(model)));
  }
  const sizes = new Map<Identity, number>();
  for (const { weights } of graphs.values())
    for (const [identity, weight] of weights) sizes.set(identity, elementCount(weightShape(weight)));
  const elements = (identities: Iterable<Identity>) =>
    sum([...new Set(identities)].map((identity) => sizes.get(identity) ?? 0));
  const members = [...graphs].map(([name, graph]) => ({
    name,
    graphs: [graph],
    outputs: [...graph.outputs.values()],
  }));
  const segments = partition(members);
  const readBy = (used: typeof segments) =>
    elements(used.flatMap((segment) => segment.nodes.flatMap(({ reads }) => reads)));
  return {
    segments: segments.map((segment) => ({
      usedBy: segment.usedBy,
      nodes: segment.nodes.filter(({ varies }) => varies).length,
      parameters: readBy([segment]),
    })),
    parameters: {
      separate: sum(
        members.map(({ name }) => readBy(segments.filter(({ usedBy }) => usedBy.includes(name)))),
      ),
      shared: sum(segments.map((segment) => readBy([segment]))),
    },
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
