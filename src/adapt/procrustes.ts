/**
 * Orthogonal Procrustes (Schönemann 1966) with one common scale: the rotation, or the partial isometry where the
 * widths differ, that turns one cloud of features into the other. It cannot stretch one direction more than
 * another, so that few examples go far (Maiorca et al. 2023). Features are centred but not scaled one by one,
 * because that would undo the rotation which is looked for.
 */
import { type Matrix as Dense, SingularValueDecomposition } from "ml-matrix";
import { standardisationOf } from "../teach/classifier.js";
import {
  addScaled,
  dot,
  type Matrix,
  matrixOf,
  multiplyTransposed,
  row,
  transpose,
  zeros,
} from "../teach/linear-algebra.js";
import { type AffineMap, centredMap } from "./affine.js";
import { dense, plain } from "./dense.js";

/** Singular values below this share of the largest are no direction of the data. */
const NOTHING = 1e-10;

/**
 * The best rotation and scale. Directions in which the examples say nothing are mapped to nothing.
 * @param source [n, source width], a row an example
 * @param target [n, target width]
 */
export function fitProcrustes(source: Matrix, target: Matrix): AffineMap {
  const [from, to] = [centred(source), centred(target)];
  const rotation = polarFactor(from.features, to.features);
  const turned = multiplyTransposed(from.features, rotation);
  const length = dot(turned.data, turned.data);
  const scale = length > 0 ? dot(turned.data, to.features.data) / length : 0;
  const weights = { ...rotation, data: rotation.data.map((value) => value * scale) };
  return centredMap(weights, from.mean, to.mean);
}

function centred(features: Matrix): { features: Matrix; mean: Float64Array } {
  const { mean } = standardisationOf(features);
  const data = features.data.map((value, at) => value - (mean[at % features.columns] ?? 0));
  return { features: { ...features, data }, mean };
}

/**
 * U Vᵀ of target' source = U S Vᵀ. With fewer examples than features both sides are first written in a basis of
 * the examples' own span, so that the decomposition is as small as the examples are many.
 */
function polarFactor(source: Matrix, target: Matrix): Matrix {
  const isWide = source.rows < Math.min(source.columns, target.columns);
  if (!isWide) return isometryOf(dense(multiplyTransposed(transpose(target), transpose(source))));
  const [from, to] = [basisOf(source), basisOf(target)];
  const [given, wanted] = [multiplyTransposed(source, from), multiplyTransposed(target, to)];
  const core = isometryOf(dense(multiplyTransposed(transpose(wanted), transpose(given))));
  const turned = multiplyTransposed(transpose(to), transpose(core));
  return multiplyTransposed(turned, transpose(from));
}

/**
 * Orthonormal rows that span the rows of a matrix (modified Gram-Schmidt, each row twice, which is enough for working
 * precision: Giraud et al. 2005). Along rows this is many times faster than the library's QR decomposition.
 */
function basisOf(features: Matrix): Matrix {
  const found: Float64Array[] = [];
  for (let at = 0; at < features.rows; at++) {
    const own = Float64Array.from(row(features, at));
    const length = Math.sqrt(dot(own, own));
    for (const _ of [1, 2]) for (const known of found) addScaled(own, -dot(own, known), known);
    const left = Math.sqrt(dot(own, own));
    if (left > NOTHING * length && left > 0) found.push(own.map((value) => value / left));
  }
  return { ...matrixOf(found), columns: features.columns };
}

function isometryOf(matrix: Dense): Matrix {
  if (matrix.rows === 0 || matrix.columns === 0) return zeros(matrix.rows, matrix.columns);
  const { leftSingularVectors, rightSingularVectors, diagonal } = new SingularValueDecomposition(matrix, {
    autoTranspose: true,
  });
  const least = NOTHING * Math.max(...diagonal);
  const kept = diagonal.flatMap((value, at) => (value > least ? [at] : []));
  if (kept.length === 0) return zeros(matrix.rows, matrix.columns);
  const [left, right] = [leftSingularVectors, rightSingularVectors].map((vectors) =>
    vectors.subMatrixColumn(kept),
  );
  return left && right ? plain(left.mmul(right.transpose())) : zeros(matrix.rows, matrix.columns);
}
