/** Full training over a list of batches: the loop of steps, its order, its schedule and its result. */
import { PolyheadError } from "../base/errors.js";
import { seededRandom, shuffled } from "../base/random.js";
import type { Tensor } from "../tensor/tensor.js";
import { rateFactor, type Schedule } from "./schedules.js";
import type { Batch, Trainer } from "./trainer.js";

/** How the loop goes. */
export interface TrainBatchesOptions {
  /** Steps in all. */
  readonly steps: number;
  /** Highest learning rate. */
  readonly rate: number;
  readonly schedule?: Schedule;
  /** `given` takes batches as they stand, over and over; `shuffled` in a new order each time. */
  readonly order?: "given" | "shuffled";
  /** Decides the orders; 0 by default. */
  readonly seed?: number;
  /** Batches whose gradients are added for one step; 1 by default. */
  readonly accumulate?: number;
  /** Losses of the steps that the trainer's state comes from, of this same training; none by default. */
  readonly before?: readonly number[];
  /** Told after each step, with the losses so far; the next one waits for it. */
  readonly onStep?: (done: number, total: number, losses: readonly number[]) => void | Promise<void>;
}

/** What came out. */
export interface TrainedBatches {
  /** Loss of each step, before its update. */
  readonly losses: readonly number[];
  /** Loss of the result on the first batch. */
  readonly final: number;
  /** The result: the last parameters, or their moving average where one is kept. */
  readonly parameters: ReadonlyMap<string, Tensor>;
}

/**
 * Trains on batches.
 * @throws PolyheadError INVALID_ARGUMENT, and whatever {@link Trainer.step} throws
 */
export async function trainBatches(
  trainer: Trainer,
  batches: readonly Batch[],
  options: TrainBatchesOptions,
): Promise<TrainedBatches> {
  const {
    steps,
    rate,
    schedule = {},
    order = "given",
    seed = 0,
    accumulate = 1,
    before = [],
    onStep,
  } = options;
  const [first] = batches;
  if (!first || steps < 1 || accumulate < 1) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Got ${batches.length} batches, ${steps} steps, ${accumulate} batches a step; expected at least one of each.`,
      { batches: batches.length, steps, accumulate },
    );
  }
  const random = seededRandom(seed);
  let queue: Batch[] = [];
  const next = (): Batch => {
    if (queue.length === 0) {
      queue = order === "given" ? [...batches] : shuffled(batches, random);
    }
    return queue.shift() ?? first;
  };
  const losses = [...before];
  for (let step = 0; step < steps; step++) {
    const together = Array.from({ length: accumulate }, next);
    if (step < before.length) continue;
    losses.push(await trainer.step(together, rate * rateFactor(schedule, step, steps)));
    await onStep?.(step + 1, steps, losses);
  }
  return { losses, final: await trainer.loss(first), parameters: await trainer.parameters() };
}
