/**
 * The cheapest rung: every feature is scaled and shifted by itself. It fits a backbone that was trained on a little
 * further, and nothing else; both sides need the same width (the diagonal map of Drift-Adapter, 2025).
 */
import { standardisationOf } from "../teach/classifier.js";
import { type Matrix, zeros } from "../teach/linear-algebra.js";
import { type AffineMap, centredMap } from "./affine.js";

/**
 * Least squares for every feature alone.
 * @param source [n, width], a row an example
 * @param target [n, width]
 */
export function fitScaling(source: Matrix, target: Matrix): AffineMap {
  const width = target.columns;
  const [from, to] = [standardisationOf(source), standardisationOf(target)];
  const covariance = new Float64Array(width);
  for (let at = 0; at < source.data.length; at++) {
    const feature = at % width;
    const [x, y] = [
      (source.data[at] ?? 0) - (from.mean[feature] ?? 0),
      (target.data[at] ?? 0) - (to.mean[feature] ?? 0),
    ];
    covariance[feature] = (covariance[feature] ?? 0) + (x * y) / source.rows;
  }
  const weights = zeros(width, width);
  covariance.forEach((value, feature) => {
    weights.data[feature * width + feature] = value / (from.deviation[feature] ?? 1) ** 2;
  });
  return centredMap(weights, from.mean, to.mean);
}
