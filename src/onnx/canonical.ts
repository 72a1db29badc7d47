/**
 * The canonical form of a graph: every value goes by its identity, `Identity` and `Constant` nodes are gone, equal
 * nodes are one node. Two models in canonical form that compute the same thing contain the same names, so that
 * merging models is joining lists.
 */
import { create } from "@bufbuild/protobuf";
import { constantOf } from "./constant.js";
import { TensorProtoSchema } from "./generated/onnx_pb.js";
import { freeNames, type GraphIndex, reads } from "./graph.js";
import type { Identity } from "./identity.js";
import { canonicalDomain, copyOf, type Graph, type Node, type Weight } from "./model.js";

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

/** The canonical form of a graph whose values have been identified. */
export function canonicalGraph(index: GraphIndex, identities: ReadonlyMap<string, Identity>): CanonicalGraph {
  const rename = (name: string): Identity => (name === "" ? "" : (identities.get(name) ?? name));
  const weights = new Map<Identity, Weight>();
  for (const [name, weight] of index.weights) weights.set(rename(name), renamedWeight(weight, rename(name)));
  const inputs = new Map(index.inputs.map(({ name }) => [name, rename(name)]));
  const varying = new Set(inputs.values());
  const nodes = new Map<string, CanonicalNode>();
  for (const node of index.order) {
    if (isStandard(node, "Identity")) continue;
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

function isStandard(node: Node, opType: string): boolean {
  return node.opType === opType && canonicalDomain(node.domain) === "";
}

/** A weight under another name; it shares the bytes. */
export function renamedWeight(weight: Weight, name: Identity): Weight {
  return Object.assign(create(TensorProtoSchema), weight, { name });
}

/** A node with its values renamed, nameless; in its subgraphs only what they take from around them. */
export function renamedNode(node: Node, rename: (name: string) => string): Node {
  return copyOf(node, {
    name: "",
    docString: "",
    input: node.input.map(rename),
    output: node.output.map(rename),
    attribute: node.attribute.map((each) =>
      each.g || each.graphs.length > 0
        ? copyOf(each, {
            ...(each.g && { g: renamedBody(each.g, rename) }),
            graphs: each.graphs.map((graph) => renamedBody(graph, rename)),
          })
        : each,
    ),
  });
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
