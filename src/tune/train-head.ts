/**
 * A head on frozen features: how strongly its weights are pulled towards zero is chosen by cross-validation within the
 * examples given, so that whoever holds examples back to judge it judges the choice as well. For the linear head the
 * pull is the L2 penalty of logistic regression.
 */
import { PolyheadError } from "../base/errors.js";
import { seededRandom } from "../base/random.js";
import { classCounts, classWeights } from "../data/balance.js";
import type { Collate } from "../data/batches.js";
import { stratifiedFolds } from "../data/folds.js";
import type { RowSource } from "../data/rows.js";
import { openModelOn } from "../runtime/open-model.js";
import type { Runtime } from "../runtime/runtime.js";
import type { Standardisation } from "../teach/classifier.js";
import { int64, type Tensor, toNumbers } from "../tensor/tensor.js";
import type { TargetTerm } from "../train/gradients.js";
import type { Loss } from "../train/losses.js";
import { TrainingModel } from "../train/training-model.js";
import { type FitStep, type Fitted, fitModel } from "./fit.js";
import {
  type HeadInput,
  type HeadOutputs,
  type HeadShape,
  headNetwork,
  isHeadBias,
  isTrainedInHead,
} from "./head-network.js";
import { SelectedRows } from "./rows.js";
import { qualityOf, scoresOf } from "./scores.js";

/** A loss of one class each. */
export type ClassLoss = Extract<Loss, { kind: "cross-entropy" | "focal" }>;

/** How a head is trained. */
export interface HeadSettings {
  readonly shape: HeadShape;
  /** Pulls to choose from; one of them is taken as it is. */
  readonly decays: readonly number[];
  /** Cross entropy by default. */
  readonly loss?: ClassLoss | undefined;
  /** With cross entropy: whether rare classes weigh more, so that all weigh the same together. */
  readonly isBalanced: boolean;
  readonly seed: number;
}

/** Pulls that are tried by default. */
export const DECAYS: readonly number[] = [1e-3, 1e-2, 1e-1, 1];

/** What to train a head on. */
export interface HeadOptions extends HeadSettings {
  readonly runtime: Runtime;
  readonly input: HeadInput;
  readonly outputs: HeadOutputs;
  readonly classes: number;
  /** What the input is for each example. */
  readonly rows: RowSource<number>;
  /** Class of each row. */
  readonly targets: readonly number[];
  readonly threads: number;
  readonly onStep?: ((step: FitStep) => void) | undefined;
}

/** A trained head. */
export interface TrainedHead {
  /** Of all its initializers, the measured ones included. */
  readonly values: ReadonlyMap<string, Tensor>;
  readonly standardisation: Standardisation;
  readonly decay: number;
  readonly fitted: Fitted;
}

const BATCH = 64;
/** Few examples are passed over often, many are not. */
const STEPS = 400;
const [LEAST_EPOCHS, MOST_EPOCHS] = [5, 100];
const INNER_FOLDS = 3;
/** Rows that numbers for the standardisation of maps are measured on. */
const MOST_MEASURED = 512;

/**
 * Trains a head.
 * @throws PolyheadError as `fitModel` and the rows do
 */
export async function trainHead(options: HeadOptions): Promise<TrainedHead> {
  const decay = await chosenDecay(options);
  return fitHead(options, decay, [...options.targets.keys()]);
}

/** The pull under which examples that were left out are least surprising (cross-entropy). */
async function chosenDecay(options: HeadOptions): Promise<number> {
  const { decays, targets, seed } = options;
  const [first = 0, ...others] = decays;
  const smallest = Math.min(...classCounts(targets, options.classes));
  if (others.length === 0 || smallest < 2) return first;
  const folds = stratifiedFolds(targets, INNER_FOLDS, seed);
  const all = [...targets.keys()];
  const losses = decays.map(() => 0);
  const open = openModelOn(options.runtime);
  for (let fold = 0; fold < INNER_FOLDS; fold++) {
    const training = all.filter((place) => folds[place] !== fold);
    const held = new SelectedRows(
      options.rows,
      all.filter((place) => folds[place] === fold),
    );
    for (const [at, decay] of decays.entries()) {
      const trained = await fitHead({ ...options, onStep: undefined }, decay, training);
      const scores = await scoresOf(
        held,
        2 * BATCH,
        open,
        headNetwork({ ...options, ...trained }),
        options.outputs.logits,
      );
      losses[at] = (losses[at] ?? 0) + qualityOf(scores).logLoss;
    }
  }
  return decays[losses.indexOf(Math.min(...losses))] ?? first;
}

