/**
 * The partition of several models into segments. Every computation is given the set of members that need it;
 * those with the same set form a segment. What a node needs is needed by at least the same members, so a segment
 * is computed from segments with larger sets alone, and each runs at most once per input. Constants belong to
 * nobody: every segment holds those it reads.
 */
import type { CanonicalGraph, CanonicalNode } from "./canonical.js";
import type { Identity } from "./identity.js";

/** A model, or a head together with the backbone it reads, in a partition. */
export interface PartitionMember {
  readonly name: string;
  /** Graphs that together compute it; a head's graph reads identities that its backbone's makes. */
  readonly graphs: readonly CanonicalGraph[];
  /** The values that are asked of it. */
  readonly outputs: readonly Identity[];
}

/** Computations that the same members need. */
export interface Segment {
  /** Names of the members that need it, in the order they were given. */
  readonly usedBy: readonly string[];
  /** In running order. */
  readonly nodes: readonly CanonicalNode[];
  /** Values it takes from callers or from other segments. */
  readonly inputs: readonly Identity[];
  /** Values that other segments or callers take from it. */
  readonly outputs: readonly Identity[];
}

/** The segments of a set of members, each after those it reads. */
export function partition(members: readonly PartitionMember[]): Segment[] {
  const nodes = new Map<string, CanonicalNode>();
  const users = new Map<string, number[]>();
  members.forEach((member, place) => {
    for (const node of nodesFor(
      member.outputs,
      member.graphs.flatMap((graph) => graph.nodes),
    )) {
      nodes.set(node.key, nodes.get(node.key) ?? node);
      const list = users.get(node.key);
      if (list) list.push(place);
      else users.set(node.key, [place]);
    }
  });
  const groups = new Map<string, { usedBy: readonly number[]; nodes: CanonicalNode[] }>();
  for (const [key, usedBy] of users) {
    const node = nodes.get(key);
    if (!node?.varies) continue;
    const group = groups.get(usedBy.join(" "));
    if (group) group.nodes.push(node);
    else groups.set(usedBy.join(" "), { usedBy, nodes: [node] });
  }
  const ordered = [...groups.values()].sort(
    (a, b) => b.usedBy.length - a.usedBy.length || (a.usedBy[0] ?? 0) - (b.usedBy[0] ?? 0),
  );
  const constants = [...nodes.values()].filter(({ varies }) => !varies);
  const constantValues = new Set([...constants.flatMap(({ makes }) => makes), ...weightIdentities(members)]);
  const borders = ordered.map((group) => {
    const made = new Set(group.nodes.flatMap(({ makes }) => makes));
    const read = new Set(group.nodes.flatMap((node) => node.reads).filter((each) => !made.has(each)));
    return { ...group, made, read };
  });
  const asked = members.flatMap(({ outputs }) => outputs);
  return borders.map((own) => {
    const elsewhere = new Set([
      ...asked,
      ...borders.flatMap((other) => (other === own ? [] : [...other.read])),
    ]);
    const inputs = [...own.read].filter((each) => !constantValues.has(each));
    return {
      usedBy: own.usedBy.map((place) => members[place]?.name ?? ""),
      nodes: [...nodesFor(own.read, constants), ...own.nodes],
      inputs,
      outputs: [...own.made].filter((each) => elsewhere.has(each)),
    };
  });
}

/** Those of `nodes` (in running order) that `values` depend on. */
function nodesFor(values: Iterable<Identity>, nodes: readonly CanonicalNode[]): CanonicalNode[] {
  const needed = new Set(values);
  const found: CanonicalNode[] = [];
  for (const node of nodes.toReversed()) {
    if (!node.makes.some((identity) => needed.has(identity))) continue;
    found.push(node);
    for (const identity of node.reads) needed.add(identity);
  }
  return found.reverse();
}

function* weightIdentities(members: readonly PartitionMember[]): Generator<Identity> {
  for (const { graphs } of members) for (const { weights } of graphs) yield* weights.keys();
}
