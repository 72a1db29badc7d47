/**
 * A map between feature vectors as an adapter applies it: an affine map and, where it was trained, a hidden layer beside
 * it and a rectifier behind it. Features are rows; double precision.
 */
import { addScaled, type Matrix, multiplyTransposed, row } from "../teach/linear-algebra.js";
import { type AffineMap, applyAffine } from "./affine.js";

/** y = W x + b, and with a hidden layer y = W x + b + V max(0, U x + c). */
export interface FeatureMap extends AffineMap {
  readonly hidden?: HiddenLayer | undefined;
  /** Whether numbers below 0 become 0 in the end. */
  readonly isRectified?: boolean | undefined;
}

/** V max(0, U x + c). */
export interface HiddenLayer {
  /** U and c. */
  readonly inward: AffineMap;
  /** V: one row a feature of the target, one column a unit of the layer. */
  readonly outward: Matrix;
}

/** Whether it is an affine map and no more. */
export function isAffine({ hidden, isRectified }: FeatureMap): boolean {
  return hidden === undefined && isRectified !== true;
}

/** The map of each row of `features` [n, source], as [n, target]. */
export function applyMap(map: FeatureMap, features: Matrix): Matrix {
  const made = applyAffine(map, features);
  if (map.hidden) {
    const { inward, outward } = map.hidden;
    const added = multiplyTransposed(rectified(applyAffine(inward, features)), outward);
    for (let at = 0; at < made.rows; at++) addScaled(row(made, at), 1, row(added, at));
  }
  return map.isRectified ? rectified(made) : made;
}

function rectified(features: Matrix): Matrix {
  return { ...features, data: features.data.map((value) => Math.max(0, value)) };
}
