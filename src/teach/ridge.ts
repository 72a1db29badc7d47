/**
 * Ridge regression, in closed form, onto any targets or onto class indicators. The strength is chosen from a grid by leave-one-out,
 * whose residuals follow from one factorisation a strength: with H the matrix that maps targets to fitted values,
 * the residual of an example that was left out is (y - Hy) / (1 - Hii) (Allen's PRESS). With more features than
 * examples the system is solved in its dual form, which is as large as the examples are many.
 */
import {
  addScaled,
  cholesky,
  dot,
  forwardSolve,
  gramOfRows,
  type Matrix,
  row,
  solveWith,
  transpose,
  zeros,
} from "./linear-algebra.js";

/** Strengths to choose from, relative to the mean eigenvalue of the examples' scatter; strongest first. */
export const STRENGTHS: readonly number[] = [1000, 100, 10, 1, 0.1, 0.01, 0.001];

/** A linear map from features to one score a class. */
export interface LinearScores {
  /** One row a class. */
  readonly weights: Matrix;
  /** One number a class. */
  readonly bias: Float64Array;
}

/** What ridge regression found. */
export interface Ridge extends LinearScores {
  /** The chosen strength, relative as in {@link STRENGTHS}. */
  readonly strength: number;
  /** Scores of each example from all others; one row an example, one column a class. */
  readonly leftOut: Matrix;
}

/**
 * The ridge regression with the least squared leave-one-out error.
 * @param features one row an example, every column of mean 0
 * @param classes class of each example
 * @param count number of classes
 */
export function fitRidge(
  features: Matrix,
  classes: readonly number[],
  count: number,
  strengths: readonly number[] = STRENGTHS,
): Ridge {
  const examples = features.rows;
  const shares = new Float64Array(count);
  for (const each of classes) shares[each] = (shares[each] ?? 0) + 1 / examples;
  const targets = zeros(count, examples);
  shares.forEach((share, each) => {
    row(targets, each).fill(-share);
  });
  classes.forEach((each, example) => {
    row(targets, each)[example] = 1 - (shares[each] ?? 0);
  });
  const { strength, residuals, weights } = ridgeOnto(features, targets, strengths);
  const leftOut = zeros(examples, count);
  for (let example = 0; example < examples; example++) {
    for (let each = 0; each < count; each++) {
      const indicator = classes[example] === each ? 1 : 0;
      leftOut.data[example * count + each] = indicator - (residuals.data[each * examples + example] ?? 0);
    }
  }
  return { strength, weights, bias: shares, leftOut };
}

/** A linear map onto targets. */
export interface RidgeMap {
  /** The chosen strength, relative as in {@link STRENGTHS}. */
  readonly strength: number;
  /** One row a target. */
  readonly weights: Matrix;
  /** What each target of each example is off when the example is left out, shaped like the targets. */
  readonly residuals: Matrix;
}

/**
 * The ridge regression onto targets with the least squared leave-one-out error over all of them.
 * @param features one row an example, every column of mean 0
 * @param targets one row a target, one column an example, every row of mean 0
 */
export function ridgeOnto(
  features: Matrix,
  targets: Matrix,
  strengths: readonly number[] = STRENGTHS,
): RidgeMap {
  const system = features.rows <= features.columns ? dualSystem(features) : primalSystem(features);
  let best: { error: number; strength: number; residuals: Matrix; weights: () => Matrix } | undefined;
  for (const strength of strengths) {
    const { residuals, weights } = system(strength, targets);
    const error = dot(residuals.data, residuals.data);
    if (!best || error < best.error) best = { error, strength, residuals, weights };
  }
  const nothing = () => zeros(targets.rows, features.columns);
  const { strength = 0, residuals = targets, weights = nothing } = best ?? {};
  return { strength, residuals, weights: weights() };
}

/** Solves for one strength: leave-one-out residuals like the targets, and the weights when they are wanted. */
type System = (strength: number, targets: Matrix) => { residuals: Matrix; weights: () => Matrix };

/** For more features than examples: dual coefficients a = (K + sI)⁻¹ y, fitted values K a, weights Zᵀ a. */
function dualSystem(features: Matrix): System {
  const examples = features.rows;
  const kernel = gramOfRows(features);
  const scale = meanEigenvalue(kernel, examples);
  return (strength, targets) => {
    const shift = strength * scale;
    const factor = cholesky(kernel, shift);
    const coefficients = zeros(targets.rows, examples);
    for (let each = 0; each < targets.rows; each++)
      row(coefficients, each).set(solveWith(factor, row(targets, each)));
    const residuals = zeros(targets.rows, examples);
    const unit = new Float64Array(examples);
    for (let example = 0; example < examples; example++) {
      unit.fill(0);
      unit[example] = 1;
      forwardSolve(factor, unit, example);
      const kept = shift * dot(unit, unit) - 1 / examples;
      for (let each = 0; each < targets.rows; each++) {
        const at = each * examples + example;
        residuals.data[at] = (shift * (coefficients.data[at] ?? 0)) / Math.max(kept, Number.EPSILON);
      }
    }
    const weights = () => {
      const made = zeros(targets.rows, features.columns);
      for (let each = 0; each < targets.rows; each++) {
        row(coefficients, each).forEach((coefficient, example) => {
          addScaled(row(made, each), coefficient, row(features, example));
        });
      }
      return made;
    };
    return { residuals, weights };
  };
}

/** For fewer features than examples: weights w = (ZᵀZ + sI)⁻¹ Zᵀ y, fitted values Z w. */
function primalSystem(features: Matrix): System {
  const examples = features.rows;
  const scatter = gramOfRows(transpose(features));
  const scale = meanEigenvalue(scatter, features.columns);
  return (strength, targets) => {
    const factor = cholesky(scatter, strength * scale);
    const weights = zeros(targets.rows, features.columns);
    for (let each = 0; each < targets.rows; each++) {
      const moment = new Float64Array(features.columns);
      row(targets, each).forEach((target, example) => {
        addScaled(moment, target, row(features, example));
      });
      row(weights, each).set(solveWith(factor, moment));
    }
    const residuals = zeros(targets.rows, examples);
    for (let example = 0; example < examples; example++) {
      const own = row(features, example);
      const half = Float64Array.from(own);
      forwardSolve(factor, half);
      const kept = 1 - 1 / examples - dot(half, half);
      for (let each = 0; each < targets.rows; each++) {
        const at = each * examples + example;
        const residual = (targets.data[at] ?? 0) - dot(row(weights, each), own);
        residuals.data[at] = residual / Math.max(kept, Number.EPSILON);
      }
    }
    return { residuals, weights: () => weights };
  };
}

/** Trace over rank, or 1 where all features are constant. */
function meanEigenvalue({ data, columns }: Matrix, rank: number): number {
  let trace = 0;
  for (let at = 0; at < columns; at++) trace += data[at * columns + at] ?? 0;
  return trace > 0 ? trace / rank : 1;
}
