/**
 * An index over a graph: who makes a value, who reads it, in which order nodes can run. Building one checks the
 * graph: every value is made once, before it is read, and nothing reads its own result. The index is a
 * snapshot; it does not follow later changes of the graph.
 */
import { PolyheadError } from "../base/errors.js";
import { type Graph, type Node, subgraphs, type ValueInfo, type Weight } from "./model.js";

/** A value that a node reads, and the place of the node that makes it. */
interface Edge {
  readonly name: string;
  readonly maker: number;
}

/** Index of one graph. */
export class GraphIndex {
  readonly graph: Graph;
  /** Inputs that a caller must give: those without an initializer. */
  readonly inputs: readonly ValueInfo[];
  /** Dense initializers by name. */
  readonly weights: ReadonlyMap<string, Weight>;
  /** The node that makes a value. */
  readonly producers: ReadonlyMap<string, Node>;
  /** The nodes that read a value, themselves or in a subgraph of theirs. */
  readonly consumers: ReadonlyMap<string, readonly Node[]>;
  /** All nodes, each after those it depends on; the file's own order where that is one. */
  readonly order: readonly Node[];
  #places: ReadonlyMap<Node, number> | undefined;
  #edges: readonly (readonly Edge[])[] | undefined;

  /**
   * @param outer names that an enclosing graph provides
   * @throws PolyheadError MODEL_MALFORMED
   */
  constructor(graph: Graph, outer: ReadonlySet<string> = new Set()) {
    this.graph = graph;
    refuseTwice(graph.input, "input");
    refuseTwice(graph.initializer, "initializer");
    this.weights = new Map(graph.initializer.map((weight) => [weight.name, weight]));
    const sparse = graph.sparseInitializer.map(({ values }) => values?.name ?? "");
    this.inputs = graph.input.filter(({ name }) => !this.weights.has(name) && !sparse.includes(name));
    const given = new Set([...graph.input.map(({ name }) => name), ...this.weights.keys(), ...sparse]);
    this.producers = indexProducers(graph, given);
    this.consumers = indexConsumers(graph);
    this.order = sortNodes(graph, this.producers, (name) => given.has(name) || outer.has(name));
    for (const { name } of graph.output) {
      if (!given.has(name) && !this.producers.has(name) && !outer.has(name))
        throw missing(name, "the graph's outputs");
    }
  }

  /** Names of the graph's outputs. */
  get outputNames(): string[] {
    return this.graph.output.map(({ name }) => name);
  }

  /** Whether a value depends on nothing that a caller gives (an initializer). */
  isWeight(name: string): boolean {
    return this.weights.has(name) || this.graph.sparseInitializer.some(({ values }) => values?.name === name);
  }

