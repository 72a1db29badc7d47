/**
 * Probabilities from scores: one factor (an inverse temperature) by which scores are multiplied before softmax,
 * fitted on scores of examples that the scorer had not seen, and measures of how well probabilities hold.
 */
import { softmax } from "../vision/classification.js";
import { calibrationError } from "../vision/metrics.js";
import { type Matrix, row } from "./linear-algebra.js";

const LEAST_LOGARITHM = Math.log(1e-3);
const MOST_LOGARITHM = Math.log(1e5);
const GOLDEN = (Math.sqrt(5) - 1) / 2;

/**
 * The factor for which softmax(factor * scores) has the least cross-entropy. The cross-entropy is convex in the
 * factor, so a golden-section search over its logarithm finds it. Targets are smoothed by one example shared
 * among all classes (as Platt did for two), so that scores without an error do not ask for certainty.
 * @returns 1 for no examples
 */
export function fitScale(scores: Matrix, classes: readonly number[]): number {
  if (classes.length === 0) return 1;
  const smoothing = 1 / (classes.length + 1);
  const loss = (logarithm: number) => crossEntropy(scores, classes, Math.exp(logarithm), smoothing);
  let [low, high] = [LEAST_LOGARITHM, MOST_LOGARITHM];
  let left = { at: high - GOLDEN * (high - low), loss: 0 };
  let right = { at: low + GOLDEN * (high - low), loss: 0 };
  left.loss = loss(left.at);
  right.loss = loss(right.at);
  while (high - low > 1e-4) {
    if (left.loss <= right.loss) {
      high = right.at;
      right = left;
      const at = high - GOLDEN * (high - low);
      left = { at, loss: loss(at) };
    } else {
      low = left.at;
      left = right;
      const at = low + GOLDEN * (high - low);
      right = { at, loss: loss(at) };
    }
  }
  return Math.exp((low + high) / 2);
}

/**
 * Mean cross-entropy in nats of softmax(factor * scores).
 * @param smoothing share of every target that is spread over all classes
 */
export function crossEntropy(scores: Matrix, classes: readonly number[], factor = 1, smoothing = 0): number {
  let sum = 0;
  classes.forEach((own, example) => {
    const values = row(scores, example);
    const largest = values.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
    let powers = 0;
    let mean = 0;
    for (const value of values) {
      powers += Math.exp(factor * (value - largest));
      mean += value / values.length;
    }
    const target = (1 - smoothing) * (values[own] ?? 0) + smoothing * mean;
    sum += Math.log(powers) + factor * (largest - target);
  });
  return classes.length === 0 ? 0 : sum / classes.length;
}

/** Expected calibration error of softmax(logits), over ten bins. */
export function calibrationErrorOf(logits: Matrix, classes: readonly number[]): number {
  const answers = classes.map((own, example) => {
    const probabilities = softmax(row(logits, example));
    const best = bestOf(probabilities);
    return { confidence: probabilities[best] ?? 0, isRight: best === own };
  });
  return calibrationError(
    answers.map(({ confidence }) => confidence),
    answers.map(({ isRight }) => isRight),
  );
}

/** Place of the largest number; the first of equals. */
export function bestOf(values: ArrayLike<number>): number {
  let best = 0;
  for (let at = 1; at < values.length; at++) if ((values[at] ?? 0) > (values[best] ?? 0)) best = at;
  return best;
}
