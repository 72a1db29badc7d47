/**
 * Orthogonal Procrustes (Schönemann 1966) with one common scale: the rotation, or the partial isometry where the
 * widths differ, that turns one cloud of features into the other. It cannot stretch one direction more than
 * another, so that few examples go far (Maiorca et al. 2023). Features are centred but not scaled one by one,
 * because that would undo the rotation which is looked for.
 */
import { type Matrix as Dense, QrDecomposition, SingularValueDecomposition } from "ml-matrix";
import { standardisationOf } from "../teach/classifier.js";
import { dot, type Matrix, multiplyTransposed, transpose, zeros } from "../teach/linear-algebra.js";
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
 * the examples' own span (QR), so that the decomposition is as small as the examples are many.
 */
function polarFactor(source: Matrix, target: Matrix): Matrix {
  const isWide = source.rows < Math.min(source.columns, target.columns);
  if (!isWide) return isometryOf(dense(multiplyTransposed(transpose(target), transpose(source))));
  const [from, to] = [source, target].map((each) => new QrDecomposition(dense(transpose(each))));
  if (!from || !to) return zeros(target.columns, source.columns);
  const core = to.upperTriangularMatrix.mmul(from.upperTriangularMatrix.transpose());
  const turned = dense(isometryOf(core));
  return plain(to.orthogonalMatrix.mmul(turned).mmul(from.orthogonalMatrix.transpose()));
}

function isometryOf(matrix: Dense): Matrix {
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
