/**
 * Activations computed a second time rather than kept: the forward part is cut into stretches, only what passes from one to
 * a later one stays, and the backward part computes a stretch again when it comes to it (Chen et al., "Training Deep Nets
 * with Sublinear Memory Cost", 2016). It costs about one more forward part. What the runtime would take for the same
 * computation and do once, it is given with inputs that wait for the gradient. Numbers stay what they are but for
 * the last bits where the runtime joins operators of one of the two computations.
 */
import { withGraph } from "../onnx/extract.js";
import { GraphIndex, reads } from "../onnx/graph.js";
import { bytesOf, rowDemand } from "../onnx/memory.js";
import { copyOf, type Model, type Node, opsetVersion, subgraphs, type ValueType } from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import { int64 } from "../tensor/tensor.js";
import { Builder, LEAST_OPSET } from "./autodiff/builder.js";

/** How many cuts are tried. */
const COUNTS = [1, 2, 3, 4, 6, 8, 12, 16, 24];
/** Other layouts and the runtime's own pieces of memory come on top of what is known here, so that small savings are none. */
const WORTH = 0.7;

/**
 * The same model with stretches of its forward part computed again: of some plans that whose values take least memory at
 * the worst moment, when nodes run in order.
 * @param model loss and gradients, shapes known; the forward part is what the loss needs
 * @param worth what a plan may take at most of what is taken without it
 * @returns the model itself where no plan saves enough
 */
export function recomputed(model: Model, loss: string, worth = WORTH): Model {
  const parts = new Parts(model, loss);
  let best = { model, bytes: worth * demandOf(model, parts.types) };
  for (const cuts of parts.plans()) {
    const again = new Rewriting(model, parts, cuts).done();
    const bytes = demandOf(again, inferTypes(again));
    if (bytes < best.bytes) best = { model: again, bytes };
  }
  return best.model;
}

function demandOf(model: Model, types: ReadonlyMap<string, ValueType>): number {
  return rowDemand(model, (name) => types.get(name));
}

/** The forward part of a model: what of it could be computed again, and what waits for the backward part. */
class Parts {
  readonly index: GraphIndex;
  readonly types: ReadonlyMap<string, ValueType>;
  /** In running order; what depends on weights alone is left out. */
  readonly forward: readonly Node[];
  /** In running order. */
  readonly backward: readonly Node[];
  /** Places in `forward` by value. */
  readonly places: ReadonlyMap<string, number>;
  /** Values that the backward part reads. */
  readonly waiting: ReadonlySet<string>;
  /** The place of the last forward node that reads a value. */
  readonly #lastRead = new Map<string, number>();

  constructor(model: Model, loss: string) {
    this.index = new GraphIndex(model.graph);
    this.types = inferTypes(model);
    const before = new Set(this.index.ancestors([loss]));
    const fromData = new Set(this.index.inputs.map(({ name }) => name));
    for (const node of before)
      if (reads(node).some((name) => fromData.has(name))) for (const name of node.output) fromData.add(name);
    this.forward = this.index.order.filter(
      (node) => before.has(node) && node.output.some((name) => fromData.has(name)),
    );
    this.backward = this.index.order.filter((node) => !before.has(node));
    this.places = new Map(
      this.forward.flatMap(({ output }, at) =>
        output.flatMap((name) => (name === "" ? [] : [[name, at] as const])),
      ),
    );
    this.forward.forEach((node, at) => {
      for (const name of reads(node)) this.#lastRead.set(name, at);
    });
    this.waiting = new Set(this.backward.flatMap(reads).filter((name) => this.places.has(name)));
  }