async function fitHead(options: HeadOptions, decay: number, places: readonly number[]): Promise<TrainedHead> {
  const { input, outputs, shape, classes, seed, runtime, threads } = options;
  const rows = new SelectedRows(options.rows, places);
  const standardisation = await measured(rows, input);
  const model = new TrainingModel(headNetwork({ input, outputs, shape, classes, standardisation, seed }));
  const parameters = model.parameters.filter(isTrainedInHead);
  const perEpoch = Math.max(1, Math.floor(places.length / BATCH));
  const fitted = await fitModel<number>({
    ...{ runtime, model, parameters, rows, threads, seed, batch: BATCH },
    epochs: Math.min(MOST_EPOCHS, Math.max(LEAST_EPOCHS, Math.ceil(STEPS / perEpoch))),
    optimizer: { kind: "adam", weightDecay: decay },
    groupOf: (name) => (isHeadBias(name) ? { weightDecay: 0 } : {}),
    rate: shape.kind === "linear" ? 1e-2 : 3e-3,
    schedule: { kind: "cosine" },
    collate: classTerms(
      options,
      places.map((place) => options.targets[place] ?? 0),
    ),
    onStep: options.onStep,
  });
  return { values: fitted.parameters, standardisation, decay, fitted };
}

/**
 * The loss of a classifier on a batch.
 * @throws PolyheadError INVALID_ARGUMENT for classes that are to be balanced in a loss that has weights already, or none
 */
export function classTerms(
  {
    loss: given = { kind: "cross-entropy" },
    isBalanced,
    classes,
    outputs,
  }: Pick<HeadOptions, "loss" | "isBalanced" | "classes" | "outputs">,
  targets: readonly number[],
): Collate<number, readonly TargetTerm[]> {
  if (isBalanced && (given.kind !== "cross-entropy" || given.classWeights)) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Classes can be balanced in a cross entropy without weights of its own; got ${JSON.stringify(given)}.`,
      { loss: given },
    );
  }
  const loss = isBalanced ? { ...given, classWeights: classWeights(classCounts(targets, classes)) } : given;
  return (x, own) => ({ x, y: [{ loss, output: outputs.logits, target: int64([own.length], own) }] });
}

/** Mean and deviation of each channel over the rows, and over height and width where the input has them. */
async function measured(rows: RowSource<number>, { pooling }: HeadInput): Promise<Standardisation> {
  const { channels, axes } = pooling;
  const random = seededRandom(0);
  const [sums, squares] = [new Float64Array(channels), new Float64Array(channels)];
  const isLast = axes.length === 0 || axes[0] === 1;
  let count = 0;
  for (let at = 0; at < Math.min(rows.count, axes.length === 0 ? rows.count : MOST_MEASURED); at++) {
    const values = toNumbers((await rows.row(at, random)).x);
    const area = values.length / channels;
    values.forEach((value, place) => {
      const channel = isLast ? place % channels : Math.floor(place / area);
      sums[channel] = (sums[channel] ?? 0) + value;
      squares[channel] = (squares[channel] ?? 0) + value * value;
    });
    count += area;
  }
  const mean = sums.map((sum) => sum / count);
  const variance = squares.map((square, channel) => square / count - (mean[channel] ?? 0) ** 2);
  // A channel that never changes has nothing to say, and its rounding errors are not to be made large.
  const isConstant = (value: number, channel: number) => value <= 1e-10 * (mean[channel] ?? 0) ** 2 + 1e-20;
  return {
    mean,
    deviation: variance.map((value, channel) => (isConstant(value, channel) ? 1 : Math.sqrt(value))),
  };
}
