/**
 * Maps that are trained: onto the features that the head knows, or through the head onto classes. Each begins as a map
 * that was fitted in closed form. The trainings without each fold and the one on all examples go on side by side, step by
 * step, and all end with what they were when the examples that were left out fared best: how long to train is chosen as a
 * rank is. Both sides are standardised, and rates divided by the inputs of a layer, which suits Adam at any width (Yang et
 * al., "Tensor Programs V", 2021).
 */
import { PolyheadError } from "../base/errors.js";
import { combinedSeed } from "../base/random.js";
import { BatchOrder } from "../data/batches.js";
import { withGraph } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import { copyOf, declaredType, graph, type Model, node } from "../onnx/model.js";
import { weight } from "../onnx/weight.js";
import type { Runtime } from "../runtime/runtime.js";
import { type Standardisation, standardisationOf, standardised } from "../teach/classifier.js";
import { dot, type Matrix, row, selectRows, zeros } from "../teach/linear-algebra.js";
import { float32, int64, type Tensor, toNumbers } from "../tensor/tensor.js";
import { Network } from "../train/network.js";
import { separateParameters } from "../train/parameters.js";
import { type Batch, Trainer } from "../train/trainer.js";
import { TrainingModel } from "../train/training-model.js";
import { type AffineMap, unstandardised } from "./affine.js";
import type { FeatureMap } from "./feature-map.js";
import type { AdapterShape } from "./fit-options.js";
import type { FeaturePairs, Rung } from "./ladder.js";

/** What a map is to bring about. */
export type Goal =
  | {
      /** The features of the other backbone, by least squares. */
      readonly kind: "features";
    }
  | {
      /** The right answers of a head, by cross-entropy. */
      readonly kind: "classes";
      /** From the vector on, see `headFromVector`. */
      readonly head: Model;
      /** Class of each example. */
      readonly classes: readonly number[];
      /** Whether the head is trained as well. */
      readonly isHeadTrained: boolean;
    };

/** What to train. */
export interface TrainedMapOptions {
  readonly pairs: FeaturePairs;
  /** A rung of affine maps, which it begins as. */
  readonly start: Rung;
  readonly shape: AdapterShape;
  /** Width of the hidden layer of `residual`. */
  readonly hidden: number;
  readonly goal: Goal;
  readonly seed: number;
  /** Of one worker. */
  readonly runtime: Runtime;
}

/** Without each fold, and on all examples. */
export interface TrainedMaps {
  readonly map: FeatureMap;
  readonly maps: readonly FeatureMap[];
  /** Values of the head's parameters by name, where it was trained as well; empty else. */
  readonly head: ReadonlyMap<string, Tensor>;
  readonly heads: readonly ReadonlyMap<string, Tensor>[];
  /** Numbers that were trained. */
  readonly parameters: number;
  /** Steps after which examples that were left out fared best. */
  readonly steps: number;
}

const BATCH = 64;
/** Examples that were left out are looked at after each epoch, or so many steps where an epoch is shorter. */
const LEAST_STEPS = 8;
const MOST_ROUNDS = 60;
/** Rounds without anything better after which it ends. */
const PATIENCE = 5;
/** Of a layer with one input. */
const RATE = 0.05;
/** Of the head, which knows much already. */
const HEAD_RATE = 1e-3;

/**
 * Trains.
 * @throws PolyheadError DIVERGED, and MODEL_UNSUPPORTED for a head that has no gradient
 */
export async function trainMaps(options: TrainedMapOptions): Promise<TrainedMaps> {
  const { pairs, start } = options;
  const { folds } = pairs;
  const all = [...folds.keys()];
  const parts: Part[] = [];
  try {
    for (const [fold, map] of start.maps.entries()) {
      const [training, test] = [true, false].map((isTraining) =>
        all.filter((at) => (folds[at] !== fold) === isTraining),
      );
      if (training && test) parts.push(new Part(options, map, training, test));
    }
    parts.push(new Part(options, start.map, all, []));
    let [least, best, steps] = [Number.POSITIVE_INFINITY, 0, 0];
    let kept: ReadonlyMap<string, Tensor>[] = [];
    for (let round = 0; round <= Math.min(best + PATIENCE, MOST_ROUNDS); round++) {
      if (round > 0) for (const part of parts) await part.round();
      let loss = 0;
      for (const part of parts) loss += await part.leftOutLoss();
      if (!(loss < least)) continue;
      [least, best, steps] = [loss, round, parts[0]?.steps ?? 0];
      kept = [];
      for (const part of parts) kept.push(await part.values());
    }
    const maps = parts.map((part, at) => part.mapOf(kept[at] ?? new Map()));
    const heads = parts.map((part, at) => part.headOf(kept[at] ?? new Map()));
    const [map, head] = [maps.pop(), heads.pop()];
    if (!map || !head) throw new PolyheadError("INTERNAL", "Nothing was trained.", {});
    const trained = [...(kept.at(-1)?.values() ?? [])];
    const parameters = trained.reduce((sum, { data }) => sum + data.length, 0);
    return { map, maps, head, heads, steps, parameters };
  } finally {
    for (const part of parts) await part.close();
  }
}

