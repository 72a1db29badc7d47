/**
 * The canonical form of a graph: every value goes by its identity, `Identity` and `Constant` nodes are gone, equal
 * nodes are one node. Two models in canonical form that compute the same thing contain the same names, so that
 * merging models is joining lists. Nodes that make a value in common are the same computation and read the same
 * values; they may differ in which of its optional outputs they name.
 */
import { create } from "@bufbuild/protobuf";
import { constantOf } from "./constant.js";
import { TensorProtoSchema } from "./generated/onnx_pb.js";
import { freeNames, GraphIndex, reads } from "./graph.js";
import type { Identity } from "./identity.js";
import { canonicalDomain, copyOf, type Graph, type Node, subgraphs, type Weight } from "./model.js";

/** One computation. */
export interface CanonicalNode {
  /** Identities of what it makes, joined: equal keys, equal computations. */
  readonly key: string;
  /** The node, its inputs and outputs renamed to identities. */
  readonly node: Node;
  /** Identities that it reads, in subgraphs too. */
  readonly reads: readonly Identity[];
  /** Identities that it makes. */
  readonly makes: readonly Identity[];
  /** Whether it depends on an input; the others make constants. */
  readonly varies: boolean;
}

/** Nodes of the same computation, of which each may name other outputs. */
export type SameNodes = [CanonicalNode, ...CanonicalNode[]];

/** A graph in canonical form. */
export interface CanonicalGraph {
  /** In running order. */
  readonly nodes: readonly CanonicalNode[];
  /** Constants by identity, renamed. */
  readonly weights: ReadonlyMap<Identity, Weight>;
  /** Identities of the inputs by name. */
  readonly inputs: ReadonlyMap<string, Identity>;
  /** Identities of the outputs by name. */
  readonly outputs: ReadonlyMap<string, Identity>;
}

/** The canonical form of a graph without calls of functions (see `inlined`) whose values have been identified. */
export function canonicalGraph(index: GraphIndex, identities: ReadonlyMap<string, Identity>): CanonicalGraph {
  const rename = (name: string): Identity => (name === "" ? "" : (identities.get(name) ?? name));
  const weights = new Map<Identity, Weight>();
  for (const [name, weight] of index.weights) weights.set(rename(name), renamedWeight(weight, rename(name)));
  const inputs = new Map(index.inputs.map(({ name }) => [name, rename(name)]));
  const varying = new Set(inputs.values());
  const nodes = new Map<string, CanonicalNode>();
  for (const each of index.order) {
    if (isStandard(each, "Identity")) continue;
    const node = withoutDeadNodes(each);
    const constant = isStandard(node, "Constant") ? constantOf(node) : undefined;
    if (constant) {
      const identity = rename(node.output[0] ?? "");
      weights.set(identity, renamedWeight(constant, identity));
      continue;
    }
    const makes = node.output.filter((name) => name !== "").map(rename);
    const read = [...new Set(reads(node).map(rename))];
    const varies = read.some((identity) => varying.has(identity));
    if (varies) for (const identity of makes) varying.add(identity);
    const key = makes.join(" ");
    nodes.set(key, { key, node: renamedNode(node, rename), reads: read, makes, varies });
  }
  const outputs = new Map(index.outputNames.map((name) => [name, rename(name)]));
  return { nodes: [...nodes.values()], weights, inputs, outputs };
}

/**
 * Nodes that make a value in common, together. In running order where the nodes are, because those of one
 * computation read the same.
 */
export function sameComputations(nodes: Iterable<CanonicalNode>): readonly SameNodes[] {
  const groups: (SameNodes | undefined)[] = [];
  const placeOf = new Map<Identity, number>();
  const add = (place: number, same: SameNodes) => {
    const group = groups[place];
    if (group) group.push(...same);
    else groups[place] = same;
    for (const { makes } of same) for (const identity of makes) placeOf.set(identity, place);
  };
  for (const node of nodes) {
    if (!node.makes.some((identity) => placeOf.has(identity))) {
      add(groups.length, [node]);
      continue;
    }
    const places = new Set<number>();
    for (const identity of node.makes) {
      const place = placeOf.get(identity);
      if (place !== undefined) places.add(place);
    }
    const earliest = Math.min(groups.length, ...places);
    add(earliest, [node]);
    // A node that makes what two others make one each shows that these are the same.
    for (const place of places) {
      const group = groups[place];
      if (place === earliest || !group) continue;
      groups[place] = undefined;
      add(earliest, group);
    }
  }
  return groups.filter((group) => group !== undefined);
}

/** One node for nodes of the same computation; it makes what any of them makes. */
export function oneNode([first, ...others]: SameNodes): CanonicalNode {
  if (others.length === 0) return first;
  const same = [first, ...others];
  const most = Math.max(...same.map(({ node }) => node.output.length));
  const output = Array.from(
    { length: most },
    (_, place) => same.map(({ node }) => node.output[place] ?? "").find((name) => name !== "") ?? "",
  );
  const makes = output.filter((name) => name !== "");
  return { ...first, key: makes.join(" "), node: copyOf(first.node, { output }), makes };
}

/** The node with only those nodes in its subgraphs that their results depend on: others would read for nothing. */
function withoutDeadNodes(of: Node): Node {
  if (subgraphs(of).length === 0) return of;
  const live = (body: Graph): Graph => {
    const graph = copyOf(body, { node: body.node.map(withoutDeadNodes) });
    const index = new GraphIndex(graph, new Set(freeNames(graph)));
    return copyOf(graph, { node: index.ancestors(index.outputNames) });
  };
  return withBodies(of, live);
}

/** A node with its subgraphs changed. */
function withBodies(of: Node, change: (body: Graph) => Graph): Node {
  const attribute = of.attribute.map((each) =>
    each.g || each.graphs.length > 0
      ? copyOf(each, { ...(each.g && { g: change(each.g) }), graphs: each.graphs.map(change) })
      : each,
  );
  return copyOf(of, { attribute });
}

function isStandard(node: Node, opType: string): boolean {
  return node.opType === opType && canonicalDomain(node.domain) === "";
}

/** A weight under another name; it shares the bytes. */
export function renamedWeight(weight: Weight, name: Identity): Weight {
  return Object.assign(create(TensorProtoSchema), weight, { name });
}

/** A node with its values renamed, nameless; in its subgraphs only what they take from around them. */
export function renamedNode(node: Node, rename: (name: string) => string): Node {
  return copyOf(
    withBodies(node, (body) => renamedBody(body, rename)),
    {
      name: "",
      docString: "",
      input: node.input.map(rename),
      output: node.output.map(rename),
    },
  );
}

/** A subgraph keeps its own names; only what it takes from around it is renamed. */
function renamedBody(graph: Graph, rename: (name: string) => string): Graph {
  const free = new Set(freeNames(graph));
  const inner = (name: string) => (free.has(name) ? rename(name) : name);
  return copyOf(graph, {
    node: graph.node.map((node) => renamedNode(node, inner)),
    output: graph.output.map((info) => copyOf(info, { name: inner(info.name) })),
  });
}
