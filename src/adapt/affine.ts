/**
 * An affine map between feature vectors, y = W x + b: what every closed-form rung of the ladder fits, and what a
 * 1x1 convolution applies at every place of a map. Features are rows; double precision.
 */
import { dot, type Matrix, multiplyTransposed, row, zeros } from "../teach/linear-algebra.js";

/** y = W x + b. */
export interface AffineMap {
  /** W: one row a feature of the target, one column a feature of the source. */
  readonly weights: Matrix;
  /** b: one number a feature of the target. */
  readonly bias: Float64Array;
}

/** The map of each row of `features` [n, source], as [n, target]. */
export function applyAffine({ weights, bias }: AffineMap, features: Matrix): Matrix {
  const made = multiplyTransposed(features, weights);
  for (let at = 0; at < made.rows; at++) {
    const own = row(made, at);
    bias.forEach((value, target) => {
      own[target] = (own[target] ?? 0) + value;
    });
  }
  return made;
}

/** The map that takes the source's centre to the target's and everything else by `weights`. */
export function centredMap(weights: Matrix, source: Float64Array, target: Float64Array): AffineMap {
  const bias = target.map((value, at) => value - dot(row(weights, at), source));
  return { weights, bias };
}

/** The map between plain features, of one between features that were standardised by these means and deviations. */
export function unstandardised(
  weights: Matrix,
  source: { readonly mean: Float64Array; readonly deviation: Float64Array },
  target: { readonly mean: Float64Array; readonly deviation: Float64Array },
): AffineMap {
  const made = zeros(weights.rows, weights.columns);
  for (let at = 0; at < weights.rows; at++) {
    const scale = target.deviation[at] ?? 1;
    row(made, at).set(
      row(weights, at).map((value, column) => (scale * value) / (source.deviation[column] ?? 1)),
    );
  }
  return centredMap(made, source.mean, target.mean);
}