/** The head with other values of its parameters. @param head as it was trained, or the whole that it is a part of */
export function withHeadValues(head: Model, values: ReadonlyMap<string, Tensor>): Model {
  const { model } = separateParameters(head);
  const initializer = model.graph.initializer.map((each) => {
    const value = values.get(each.name);
    return value ? weight(each.name, value) : each;
  });
  return withGraph(model, copyOf(model.graph, { initializer }));
}

/** One of the trainings. */
class Part {
  readonly #options: TrainedMapOptions;
  readonly #from: Standardisation;
  readonly #to: Standardisation;
  readonly #names: Names;
  readonly #trainer: Trainer;
  readonly #training: TrainingModel;
  readonly #trained: readonly string[];
  readonly #source: Matrix;
  readonly #target: Matrix;
  readonly #places: readonly number[];
  readonly #test: readonly number[];
  readonly #order: BatchOrder;

  constructor(
    options: TrainedMapOptions,
    start: AffineMap,
    places: readonly number[],
    test: readonly number[],
  ) {
    const { pairs, goal, seed, runtime, shape } = options;
    this.#options = options;
    const [from, to] = [pairs.source, pairs.target].map((side) =>
      standardisationOf(selectRows(side, places)),
    );
    if (!from || !to) throw new PolyheadError("INTERNAL", "A side is missing.", {});
    [this.#from, this.#to] = [from, to];
    this.#source = standardised(pairs.source, from);
    this.#target = standardised(pairs.target, to);
    [this.#places, this.#test] = [places, test];
    this.#names = namesBeside(goal.kind === "classes" ? goal.head : undefined);
    const whole = new TrainingModel(networkOf(options, this.#names, to));
    const values = startOf(start, from, to, this.#names);
    this.#training = new TrainingModel(whole.withValues(values));
    const { direct, inward, outward } = this.#names;
    const layers = shape === "residual" ? [inward, outward] : [direct];
    const own = [...layers.map((layer) => `${layer}.weight`), `${direct}.bias`];
    const head = goal.kind === "classes" && goal.isHeadTrained ? separateParameters(goal.head).names : [];
    const widths = new Map([...this.#training.values(own)].map(([name, value]) => [name, value.shape[1]]));
    this.#trained = [...own, ...(shape === "residual" ? [`${inward}.bias`] : []), ...head];
    this.#trainer = new Trainer(runtime, this.#training, {
      optimizer: { kind: "adam" },
      parameters: this.#trained,
      groupOf: (name) => ({
        rate: head.includes(name) ? HEAD_RATE / RATE : 1 / (widths.get(name) ?? BIAS_WIDTH),
      }),
    });
    this.#order = new BatchOrder({
      count: places.length,
      size: BATCH,
      seed: combinedSeed(seed, test.length, test[0] ?? 0),
    });
  }

  get steps(): number {
    return this.#trainer.steps;
  }

  async round(): Promise<void> {
    const { perEpoch } = this.#order;
    for (let step = 0; step < Math.max(perEpoch, LEAST_STEPS); step++) {
      const { examples } = this.#order.at(this.#trainer.steps);
      await this.#trainer.step(this.#batch(examples.map((at) => this.#places[at] ?? 0)), RATE);
    }
  }

  /** The sum over examples. */
  async leftOutLoss(): Promise<number> {
    return this.#test.length === 0
      ? 0
      : this.#test.length * (await this.#trainer.loss(this.#batch(this.#test)));
  }

  /** Of all that is trained, as it is now. */
  async values(): Promise<ReadonlyMap<string, Tensor>> {
    return this.steps === 0 ? this.#training.values(this.#trained) : this.#trainer.parameters();
  }

  /** The map between plain features. */
  mapOf(values: ReadonlyMap<string, Tensor>): FeatureMap {
    const { direct, inward, outward } = this.#names;
    const { shape } = this.#options;
    const matrix = (name: string) => {
      const value = values.get(name) ?? this.#training.values([name]).get(name);
      if (!value) throw new PolyheadError("INTERNAL", `${name} is no parameter.`, {});
      const [rows = 0, columns = 1] = value.shape;
      return { rows, columns, data: toNumbers(value) };
    };
    const [from, to] = [this.#from, this.#to];
    const plain = unstandardised(matrix(`${direct}.weight`), from, to);
    const offset = matrix(`${direct}.bias`).data;
    const bias = plain.bias.map((each, at) => each + (to.deviation[at] ?? 1) * (offset[at] ?? 0));
    const map = { weights: plain.weights, bias, ...(shape === "relu" && { isRectified: true }) };
    if (shape !== "residual") return map;
    const inside = matrix(`${inward}.weight`);
    const units = { mean: new Float64Array(inside.rows), deviation: new Float64Array(inside.rows).fill(1) };
    const { weights, bias: shift } = unstandardised(inside, from, units);
    const own = matrix(`${inward}.bias`).data;
    const outside = matrix(`${outward}.weight`);
    const scaled = outside.data.map(
      (each, at) => each * (to.deviation[Math.floor(at / outside.columns)] ?? 1),
    );
    return {
      ...map,
      hidden: {
        inward: { weights, bias: shift.map((each, at) => each + (own[at] ?? 0)) },
        outward: { ...outside, data: scaled },
      },
    };
  }

  /** Values of the head's parameters, where they are trained. */
  headOf(values: ReadonlyMap<string, Tensor>): ReadonlyMap<string, Tensor> {
    return new Map([...values].filter(([name]) => !name.startsWith(this.#names.prefix)));
  }

  close(): Promise<void> {
    return this.#trainer.close();
  }

  #batch(examples: readonly number[]): Batch {
    const { goal } = this.#options;
    const rows = (matrix: Matrix) =>
      float32([examples.length, matrix.columns], selectRows(matrix, examples).data);
    const target =
      goal.kind === "features"
        ? { loss: { kind: "mean-squared" as const }, target: rows(this.#target) }
        : {
            loss: { kind: "cross-entropy" as const },
            target: int64(
              [examples.length],
              examples.map((at) => goal.classes[at] ?? 0),
            ),
          };
    return { inputs: new Map([[this.#names.input, rows(this.#source)]]), terms: [target] };
  }
}

/** What a bias counts as, among layers that are divided by their inputs. */
const BIAS_WIDTH = 10;

interface Names {
  readonly prefix: string;
  readonly input: string;
  readonly direct: string;
  readonly inward: string;
  readonly outward: string;
}

/** Names that nothing of the head has. */
function namesBeside(head: Model | undefined): Names {
  const index = head && new GraphIndex(head.graph);
  const taken = [...(index?.producers.keys() ?? []), ...(index?.weights.keys() ?? [])];
  let prefix = "adapter/";
  while (taken.some((name) => name.startsWith(prefix))) prefix = `-${prefix}`;
  const named = (name: string) => prefix + name;
  return {
    prefix,
    input: named("x"),
    direct: named("direct"),
    inward: named("inward"),
    outward: named("outward"),
  };
}

/** From standardised features of the source to those of the target, or on through the head. */
function networkOf(
  { pairs, shape, hidden, goal, seed }: TrainedMapOptions,
  names: Names,
  to: Standardisation,
): Model {
  const { prefix, input, direct, inward, outward } = names;
  const width = pairs.target.columns;
  const network = new Network(seed);
  const x = network.input(input, ["batch", pairs.source.columns]);
  const through = network.linear(direct, x, width, 0);
  const inside = shape === "residual" && network.relu(`${prefix}inside`, network.linear(inward, x, hidden));
  const made = inside
    ? network.sum(`${prefix}sum`, [through, network.linear(outward, inside, width, 0)])
    : through;
  const map = network.model("adapter", [made]);
  if (goal.kind === "features") return map;
  const { model: head } = separateParameters(goal.head);
  const [vector] = new GraphIndex(head.graph).inputs;
  const rank = (vector && declaredType(vector)?.shape?.length) ?? 2;
  const constant = { scale: `${prefix}scale`, shift: `${prefix}shift`, shape: `${prefix}shape` };
  const [scaled, shifted, rectified] = ["scaled", "shifted", "rectified"].map((name) => prefix + name);
  if (!scaled || !shifted || !rectified) throw new PolyheadError("INTERNAL", "Names are missing.", {});
  const main = graph("adapter and head", {
    nodes: [
      ...map.graph.node,
      node("Mul", [made.name, constant.scale], [scaled]),
      node("Add", [scaled, constant.shift], [shifted]),
      node(shape === "relu" ? "Relu" : "Identity", [shifted], [rectified]),
      node("Reshape", [rectified, constant.shape], [vector?.name ?? ""]),
      ...head.graph.node,
    ],
    inputs: map.graph.input,
    outputs: head.graph.output,
    weights: [
      ...map.graph.initializer,
      weight(constant.scale, float32([width], to.deviation)),
      weight(constant.shift, float32([width], to.mean)),
      weight(constant.shape, int64([rank], [0, width, ...Array<number>(rank - 2).fill(1)])),
      ...head.graph.initializer,
    ],
  });
  return withGraph(head, main);
}

/** The affine map that it begins as, between standardised features. */
function startOf(
  { weights, bias }: AffineMap,
  from: Standardisation,
  to: Standardisation,
  { direct }: Names,
): Map<string, Tensor> {
  const made = zeros(weights.rows, weights.columns);
  const offset = new Float64Array(weights.rows);
  for (let at = 0; at < weights.rows; at++) {
    const scale = to.deviation[at] ?? 1;
    const own = row(weights, at);
    row(made, at).set(own.map((each, column) => (each * (from.deviation[column] ?? 1)) / scale));
    offset[at] = (dot(own, from.mean) + (bias[at] ?? 0) - (to.mean[at] ?? 0)) / scale;
  }
  return new Map([
    [`${direct}.weight`, float32([made.rows, made.columns], made.data)],
    [`${direct}.bias`, float32([made.rows], offset)],
  ]);
}
