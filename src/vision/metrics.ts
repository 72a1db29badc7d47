/** How good a classifier is, from what it should have said and what it said. Classes are numbers from 0. */
import { PolyheadError } from "../base/errors.js";

/** How good a classifier is at one class; what has no denominator is 0, as in scikit-learn. */
export interface ClassQuality {
  /** Share of what was called this class that is of it. */
  readonly precision: number;
  /** Share of what is of this class that was called so. */
  readonly recall: number;
  /** Harmonic mean of precision and recall. */
  readonly f1: number;
  /** Number of examples of this class. */
  readonly support: number;
}

/**
 * Share of equal pairs; 0 for none at all.
 * @throws PolyheadError INVALID_ARGUMENT when the lists differ in length
 */
export function accuracy(expected: ArrayLike<number>, predicted: ArrayLike<number>): number {
  requireSameLength(expected, predicted);
  let right = 0;
  for (let index = 0; index < expected.length; index++) if (expected[index] === predicted[index]) right++;
  return ratio(right, expected.length);
}

/**
 * Counts by class: row = what it is, column = what it was called; shape [classes][classes].
 * @throws PolyheadError INVALID_ARGUMENT when the lists differ in length or a class is not below `classes`
 */
export function confusionMatrix(
  expected: ArrayLike<number>,
  predicted: ArrayLike<number>,
  classes: number,
): number[][] {
  requireSameLength(expected, predicted);
  const matrix = Array.from({ length: classes }, () => Array<number>(classes).fill(0));
  for (let index = 0; index < expected.length; index++) {
    const [row, column] = [expected[index] ?? -1, predicted[index] ?? -1];
    const counts = matrix[row];
    const count = counts?.[column];
    if (!counts || count === undefined) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `Classes are 0 to ${classes - 1}; got ${row} called ${column}.`,
        {
          classes,
          expected: row,
          predicted: column,
        },
      );
    }
    counts[column] = count + 1;
  }
  return matrix;
}

/** Quality of each class from a confusion matrix. */
export function classQualities(matrix: readonly (readonly number[])[]): ClassQuality[] {
  return matrix.map((row, index) => {
    const right = row[index] ?? 0;
    const support = sum(row);
    const called = sum(matrix.map((other) => other[index] ?? 0));
    return {
      precision: ratio(right, called),
      recall: ratio(right, support),
      f1: ratio(2 * right, support + called),
      support,
    };
  });
}

/** A range that a true value lies in with the confidence that was asked for. */
export interface Interval {
  readonly low: number;
  readonly high: number;
}

/**
 * Where the true share lies when `right` of `total` independent examples were right: Wilson's score interval (1927),
 * which keeps its confidence for few examples and for shares near 0 and 1 (Brown, Cai and DasGupta 2001).
 * @param deviations of the normal distribution; 1.96 for 95 %
 */
export function wilsonInterval(right: number, total: number, deviations = 1.959963984540054): Interval {
  if (total === 0) return { low: 0, high: 1 };
  const share = right / total;
  const square = deviations ** 2 / total;
  const centre = (share + square / 2) / (1 + square);
  const half = Math.sqrt(share * (1 - share) * square + square ** 2 / 4) / (1 + square);
  return { low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}

/**
 * Expected calibration error: how far, on average, the probability of an answer is from the share of such answers that
 * are right, over bins of equal width (Naeini et al. 2015).
 * @param confidences probability of each answer
 * @param isRight whether it was right
 */
export function calibrationError(
  confidences: readonly number[],
  isRight: readonly boolean[],
  bins = 10,
): number {
  const gaps = new Float64Array(bins);
  confidences.forEach((confidence, at) => {
    const bin = Math.min(bins - 1, Math.floor(confidence * bins));
    gaps[bin] = (gaps[bin] ?? 0) + confidence - (isRight[at] ? 1 : 0);
  });
  return gaps.reduce((total, gap) => total + Math.abs(gap), 0) / Math.max(1, confidences.length);
}

/** Arithmetic mean; 0 for no values. */
export function mean(values: readonly number[]): number {
  return ratio(sum(values), values.length);
}

/** Standard deviation of a sample (divided by n - 1); 0 for fewer than two values. */
export function standardDeviation(values: readonly number[]): number {
  const centre = mean(values);
  const squares = sum(values.map((value) => (value - centre) ** 2));
  return Math.sqrt(ratio(squares, Math.max(0, values.length - 1)));
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function ratio(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole;
}

function requireSameLength(expected: ArrayLike<number>, predicted: ArrayLike<number>): void {
  if (expected.length !== predicted.length) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Got ${predicted.length} predictions for ${expected.length} examples; expected one for each.`,
      { expected: expected.length, got: predicted.length },
    );
  }
}
