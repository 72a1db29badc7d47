/**
 * Nearest class mean on features of unit length: the score of a class is how near its mean is, half the squared
 * distance with the sign turned and what all classes share left out, which is linear in the features.
 */
import { addScaled, dot, type Matrix, multiplyTransposed, row, zeros } from "./linear-algebra.js";
import type { LinearScores } from "./ridge.js";

/** Added to a length before anything is divided by it, so that an all-zero row stays zero. */
export const LENGTH_FLOOR = 1e-12;

/** Class means as a linear map, and the scores that examples get from all others. */
export interface NearestMean extends LinearScores {
  /** Scores of each example where its own class's mean leaves it out; one row an example, one column a class. */
  readonly leftOut: Matrix;
}

/** Every row divided by its length. */
export function unitRows(matrix: Matrix): Matrix {
  const made = zeros(matrix.rows, matrix.columns);
  for (let at = 0; at < matrix.rows; at++) {
    const values = row(matrix, at);
    addScaled(row(made, at), 1 / (Math.sqrt(dot(values, values)) + LENGTH_FLOOR), values);
  }
  return made;
}

/**
 * The class means of examples.
 * @param units one row an example, each of length 1
 * @param classes class of each example; an example that is alone in its class keeps its score when left out
 */
export function fitNearestMean(units: Matrix, classes: readonly number[], count: number): NearestMean {
  const sizes = new Float64Array(count);
  const weights = zeros(count, units.columns);
  classes.forEach((each, example) => {
    sizes[each] = (sizes[each] ?? 0) + 1;
    addScaled(row(weights, each), 1, row(units, example));
  });
  for (let each = 0; each < count; each++) {
    const mean = row(weights, each);
    mean.set(mean.map((value) => value / Math.max(sizes[each] ?? 0, 1)));
  }
  const squares = Float64Array.from({ length: count }, (_, each) => {
    const mean = row(weights, each);
    return dot(mean, mean);
  });
  const bias = squares.map((square) => -square / 2);
  const leftOut = multiplyTransposed(units, weights);
  classes.forEach((own, example) => {
    const scores = row(leftOut, example);
    const [size, square, nearness] = [sizes[own] ?? 0, squares[own] ?? 0, scores[own] ?? 0];
    const values = row(units, example);
    const length = dot(values, values);
    scores.set(scores.map((score, each) => score + (bias[each] ?? 0)));
    if (size < 2) return;
    // The mean of the others is m' = (size m - x) / (size - 1).
    const inner = (size * nearness - length) / (size - 1);
    const norm = (size ** 2 * square - 2 * size * nearness + length) / (size - 1) ** 2;
    scores[own] = inner - norm / 2;
  });
  return { weights, bias, leftOut };
}