  /** The nodes that `values` depend on, in running order, stopping at the values of `stop`. */
  ancestors(values: Iterable<string>, stop: ReadonlySet<string> = new Set()): Node[] {
    this.#places ??= new Map(this.order.map((node, place) => [node, place]));
    const places = this.#places;
    this.#edges ??= this.order.map((node) => edgesOf(node, this.producers, places));
    const wanted = new Uint8Array(this.order.length);
    for (const name of values) {
      const producer = this.producers.get(name);
      const place = producer && places.get(producer);
      if (place !== undefined && !stop.has(name)) wanted[place] = 1;
    }
    // Makers stand before their readers, so that one pass from the end meets them all.
    for (let place = wanted.length - 1; place >= 0; place--) {
      if (wanted[place] === 0) continue;
      for (const { name, maker } of this.#edges[place] ?? []) if (!stop.has(name)) wanted[maker] = 1;
    }
    return this.order.filter((_, place) => wanted[place] === 1);
  }
}

/** Names that a node reads: its inputs, and what its subgraphs take from outside. */
export function reads(node: Node): string[] {
  const inner = subgraphs(node).flatMap(freeNames);
  return [...node.input.filter((name) => name !== ""), ...inner];
}

/** Names that a graph takes from the graph around it. */
export function freeNames(graph: Graph): string[] {
  const own = new Set([
    ...graph.input.map(({ name }) => name),
    ...graph.initializer.map(({ name }) => name),
    ...graph.sparseInitializer.map(({ values }) => values?.name ?? ""),
    ...graph.node.flatMap((node) => node.output),
  ]);
  const read = [...graph.node.flatMap(reads), ...graph.output.map(({ name }) => name)];
  return [...new Set(read.filter((name) => !own.has(name)))];
}

/** What a body knows of the values around it: those that it reads. */
export function namesFromOutside<T>(body: Graph, outer: ReadonlyMap<string, T>): Map<string, T> {
  const known = new Map<string, T>();
  for (const name of freeNames(body)) {
    const value = outer.get(name);
    if (value !== undefined) known.set(name, value);
  }
  return known;
}

function edgesOf(
  node: Node,
  producers: ReadonlyMap<string, Node>,
  places: ReadonlyMap<Node, number>,
): Edge[] {
  return reads(node).flatMap((name) => {
    const producer = producers.get(name);
    const maker = producer && places.get(producer);
    return maker === undefined ? [] : [{ name, maker }];
  });
}

function refuseTwice(list: readonly { readonly name: string }[], what: string): void {
  const names = new Set<string>();
  for (const { name } of list) {
    if (names.has(name)) {
      throw new PolyheadError("MODEL_MALFORMED", `The graph has two ${what}s ${JSON.stringify(name)}.`, {
        value: name,
      });
    }
    names.add(name);
  }
}

function indexProducers(graph: Graph, given: ReadonlySet<string>): Map<string, Node> {
  const producers = new Map<string, Node>();
  for (const node of graph.node) {
    for (const name of node.output) {
      if (name === "") continue;
      if (producers.has(name) || given.has(name)) {
        throw new PolyheadError("MODEL_MALFORMED", `The value ${JSON.stringify(name)} is made twice.`, {
          value: name,
        });
      }
      producers.set(name, node);
    }
  }
  return producers;
}

function indexConsumers(graph: Graph): Map<string, Node[]> {
  const consumers = new Map<string, Node[]>();
  for (const node of graph.node) {
    for (const name of new Set(reads(node))) {
      const list = consumers.get(name);
      if (list) list.push(node);
      else consumers.set(name, [node]);
    }
  }
  return consumers;
}

/** The file's own order where it can run as it stands, else Kahn's algorithm: a node waits for its makers. */
function sortNodes(
  graph: Graph,
  producers: ReadonlyMap<string, Node>,
  isGiven: (name: string) => boolean,
): Node[] {
  const waiting = new Map<Node, number>();
  const followers = new Map<Node, Node[]>();
  for (const node of graph.node) {
    const makers = new Set<Node>();
    for (const name of reads(node)) {
      const maker = producers.get(name);
      if (maker) makers.add(maker);
      else if (!isGiven(name)) throw missing(name, `node ${JSON.stringify(node.name)} (${node.opType})`);
    }
    waiting.set(node, makers.size);
    for (const maker of makers) {
      const list = followers.get(maker);
      if (list) list.push(node);
      else followers.set(maker, [node]);
    }
  }
  if (isSorted(graph.node, producers)) return [...graph.node];
  const order = graph.node.filter((node) => waiting.get(node) === 0);
  for (let at = 0; at < order.length; at++) {
    const done = order[at];
    for (const node of (done && followers.get(done)) ?? []) {
      const left = (waiting.get(node) ?? 0) - 1;
      waiting.set(node, left);
      if (left === 0) order.push(node);
    }
  }
  if (order.length < graph.node.length) {
    const stuck = graph.node.find((node) => (waiting.get(node) ?? 0) > 0);
    throw new PolyheadError(
      "MODEL_MALFORMED",
      `The graph runs in a circle through node ${JSON.stringify(stuck?.name)} (${stuck?.opType}).`,
      {
        node: stuck?.name,
      },
    );
  }
  return order;
}

function isSorted(nodes: readonly Node[], producers: ReadonlyMap<string, Node>): boolean {
  const done = new Set<Node>();
  return nodes.every((node) => {
    const ready = reads(node).every((name) => {
      const maker = producers.get(name);
      return !maker || done.has(maker);
    });
    done.add(node);
    return ready;
  });
}

function missing(name: string, reader: string): PolyheadError {
  return new PolyheadError(
    "MODEL_MALFORMED",
    `The value ${JSON.stringify(name)}, which ${reader} reads, is made by nothing.`,
    {
      value: name,
    },
  );
}
