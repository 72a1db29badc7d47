/**
 * Ridge least squares: the best affine map with a penalty on its size, chosen by leave-one-out. Both sides are
 * standardised first, so that no feature counts more because its numbers are larger.
 */
import { type Standardisation, standardisationOf, standardised } from "../teach/classifier.js";
import { type Matrix, transpose } from "../teach/linear-algebra.js";
import { ridgeOnto } from "../teach/ridge.js";
import { type AffineMap, unstandardised } from "./affine.js";

/** Penalties to choose from, relative to the mean eigenvalue of the source's scatter; strongest first. */
export const PENALTIES: readonly number[] = [1000, 100, 10, 1, 0.1, 1e-2, 1e-3, 1e-5, 1e-7, 1e-9];

/** A fitted map, and the same between standardised features. */
export interface LeastSquares extends AffineMap {
  /** The chosen penalty. */
  readonly strength: number;
  readonly standard: {
    readonly weights: Matrix;
    readonly from: Standardisation;
    readonly to: Standardisation;
  };
}

/**
 * @param source [n, source width], a row an example
 * @param target [n, target width]
 */
export function fitLeastSquares(source: Matrix, target: Matrix): LeastSquares {
  const [from, to] = [standardisationOf(source), standardisationOf(target)];
  const { weights, strength } = ridgeOnto(
    standardised(source, from),
    transpose(standardised(target, to)),
    PENALTIES,
  );
  return { ...unstandardised(weights, from, to), strength, standard: { weights, from, to } };
}
