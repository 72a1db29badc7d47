/**
 * How good a way of training is: by folds, where every example is judged by what was learned without it, or by examples
 * that were held back. Choices within the training (the head's regularisation; by folds also whether more than the head
 * is worth its training) are made anew each time.
 */
import { PolyheadError } from "../base/errors.js";
import { classCounts } from "../data/balance.js";
import { stratifiedFolds, stratifiedSplit } from "../data/folds.js";
import type { Checkpoints } from "../files/checkpoint.js";
import { bestClasses } from "../teach/classifier.js";
import { toNumbers } from "../tensor/tensor.js";
import type { ClassificationQuality } from "../vision/classification-quality.js";
import { accuracy, mean, standardDeviation } from "../vision/metrics.js";
import type { Choice } from "./choice.js";
import type { Examples } from "./examples.js";
import type { FitStep } from "./fit.js";
import type { Learned, Learner, Stage } from "./learner.js";
import { mergedScores, qualityOf, type Scores } from "./scores.js";

/** By what it is judged. */
export type Judging =
  | { readonly by: "folds"; readonly folds: number }
  | { readonly by: "held-back"; readonly share: number };

/** What was found. */
export interface Judged {
  /** Over all examples that were judged. */
  readonly quality: ClassificationQuality;
  /** Places of those examples, in the order that mistakes count them. */
  readonly places: readonly number[];
  /** Accuracy of each fold; one for examples held back. */
  readonly folds: readonly number[];
  readonly mean: number;
  /** Standard deviation between folds; undefined without folds. */
  readonly deviation: number | undefined;
  /** What was measured, in words. */
  readonly how: string;
}

/** What was learned in the end, and how good it is. */
export interface JudgedLearning {
  readonly learned: Learned;
  readonly judged: Judged;
  /** Examples that it learned from. */
  readonly training: number;
  readonly seconds: number;
}

/** What to judge. */
export interface JudgeOptions {
  readonly examples: Examples;
  readonly learner: Learner;
  readonly judging: Judging;
  readonly seed: number;
  /** Whether held-back examples also say when to stop. */
  readonly stopsEarly: boolean;
  /** Checkpoints of one stage of one training of several. */
  readonly checkpointsOf?: ((training: string, stage: Stage) => Checkpoints | undefined) | undefined;
  readonly checkpointSteps?: number | undefined;
  /** The training under way, of how many, and where it is. */
  readonly onStep?: ((step: FitStep, training: number, trainings: number) => void) | undefined;
}

/**
 * Learns and judges. By folds, the learning in the end is from all examples; else from those that were not held back.
 * @throws PolyheadError DATA_MALFORMED for a class of fewer than two examples, and as `Learner.learn` does
 */
export async function learnAndJudge(options: JudgeOptions): Promise<JudgedLearning> {
  const start = performance.now();
  requireTwoOfEach(options.examples);
  const result =
    options.judging.by === "folds"
      ? await byFolds(options, options.judging.folds)
      : await byHeldBack(options, options.judging.share);
  return { ...result, seconds: (performance.now() - start) / 1000 };
}

type Result = Omit<JudgedLearning, "seconds">;

async function byFolds(
  { examples, learner, seed, ...options }: JudgeOptions,
  wanted: number,
): Promise<Result> {
  const { targets, data } = examples;
  const folds = Math.min(wanted, Math.max(...classCounts(targets, data.labels.length)));
  const assigned = stratifiedFolds(targets, folds, seed);
  const all = [...targets.keys()];
  const parts: { places: number[]; scores: Scores }[] = [];
  const choices: Choice[] = [];
  const run = (name: string, training: readonly number[], at: number) =>
    learner.learn({
      training,
      checkpointsOf: (stage) => options.checkpointsOf?.(name, stage),
      checkpointSteps: options.checkpointSteps,
      onStep: (step) => options.onStep?.(step, at, folds + 1),
    });
  for (let fold = 0; fold < folds; fold++) {
    const learned = await run(
      `fold-${fold + 1}`,
      all.filter((place) => assigned[place] !== fold),
      fold,
    );
    if (learned.choice) choices.push(learned.choice);
    const places = all.filter((place) => assigned[place] === fold);
    parts.push({ places, scores: await learner.scores(learned, places) });
  }
  const accuracies = parts.map(({ scores }) => accuracyOf(scores));
  const learned = await run("all", all, folds);
  const headKept = choices.filter(({ kept }) => kept === "head").length;
  return {
    learned,
    training: all.length,
    judged: {
      quality: qualityOf(mergedScores(parts)),
      places: all,
      folds: accuracies,
      mean: mean(accuracies),
      deviation: standardDeviation(accuracies),
      how: `stratified cross-validation with ${folds} folds, seed ${seed}${headKept === 0 ? "" : `; in ${headKept} of them the head alone was kept`}`,
    },
  };
}

async function byHeldBack(
  { examples, learner, seed, ...options }: JudgeOptions,
  share: number,
): Promise<Result> {
  const { targets } = examples;
  const digests = examples.data.examples.map(({ digest }) => digest);
  const { training, validation } = stratifiedSplit(targets, share, seed, digests);
  if (validation.length === 0) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Got ${share} as the share to hold back; expected more than 0.`,
      {
        got: share,
      },
    );
  }
  const learned = await learner.learn({
    training,
    ...(options.stopsEarly && { validation }),
    checkpointsOf: (stage) => options.checkpointsOf?.("all", stage),
    checkpointSteps: options.checkpointSteps,
    onStep: (step) => options.onStep?.(step, 0, 1),
  });
  const scores = await learner.scores(learned, validation);
  const quality = qualityOf(scores);
  const alsoStops = options.stopsEarly && learned.fitted ? ", which also said when to stop" : "";
  return {
    learned,
    training: training.length,
    judged: {
      ...{
        quality,
        places: validation,
        folds: [quality.accuracy],
        mean: quality.accuracy,
        deviation: undefined,
      },
      how: `${validation.length} examples held back${alsoStops}, seed ${seed}`,
    },
  };
}

function accuracyOf({ logits, classes }: Scores): number {
  const [rows = 0, columns = 0] = logits.shape;
  return accuracy(classes, bestClasses({ rows, columns, data: toNumbers(logits) }));
}

function requireTwoOfEach({ data, targets }: Examples): void {
  const counts = classCounts(targets, data.labels.length);
  const poor = data.labels.filter((_, at) => (counts[at] ?? 0) < 2);
  if (poor.length === 0) return;
  throw new PolyheadError(
    "DATA_MALFORMED",
    `${poor.map((label) => JSON.stringify(label)).join(", ")}: fewer than 2 usable images; expected 2 or more in every class, and 10 or more for figures worth reading. Add images or remove the class.`,
    { classes: poor },
  );
}
