/**
 * Reduced-rank regression (Izenman 1975): the ridge map, passed through the few directions of the target that it
 * explains best. One decomposition gives the map of every rank, and what each would be off on other examples.
 */
import { EigenvalueDecomposition } from "ml-matrix";
import { standardised } from "../teach/classifier.js";
import {
  addScaled,
  dot,
  gramOfRows,
  type Matrix,
  multiplyTransposed,
  row,
  transpose,
  zeros,
} from "../teach/linear-algebra.js";
import { type AffineMap, unstandardised } from "./affine.js";
import { dense, plain } from "./dense.js";
import type { LeastSquares } from "./least-squares.js";

/** The maps of all ranks. */
export interface RankedMaps {
  /** The largest rank there is. */
  readonly most: number;
  /** The map of a rank, from 1 to {@link most}. */
  of(rank: number): AffineMap;
  /**
   * Squared error of each example under each rank: [n, most + 1], rank 0 first, in standardised features of the
   * target.
   */
  errors(source: Matrix, target: Matrix): Matrix;
}

/**
 * The maps of all ranks below a least-squares map.
 * @param source what that was fitted on: [n, source width], a row an example
 */
export function fitLowRank(source: Matrix, { standard }: LeastSquares): RankedMaps {
  const { weights, from, to } = standard;
  const directions = principalDirections(multiplyTransposed(standardised(source, from), weights));
  const most = directions.rows;
  /** One row a direction: what of the source goes there. */
  const readers = multiplyTransposed(directions, transpose(weights));
  return {
    most,
    of: (rank) => {
      const made = zeros(weights.rows, weights.columns);
      for (let at = 0; at < Math.min(rank, most); at++) {
        row(directions, at).forEach((share, feature) => {
          addScaled(row(made, feature), share, row(readers, at));
        });
      }
      return unstandardised(made, from, to);
    },
    errors: (otherSource, otherTarget) => {
      const truth = standardised(otherTarget, to);
      const given = multiplyTransposed(standardised(otherSource, from), readers);
      const wanted = multiplyTransposed(truth, directions);
      const made = zeros(truth.rows, most + 1);
      for (let example = 0; example < truth.rows; example++) {
        const own = row(made, example);
        own[0] = dot(row(truth, example), row(truth, example));
        for (let at = 0; at < most; at++) {
          const place = example * most + at;
          const [got, expected] = [given.data[place] ?? 0, wanted.data[place] ?? 0];
          own[at + 1] = (own[at] ?? 0) + got * (got - 2 * expected);
        }
      }
      return made;
    },
  };
}

/** Orthonormal directions of the rows, strongest first, one row each. */
function principalDirections(fitted: Matrix): Matrix {
  const isWide = fitted.rows < fitted.columns;
  const columns = transpose(fitted);
  const { realEigenvalues, eigenvectorMatrix } = new EigenvalueDecomposition(
    dense(gramOfRows(isWide ? fitted : columns)),
    { assumeSymmetric: true },
  );
  const order = realEigenvalues
    .map((value, at) => ({ value, at }))
    .sort((a, b) => b.value - a.value)
    .filter(({ value }, _, all) => value > NOTHING * (all[0]?.value ?? 0) && value > 0);
  if (order.length === 0) return zeros(0, fitted.columns);
  const vectors = plain(eigenvectorMatrix.subMatrixColumn(order.map(({ at }) => at)).transpose());
  if (!isWide) return vectors;
  // Eigenvectors u of F Fᵀ = u λ uᵀ give those of Fᵀ F as Fᵀ u / √λ.
  const made = multiplyTransposed(vectors, columns);
  order.forEach(({ value }, at) => {
    const own = row(made, at);
    own.forEach((number, column) => {
      own[column] = number / Math.sqrt(value);
    });
  });
  return made;
}

/** Eigenvalues below this share of the largest are no direction of the data. */
const NOTHING = 1e-14;
