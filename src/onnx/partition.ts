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
  /**
   * What {@link neededNodes} gives for it, in one list or several, for those who partition the same members again and
   * again. A list that several members have is looked through once.
   */
  readonly needed?: readonly (readonly CanonicalNode[])[];
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

/** The segments of a set of members, each after those it reads. */
export function partition(members: readonly PartitionMember[]): Segment[] {
  const usersOf = usersByNode(members);
  const groups = new Map<string, Group>();
  const constants: CanonicalNode[] = [];
  for (const same of sameComputations([...usersOf.keys()])) {
    const node = oneNode(same);
    if (!node.varies) {
      constants.push(node);
      continue;
    }
    // Needed by whoever needs one of the nodes that stand for it.
    const users = union(same.map((each) => usersOf.get(each) ?? NOBODY));
    const group = groups.get(users.name) ?? { usedBy: users.places, nodes: [] };
    groups.set(users.name, group);
    group.nodes.push(node);
  }
  const ordered = [...groups.values()].sort(
    (a, b) => b.usedBy.length - a.usedBy.length || (a.usedBy[0] ?? 0) - (b.usedBy[0] ?? 0),
  );
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

/** Some members, by their places among all, ascending. */
interface Users {
  readonly places: readonly number[];
  /** Equal names are equal users. */
  readonly name: string;
}

const NOBODY: Users = { places: [], name: "" };

/** Every node that a member needs, once, in running order, and who needs it. */
function usersByNode(members: readonly PartitionMember[]): ReadonlyMap<CanonicalNode, Users> {
  const listUsers = new Map<readonly CanonicalNode[], number[]>();
  for (const [at, { graphs, outputs, needed = [neededNodes(graphs, outputs)] }] of members.entries())
    for (const list of needed) {
      const users = listUsers.get(list);
      if (users) users.push(at);
      else listUsers.set(list, [at]);
    }
  // Each list splits the sets that it has a part of: what it has goes to a new set, of which it is one more list.
  const sets: { readonly lists: readonly number[] }[] = [{ lists: [] }];
  const places = new Map<string, { readonly node: CanonicalNode; set: number }>();
  for (const [at, list] of [...listUsers.keys()].entries()) {
    const split: (number | undefined)[] = [];
    for (const node of list) {
      let place = places.get(node.key);
      if (!place) {
        place = { node, set: 0 };
        places.set(node.key, place);
      }
      const lists = sets[place.set]?.lists ?? [];
      if (lists.at(-1) === at) continue;
      const set = split[place.set] ?? sets.push({ lists: [...lists, at] }) - 1;
      split[place.set] = set;
      place.set = set;
    }
  }
  const users = [...listUsers.values()].map(named);
  const usersOfSets = sets.map(({ lists }) => union(lists.map((at) => users[at] ?? NOBODY)));
  return new Map([...places.values()].map(({ node, set }) => [node, usersOfSets[set] ?? NOBODY]));
}

function union(parts: readonly Users[]): Users {
  const [first = NOBODY, ...others] = parts;
  if (others.every(({ name }) => name === first.name)) return first;
  return named([...new Set(parts.flatMap(({ places }) => places))].sort((a, b) => a - b));
}

function named(places: readonly number[]): Users {
  return { places, name: places.join(" ") };
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