  /** Values that pass a cut before the node at a place. */
  passing(cut: number): string[] {
    return [...this.places].flatMap(([name, at]) =>
      at < cut && (this.#lastRead.get(name) ?? 0) >= cut ? [name] : [],
    );
  }

  /** Places to cut at, in several ways. */
  plans(): number[][] {
    const upTo = [0];
    for (const { output } of this.forward) {
      const waits = output.filter((name) => this.waiting.has(name));
      upTo.push((upTo.at(-1) ?? 0) + this.#bytes(waits));
    }
    const passing = upTo.map((_, cut) => this.#bytes(this.passing(cut)));
    const plans = COUNTS.map((count) => evenCuts(count, upTo, passing)).filter((cuts) => cuts.length > 0);
    return [...new Map(plans.map((cuts) => [cuts.join(), cuts])).values()];
  }

  #bytes(values: readonly string[]): number {
    return values.reduce((sum, name) => {
      const type = this.types.get(name);
      return sum + (type ? bytesOf(type) : 0);
    }, 0);
  }
}

/** So many cuts that each stretch keeps about as much as another, each moved a little to where least passes it. */
function evenCuts(count: number, upTo: readonly number[], passing: readonly number[]): number[] {
  const total = upTo.at(-1) ?? 0;
  const share = total / (count + 1);
  const cuts = new Set<number>();
  for (let at = 1; at <= count; at++) {
    const near = upTo.flatMap((bytes, place) => (Math.abs(bytes - at * share) <= share / 3 ? [place] : []));
    const [first] = near.sort((a, b) => (passing[a] ?? 0) - (passing[b] ?? 0) || a - b);
    if (first !== undefined && first > 0 && first < upTo.length - 1) cuts.add(first);
  }
  return [...cuts].sort((a, b) => a - b);
}

/** The first node of the backward part that takes a gradient from later stretches into one, and that gradient. */
interface Arrival {
  readonly node: Node;
  readonly gradient: string;
}

/** Writes the second computations. */
class Rewriting {
  readonly #model: Model;
  readonly #parts: Parts;
  readonly #builder: Builder;
  /** How many stretches are computed again: all but the last. */
  readonly #count: number;
  /** What is still there when the backward part begins: it passes a cut, or cannot be computed again. */
  readonly #kept: ReadonlySet<string>;
  /** The stretch of each forward value. */
  readonly #stretches: ReadonlyMap<string, number>;
  /** Second computations of values. */
  readonly #again = new Map<string, string>();

  constructor(model: Model, parts: Parts, cuts: readonly number[]) {
    this.#model = model;
    this.#parts = parts;
    this.#count = cuts.length;
    const taken = [...parts.types.keys(), ...parts.index.producers.keys()];
    this.#builder = new Builder(opsetVersion(model) ?? LEAST_OPSET, taken, "again");
    const once = parts.forward.filter((node) => subgraphs(node).length > 0).flatMap(({ output }) => output);
    this.#kept = new Set([...cuts.flatMap((cut) => parts.passing(cut)), ...once]);
    this.#stretches = new Map(
      [...parts.places].map(([name, at]) => [name, cuts.filter((cut) => cut <= at).length]),
    );
  }

  done(): Model {
    const { index, backward } = this.#parts;
    const reaches = this.#reaches();
    const before = new Map<Node, Node[]>();
    for (let stretch = this.#count - 1; stretch >= 0; stretch--) {
      const arrival = this.#arrival(stretch, reaches);
      if (!arrival) continue;
      const written = this.#write(stretch, arrival.gradient);
      before.set(arrival.node, [...(before.get(arrival.node) ?? []), ...written]);
    }
    const isBackward = new Set(backward);
    const node = index.order.flatMap((each) => {
      if (!isBackward.has(each)) return [each];
      const input = each.input.map((name) => this.#again.get(name) ?? name);
      return [...(before.get(each) ?? []), copyOf(each, { input })];
    });
    const initializer = [...this.#model.graph.initializer, ...this.#builder.weights];
    const main = copyOf(this.#model.graph, { node, initializer });
    return withGraph(this.#model, copyOf(main, { node: [...new GraphIndex(main).order] }));
  }

  /** The stretch whose second computation a value is read from; undefined for one that is there. */
  #againIn(name: string): number | undefined {
    const stretch = this.#stretches.get(name);
    return stretch !== undefined && stretch < this.#count && !this.#kept.has(name) ? stretch : undefined;
  }

  /** For backward values the earliest stretch that they need values of; the last one where it is that. */
  #reaches(): Map<string, number> {
    const reaches = new Map<string, number>();
    for (const node of this.#parts.backward) {
      const found = reads(node).flatMap((name) => {
        const isForward = this.#stretches.has(name);
        return (isForward ? (this.#againIn(name) ?? this.#lastOf(name)) : reaches.get(name)) ?? [];
      });
      if (found.length > 0) for (const name of node.output) reaches.set(name, Math.min(...found));
    }
    return reaches;
  }

  #lastOf(name: string): number | undefined {
    return this.#stretches.get(name) === this.#count ? this.#count : undefined;
  }

  #arrival(stretch: number, reaches: ReadonlyMap<string, number>): Arrival | undefined {
    for (const node of this.#parts.backward) {
      const [first = ""] = node.output;
      if ((reaches.get(first) ?? this.#count) > stretch) continue;
      const gradient = node.input.find((name) => (reaches.get(name) ?? -1) > stretch && this.#isFloat(name));
      if (gradient !== undefined) return { node, gradient };
    }
    return undefined;
  }

  /** The nodes of a stretch that lead to what the backward part reads, once more, when a gradient is there. */
  #write(stretch: number, gradient: string): Node[] {
    const { index, waiting, places } = this.#parts;
    const builder = this.#builder;
    const start = builder.nodes.length;
    const wanted = [...waiting].filter((name) => this.#againIn(name) === stretch);
    const needed = index
      .ancestors(wanted, this.#kept)
      .filter(({ output }) => output.some((name) => places.has(name)));
    const copies = new Map(
      needed.flatMap(({ output }) =>
        output.filter((name) => name !== "").map((name) => [name, builder.name("copy")] as const),
      ),
    );
    const first = builder.op("Gather", [builder.reshape(gradient, [-1]), builder.constant(int64([], [0]))]);
    const zero = builder.op("Mul", [first, builder.scalar(0, "float32")]);
    const given = new Set(index.inputs.map(({ name }) => name));
    const waited = new Map<string, string>();
    const inputOf = (name: string): string => {
      const known = copies.get(name) ?? waited.get(name);
      if (known !== undefined) return known;
      if (!this.#isFloat(name) || !(places.has(name) || given.has(name))) return name;
      const sum = builder.op("Add", [name, zero]);
      waited.set(name, sum);
      return sum;
    };
    for (const node of needed) {
      const input = node.input.map(inputOf);
      const output = node.output.map((name) => copies.get(name) ?? "");
      builder.nodes.push(copyOf(node, { name: output.find((name) => name !== "") ?? "", input, output }));
    }
    for (const name of wanted) this.#again.set(name, copies.get(name) ?? name);
    return builder.nodes.slice(start);
  }

  #isFloat(name: string): boolean {
    return this.#parts.types.get(name)?.dtype === "float32";
  }
}
