/**
 * The partition of several models into segments. Every computation is given the set of members that need it;
 * those with the same set form a segment. What a node needs is needed by at least the same members, so a segment
 * is computed from segments with larger sets alone, and each runs at most once per input. Constants belong to
 * nobody: every segment holds those it reads. A node of which members name different outputs makes them all at once.
 */
import { type CanonicalGraph, type CanonicalNode, oneNode, sameComputations } from "./canonical.js";
import type { Identity } from "./identity.js";

/** A model, or a head together with the backbone it reads, in a partition. */
export interface PartitionMember {
  readonly name: string;
  /** Graphs that together compute it; a head's graph reads identities that its backbone's makes. */
  readonly graphs: readonly CanonicalGraph[];
  /** The values that are asked of it. */
  readonly outputs: readonly Identity[];
  /** What {@link neededNodes} gives for it, for those who partition the same members again and again. */
  readonly needed?: readonly CanonicalNode[];
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

/** What the same members need, by their places among all members. */
interface Group {
  readonly usedBy: readonly number[];
  readonly nodes: CanonicalNode[];
}

/** A node and the group that it is in, by its place; changed with every member that needs it. */
interface Place {
  readonly node: CanonicalNode;
  group: number;
}

/** The segments of a set of members, each after those it reads. */
export function partition(members: readonly PartitionMember[]): Segment[] {
  // Each member splits the groups that it needs a part of: what it needs goes to a new group, which it joins.
  const places = new Map<string, Place>();
  const groups: Group[] = [{ usedBy: [], nodes: [] }];
  members.forEach((member, at) => {
    const split: (number | undefined)[] = [];
    for (const node of member.needed ?? neededNodes(member.graphs, member.outputs)) {
      let place = places.get(node.key);
      if (!place) {
        place = { node, group: 0 };
        places.set(node.key, place);
      }
      const usedBy = groups[place.group]?.usedBy ?? [];
      // Two graphs of one member may hold the same node.
      if (usedBy.at(-1) === at) continue;
      const group = split[place.group] ?? groups.push({ usedBy: [...usedBy, at], nodes: [] }) - 1;
      split[place.group] = group;
      place.group = group;
    }
  });
  const constants: CanonicalNode[] = [];
  for (const same of sameComputations([...places.values()].map(({ node }) => node))) {
    const node = oneNode(same);
    if (node.varies) groupFor(same, groups, places)?.nodes.push(node);
    else constants.push(node);
  }
  const ordered = groups
    .filter((group) => group.nodes.length > 0)
    .sort((a, b) => b.usedBy.length - a.usedBy.length || (a.usedBy[0] ?? 0) - (b.usedBy[0] ?? 0));
  const constantValues = new Set([...constants.flatMap(({ makes }) => makes), ...weightIdentities(members)]);
  const borders = ordered.map((group) => {
    const made = new Set(group.nodes.flatMap(({ makes }) => makes));
    const read = new Set(group.nodes.flatMap((node) => node.reads).filter((each) => !made.has(each)));
    return { ...group, made, read };
  });
  // No segment is among the readers of what it makes, see `read`.
  const handedOut = new Set([
    ...members.flatMap(({ outputs }) => outputs),
    ...borders.flatMap(({ read }) => [...read]),
  ]);
  return borders.map((own) => {
    const inputs = [...own.read].filter((each) => !constantValues.has(each));
    return {
      usedBy: own.usedBy.map((place) => members[place]?.name ?? ""),
      nodes: [...nodesFor(own.read, constants), ...own.nodes],
      inputs,
      outputs: [...own.made].filter((each) => handedOut.has(each)),
    };
  });
}

/** The group of a computation: needed by whoever needs one of the nodes that stand for it. */
function groupFor(
  same: readonly CanonicalNode[],
  groups: Group[],
  places: ReadonlyMap<string, Place>,
): Group | undefined {
  const own = new Set(same.map(({ key }) => groups[places.get(key)?.group ?? 0]));
  const [first, ...others] = own;
  if (others.length === 0) return first;
  const users = new Set([...own].flatMap((each) => each?.usedBy ?? []));
  const known = groups.find(
    ({ usedBy }) => usedBy.length === users.size && usedBy.every((each) => users.has(each)),
  );
  if (known) return known;
  const made: Group = { usedBy: [...users].sort((a, b) => a - b), nodes: [] };
  groups.push(made);
  return made;
}

/** The nodes that values depend on, in running order. */
export function neededNodes(
  graphs: readonly CanonicalGraph[],
  outputs: readonly Identity[],
): readonly CanonicalNode[] {
  return nodesFor(
    outputs,
    graphs.flatMap((graph) => graph.nodes),
  );
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

/** Heads share the graph of their backbone, which is looked through once. */
function* weightIdentities(members: readonly PartitionMember[]): Generator<Identity> {
  for (const { weights } of new Set(members.flatMap(({ graphs }) => graphs))) yield* weights.keys();
}
