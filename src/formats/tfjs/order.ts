/**
 * The order in which the nodes of a graph can be computed: those that the outputs need, each after its
 * inputs. Iterative, so that a chain of any length is fine.
 */
import type { Artifact, TfNode } from "./artifact.js";
import { malformed } from "./json.js";

/** Nodes that the outputs need. */
export interface NeededNodes {
  /** Each after its inputs, as far as there is no cycle. */
  readonly nodes: readonly TfNode[];
  /** Names of nodes on a way around; undefined when there is none. */
  readonly cycle: readonly string[] | undefined;
}

/**
 * Sorts what the outputs need.
 * @throws PolyheadError MODEL_MALFORMED when a node reads from one that is not there
 */
export function neededNodes(artifact: Artifact): NeededNodes {
  const sorted: TfNode[] = [];
  const state = new Map<string, "open" | "done">();
  let cycle: string[] | undefined;
  const stack = artifact.outputs
    .toReversed()
    .map((output) => find(artifact, output.reference.node, "the signature"));
  while (stack.length > 0) {
    const node = stack.at(-1);
    if (node === undefined) break;
    if (state.get(node.name) === undefined) {
      state.set(node.name, "open");
      for (const input of node.inputs.toReversed()) {
        const next = find(artifact, input.node, `node ${JSON.stringify(node.name)}`);
        if (state.get(next.name) === undefined) stack.push(next);
        else if (state.get(next.name) === "open") cycle ??= [next.name, node.name];
      }
      continue;
    }
    stack.pop();
    if (state.get(node.name) === "open") {
      state.set(node.name, "done");
      sorted.push(node);
    }
  }
  return { nodes: sorted, cycle };
}

function find(artifact: Artifact, name: string, reader: string): TfNode {
  const node = artifact.nodes.get(name);
  if (node) return node;
  throw malformed(`There is no node ${JSON.stringify(name)}, from which ${reader} reads.`, {
    missing: name,
    reader,
  });
}
