/**
 * The loop of a training: epochs of batches, what they are judged by, when to stop, checkpoints to go on from. It knows
 * neither what the model answers nor where rows come from; the ways to train (head, branch, full, detect) give it both.
 * Everything left to chance follows from the seed and the number of the step, so that a training that was interrupted at
 * any moment ends with the same parameters, bit for bit on the same machine with as many threads.
 */
import { PolyheadError } from "../base/errors.js";
import { BatchOrder, batches, type Collate } from "../data/batches.js";
import { judgeProgress } from "../data/early-stopping.js";
import type { RowSource } from "../data/rows.js";
import type { Checkpoints } from "../files/checkpoint.js";
import type { Runtime } from "../runtime/runtime.js";
import { sliceRows } from "../tensor/rows.js";
import type { Tensor } from "../tensor/tensor.js";
import type { TargetTerm } from "../train/gradients.js";
import { groupsOf, type ParameterRule } from "../train/parameter-rules.js";
import { rateFactor, type Schedule } from "../train/schedules.js";
import { type Batch, Trainer } from "../train/trainer.js";
import type { TrainingModel } from "../train/training-model.js";
import type { UpdateOptions } from "../train/updates.js";

/** Settings of the loop; all of them count for what comes out. */
export interface FitSettings extends Omit<UpdateOptions, "groupOf"> {
  /** Parameters with settings of their own. */
  readonly groups?: readonly ParameterRule[] | undefined;
  /** Passes over the rows. */
  readonly epochs: number;
  /** Rows in a batch; fewer where there are not so many. */
  readonly batch: number;
  /** Batches whose gradients make one step, so that it needs the memory of one of them; 1 by default. */
  readonly accumulate?: number;
  /** Highest learning rate. */
  readonly rate: number;
  readonly schedule?: Schedule;
  readonly seed: number;
  /** Epochs without something better after which it stops, with the best epoch's parameters; else the last one's are kept. */
  readonly patience?: number | undefined;
}

/** What to train, and on what. */
export interface FitOptions<Target> extends FitSettings, Pick<UpdateOptions, "groupOf"> {
  /** Of one worker. */
  readonly runtime: Runtime;
  /** With one input, which takes the rows. */
  readonly model: TrainingModel;
  /** All of the model by default. */
  readonly parameters?: readonly string[] | undefined;
  readonly rows: RowSource<Target>;
  /** How likely each row is drawn; each once an epoch by default. */
  readonly weights?: readonly number[] | undefined;
  /** Makes the terms of the loss of a batch. */
  readonly collate: Collate<Target, readonly TargetTerm[]>;
  /** Quality of the training so far, after each epoch; more is better. */
  readonly judge?: ((trainer: Trainer) => Promise<number>) | undefined;
  /** With patience: what it begins with is judged too, and kept unless an epoch is better. */
  readonly mayKeepStart?: boolean | undefined;
  /** Where the training is kept while it goes on; its last state stays there until it is cleared. */
  readonly checkpoints?: Checkpoints | undefined;
  /** Steps from one checkpoint to the next, beside those at the end of each epoch. */
  readonly checkpointSteps?: number | undefined;
  readonly threads?: number | undefined;
  /** Computes activations again in the backward part rather than keep them, where that saves memory; it takes longer. */
  readonly recompute?: boolean | undefined;
  /** Rows made at a time; 4 by default. */
  readonly inFlight?: number | undefined;
  readonly onStep?: ((step: FitStep) => void) | undefined;
}

/** Where the training is. */
export interface FitStep {
  /** Steps that are done, of how many at most. */
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  /** The last judgement. */
  readonly quality: number | undefined;
}

/** What came out. */
export interface Fitted {
  /** With the running statistics that followed, where batch norms were in batch mode. */
  readonly parameters: ReadonlyMap<string, Tensor>;
  /** Loss of each step, before its update. */
  readonly losses: readonly number[];
  /** Quality after each epoch; empty without a judge. */
  readonly qualities: readonly number[];
  /** Quality before the first step, where what it begins with may be kept. */
  readonly start?: number | undefined;
  /** The epoch, from 1, whose parameters these are; 0 for those that it began with. */
  readonly epoch: number;
  /** Steps in an epoch. */
  readonly perEpoch: number;
}

/** What is kept beside the arrays. */
interface Progress {
  readonly losses: readonly number[];
  readonly qualities: readonly number[];
  readonly start?: number | undefined;
  readonly isOver: boolean;
}

const NOW = "now/";
const BEST = "best/";

/**
 * Trains.
 * @throws PolyheadError DIVERGED when the loss is no finite number; INVALID_ARGUMENT for settings that make no step;
 *   whatever making rows, stepping, judging and keeping checkpoints throws
 */
