/**
 * How much of a head survives: what it says of adapted features against what it says of the features that it was
 * trained on, and against the truth where that is known. Classifiers are compared by their best class, everything
 * else by the variance of the outputs that is kept.
 */
import { PolyheadError } from "../base/errors.js";
import type { Metadata } from "../onnx/metadata.js";
import { bestClasses } from "../teach/classifier.js";
import type { Matrix } from "../teach/linear-algebra.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";
import { accuracy, wilsonInterval } from "../vision/metrics.js";
import { explainedVariance } from "./ladder.js";

/** A share of examples, with the interval that it lies in (Wilson 1927, 95 %). */
export interface Share {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** What a head says of some examples. */
export interface HeadAnswers {
  /** Best class of each example; undefined for heads that do not classify. */
  readonly classes: readonly number[] | undefined;
  /** The first output: [n, numbers of one example]. */
  readonly numbers: Matrix;
}

/** How an adapted head compares with the head on its own backbone. */
export interface Agreement {
  /** Share of equal classes; of other heads the explained variance of the outputs, without an interval. */
  readonly agreement: number;
  readonly interval?: Share;
  /** Where the truth is known. */
  readonly accuracy?: Share;
  readonly nativeAccuracy?: Share;
  /** What is kept of the head's quality: accuracy over native accuracy where both are known, else the agreement. */
  readonly kept: number;
}

/**
 * A head's answers from its outputs.
 * @param metadata of the head: `labels` and `task` say whether it classifies
 */
export function answersOf(outputs: ReadonlyMap<string, Tensor>, metadata: Metadata): HeadAnswers {
  const [first] = outputs.values();
  if (!first) throw new PolyheadError("MODEL_UNSUPPORTED", "The head has no output.", {});
  const rows = first.shape[0] ?? 1;
  const data = toNumbers(first);
  const numbers = { rows, columns: data.length / Math.max(1, rows), data };
  const isClassifier =
    metadata.task === "classification" ||
    (metadata.labels !== undefined && metadata.labels.length === numbers.columns);
  return { numbers, classes: isClassifier ? bestClasses(numbers) : undefined };
}

/**
 * Compares answers.
 * @param truth class of each example, from 0, in the head's own order
 */
export function agreementOf(native: HeadAnswers, adapted: HeadAnswers, truth?: readonly number[]): Agreement {
  if (!native.classes || !adapted.classes) {
    const agreement = explainedVariance(adapted.numbers, native.numbers);
    return { agreement, kept: agreement };
  }
  const share = accuracy(native.classes, adapted.classes);
  const examples = native.classes.length;
  const interval = shareOf(share, examples);
  if (!truth) return { agreement: share, interval, kept: share };
  const [own, other] = [native.classes, adapted.classes].map((classes) => accuracy(truth, classes));
  const [nativeShare = 0, adaptedShare = 0] = [own, other];
  return {
    agreement: share,
    interval,
    accuracy: shareOf(adaptedShare, examples),
    nativeAccuracy: shareOf(nativeShare, examples),
    kept: nativeShare > 0 ? adaptedShare / nativeShare : 0,
  };
}

/** A share of `count` examples with its interval. */
export function shareOf(value: number, count: number): Share {
  return { value, ...wilsonInterval(value * count, count) };
}
