/**
 * Batches for training, made ahead of the step that takes them. Which examples a batch has and every random number in it
 * follow from the seed and the batch's number alone: the same seed gives the same batches in the same order whatever
 * the timing, and training goes on at batch k as if it had never stopped.
 */
import { PolyheadError } from "../base/errors.js";
import { mapInFlight } from "../base/in-flight.js";
import { combinedSeed, type Random, seededRandom, shuffled } from "../base/random.js";
import type { Tensor } from "../tensor/tensor.js";
import { int64 } from "../tensor/tensor.js";
import { type RowSource, stacked } from "./rows.js";

/** In which order examples come. */
export interface OrderOptions {
  /** Number of examples. */
  readonly count: number;
  /** Examples in a batch; fewer when there are not so many. */
  readonly size: number;
  readonly seed: number;
  /**
   * How likely each example is drawn, relative to the others; every epoch then draws as many as there are, with
   * replacement. Without weights an epoch has every example once.
   */
  readonly weights?: readonly number[] | undefined;
  /** Whether the examples that remain at the end of an epoch make a smaller batch; else they are left out of it. */
  readonly keepsRest?: boolean;
  /** Whether examples come in an order of their own in every epoch; true by default. */
  readonly isShuffled?: boolean;
}

/** Examples of one batch. */
export interface BatchPlan {
  /** Number of the batch in all of the training, from 0. */
  readonly step: number;
  /** Number of the pass over the data, from 0. */
  readonly epoch: number;
  /** Places of its examples. */
  readonly examples: readonly number[];
}

/** Says which examples a batch has, for any batch at any time. */
export class BatchOrder {
  /** Batches in an epoch. */
  readonly perEpoch: number;
  readonly #options: OrderOptions;
  readonly #size: number;
  #epoch = -1;
  #examples: readonly number[] = [];

  /** @throws PolyheadError INVALID_ARGUMENT for no examples, a wrong batch size or wrong weights */
  constructor(options: OrderOptions) {
    const { count, size, weights, keepsRest = false } = options;
    if (!Number.isInteger(count) || count < 1 || !Number.isInteger(size) || size < 1) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `Got batches of ${size} from ${count} examples; expected whole numbers of at least 1.`,
        { size, count },
      );
    }
    const isFit = weights?.every((weight) => Number.isFinite(weight) && weight >= 0) ?? true;
    if (weights && (weights.length !== count || !isFit || !weights.some((weight) => weight > 0))) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `Got ${weights.length} weights for ${count} examples; expected one for each, not negative and not all 0.`,
        { count, got: weights.length },
      );
    }
    this.#options = options;
    this.#size = Math.min(size, count);
    this.perEpoch = keepsRest ? Math.ceil(count / this.#size) : Math.floor(count / this.#size);
  }

  /** The batch of that number, from 0. */
  at(step: number): BatchPlan {
    const epoch = Math.floor(step / this.perEpoch);
    if (epoch !== this.#epoch) {
      this.#examples = this.#order(epoch);
      this.#epoch = epoch;
    }
    const from = (step % this.perEpoch) * this.#size;
    return { step, epoch, examples: this.#examples.slice(from, from + this.#size) };
  }

  #order(epoch: number): number[] {
    const { count, seed, weights, isShuffled = true } = this.#options;
    const all = Array.from({ length: count }, (_, at) => at);
    const random = seededRandom(combinedSeed(seed, epoch));
    if (weights) return drawn(weights, count, random);
    return isShuffled ? shuffled(all, random) : all;
  }
}

/** One batch. */
export interface Batch<Y> extends BatchPlan {
  /** Inputs of the model, [examples, ...]. */
  readonly x: Tensor;
  /** What it should answer. */
  readonly y: Y;
}

/** Makes one batch of rows; may change them by random numbers that are the same for the same batch. */
export type Collate<Target, Y> = (
  x: Tensor,
  targets: readonly Target[],
  random: Random,
) => { readonly x: Tensor; readonly y: Y };

/** How batches are made. */
export interface BatchesOptions<Target, Y> {
  readonly rows: RowSource<Target>;
  readonly order: BatchOrder;
  readonly seed: number;
  readonly collate: Collate<Target, Y>;
  /** Number of the first batch; 0 by default. */
  readonly from?: number;
  /** Number after the last batch. */
  readonly to: number;
  /** Batches that are made or wait ahead of the one that was taken; 2 by default. */
  readonly ahead?: number;
  /** Rows worked on at a time; 4 by default. */
  readonly inFlight?: number;
}

/**
 * Batches in order, the next ones made while one is used. Their arrays belong to the caller.
 * @throws PolyheadError what making a row throws, when its batch is due
 */
export async function* batches<Target, Y>(
  options: BatchesOptions<Target, Y>,
): AsyncGenerator<Batch<Y>, void> {
  const { from = 0, to, ahead = 2 } = options;
  const waiting: Promise<Batch<Y>>[] = [];
  let next = from;
  let isOver = false;
  // One batch is made after the other, so that no more than `inFlight` rows are worked on.
  let last: Promise<unknown> = Promise.resolve();
  const fill = (most: number) => {
    while (waiting.length < most && next < to) {
      const step = next++;
      const made = last.then(() => {
        if (isOver) throw new PolyheadError("ABORTED", "No more batches are wanted.", {});
        return makeBatch(step, options);
      });
      last = made.catch(() => {
        isOver = true;
      });
      waiting.push(made);
    }
  };
  try {
    while (next < to || waiting.length > 0) {
      fill(1);
      const [first] = waiting.splice(0, 1);
      const batch = await first;
      fill(ahead);
      if (batch) yield batch;
    }
  } finally {
    isOver = true;
    await Promise.allSettled(waiting);
  }
}

async function makeBatch<Target, Y>(step: number, options: BatchesOptions<Target, Y>): Promise<Batch<Y>> {
  const { rows, order, seed, collate, inFlight = 4 } = options;
  const plan = order.at(step);
  const made = await mapInFlight(plan.examples, inFlight, (example, place) =>
    rows.row(example, seededRandom(combinedSeed(seed, step, place))),
  );
  const x = stacked(made.map((row) => row.x));
  const random = seededRandom(combinedSeed(seed, step, -1));
  return {
    ...plan,
    ...collate(
      x,
      made.map(({ target }) => target),
      random,
    ),
  };
}

/** The classes of a batch as int64 [examples]. */
export const classNumbers: Collate<number, Tensor> = (x, targets) => ({
  x,
  y: int64([targets.length], targets),
});

/** The targets of a batch as they are. */
export function asListed<Target>(x: Tensor, targets: readonly Target[]) {
  return { x, y: targets };
}

/** Draws with replacement, by the sums of weights. */
function drawn(weights: readonly number[], count: number, random: Random): number[] {
  let total = 0;
  const sums = weights.map((weight) => {
    total += weight;
    return total;
  });
  return Array.from({ length: count }, () => {
    const wanted = random() * total;
    let [low, high] = [0, sums.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((sums[middle] ?? 0) > wanted) high = middle;
      else low = middle + 1;
    }
    return low;
  });
}