export async function fitModel<Target>(options: FitOptions<Target>): Promise<Fitted> {
  const { model, rows, epochs, rate, schedule = {}, seed, patience, judge, checkpoints } = options;
  const { accumulate = 1 } = options;
  requireRowsFor(options, accumulate);
  const size = options.batch * accumulate;
  const order = new BatchOrder({ count: rows.count, size, seed, weights: options.weights });
  const { perEpoch } = order;
  const steps = epochs * perEpoch;
  if (!Number.isInteger(epochs) || epochs < 1) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Got ${epochs} epochs; expected a whole number of 1 or more.`,
      {
        epochs,
      },
    );
  }
  const [input = ""] = model.inputs;
  const saved = await checkpoints?.load();
  const progress = (saved?.progress ?? { losses: [], qualities: [], isOver: false }) as Progress;
  const losses = [...progress.losses];
  const qualities = [...progress.qualities];
  const begun = saved?.step ?? 0;
  let best = named(saved?.arrays, BEST);
  const wanted = options.parameters ?? model.parameters;
  const groupOf = options.groupOf ?? (options.groups && groupsOf(options.groups, wanted));
  const trainer = new Trainer(options.runtime, model, {
    optimizer: options.optimizer,
    ...{ clipNorm: options.clipNorm, average: options.average },
    ...(groupOf && { groupOf }),
    ...(options.parameters && { parameters: options.parameters }),
    ...(options.threads !== undefined && { threads: options.threads }),
    ...(options.recompute && { recompute: true }),
    ...(saved && { state: named(saved.arrays, NOW), steps: begun }),
  });
  const keepsBest = judge !== undefined && patience !== undefined;
  let { start } = progress;
  /** Judges what was measured so far; the best epoch is 0 for the start. */
  const verdictNow = () => {
    const before = start === undefined ? [] : [start];
    const verdict = judgeProgress([...before, ...qualities], {
      patience: patience ?? Number.POSITIVE_INFINITY,
    });
    return { ...verdict, epoch: verdict.best + 1 - before.length };
  };
  const save = async (step: number, isOver: boolean) => {
    if (!checkpoints) return;
    const arrays = new Map([...prefixed(await trainer.state(), NOW), ...prefixed(best, BEST)]);
    await checkpoints.save({
      step,
      arrays,
      progress: { losses, qualities, start, isOver } satisfies Progress,
    });
  };
  try {
    if (keepsBest && options.mayKeepStart) start ??= await judge(trainer);
    const source = batches({
      ...{ rows, order, seed, collate: options.collate, from: begun, to: progress.isOver ? begun : steps },
      ...(options.inFlight !== undefined && { inFlight: options.inFlight }),
    });
    for await (const { step, x, y } of source) {
      const factor = rateFactor(schedule, step, steps);
      const whole = { inputs: new Map([[input, x]]), terms: y };
      const loss = await trainer.step(accumulate === 1 ? whole : partsOf(whole, accumulate), rate * factor);
      const done = step + 1;
      losses.push(loss);
      let isOver = done === steps;
      if (done % perEpoch === 0 && judge) {
        qualities.push(await judge(trainer));
        const verdict = verdictNow();
        if (keepsBest && verdict.isBest) best = await trainer.parameters();
        isOver ||= verdict.shouldStop;
      }
      options.onStep?.({ step: isOver ? steps : done, steps, loss, quality: qualities.at(-1) });
      const isDue =
        done % perEpoch === 0 || done % (options.checkpointSteps ?? Number.POSITIVE_INFINITY) === 0;
      if (isDue || isOver) await save(done, isOver);
      if (isOver) break;
    }
    const { best: bestAt, epoch: bestEpoch } = verdictNow();
    const isBest = keepsBest && bestAt >= 0;
    const epoch = isBest ? bestEpoch : Math.ceil(losses.length / perEpoch);
    const parameters = isBest ? (epoch === 0 ? atStart() : best) : await atEnd();
    return { parameters, losses, qualities, start, epoch, perEpoch };
  } finally {
    await trainer.close();
  }

  function atStart(): ReadonlyMap<string, Tensor> {
    return model.values([...wanted, ...model.statistics(wanted)]);
  }

  async function atEnd(): Promise<ReadonlyMap<string, Tensor>> {
    if (!saved || !progress.isOver) return trainer.parameters();
    // Of a training that was over before it was interrupted nothing is in the worker.
    return trainer.resultOf(named(saved.arrays, NOW));
  }
}

function requireRowsFor(
  { batch, rows }: Pick<FitOptions<unknown>, "batch" | "rows">,
  accumulate: number,
): void {
  if (
    accumulate === 1 ||
    (Number.isInteger(accumulate) && accumulate > 1 && rows.count >= batch * accumulate)
  )
    return;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `A step of ${accumulate} batches of ${batch} cannot be made of ${rows.count} examples; take fewer or smaller batches.`,
    { accumulate, batch, examples: rows.count },
  );
}

/** A batch in so many equal parts. */
function partsOf({ inputs, terms }: Batch, count: number): Batch[] {
  const part = (value: Tensor, at: number) => {
    const rows = (value.shape[0] ?? 0) / count;
    return sliceRows(value, at * rows, (at + 1) * rows);
  };
  return Array.from({ length: count }, (_, at) => ({
    inputs: new Map([...inputs].map(([name, value]) => [name, part(value, at)])),
    terms: terms.map((term) => ({ ...term, target: part(term.target, at) })),
  }));
}

function prefixed(values: ReadonlyMap<string, Tensor>, prefix: string): [string, Tensor][] {
  return [...values].map(([name, value]) => [prefix + name, value]);
}

function named(arrays: ReadonlyMap<string, Tensor> | undefined, prefix: string): Map<string, Tensor> {
  return new Map(
    [...(arrays ?? [])].flatMap(([name, value]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), value] as const] : [],
    ),
  );
}
