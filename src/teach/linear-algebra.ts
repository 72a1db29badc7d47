/**
 * The little dense linear algebra that closed-form heads need, in double precision: Gram matrices, Cholesky
 * factors and triangular solves. Matrices are row-major, and every inner loop runs along rows, so that a few
 * thousand rows and columns take seconds. Nothing here is sparse, complex or larger than memory.
 */
import { PolyheadError } from "../base/errors.js";

/** A dense row-major matrix. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  /** rows * columns numbers. */
  readonly data: Float64Array;
}

/** A matrix of zeros. */
export function zeros(rows: number, columns: number): Matrix {
  return { rows, columns, data: new Float64Array(rows * columns) };
}

/** A matrix from rows of equal length. */
export function matrixOf(rows: readonly ArrayLike<number>[]): Matrix {
  const made = zeros(rows.length, rows[0]?.length ?? 0);
  rows.forEach((values, at) => {
    made.data.set(values, at * made.columns);
  });
  return made;
}

/** Row `at`, sharing the matrix's memory. */
export function row({ data, columns }: Matrix, at: number): Float64Array {
  return data.subarray(at * columns, (at + 1) * columns);
}

/** The rows with the given numbers, copied, in that order. */
export function selectRows(matrix: Matrix, numbers: ArrayLike<number>): Matrix {
  const made = zeros(numbers.length, matrix.columns);
  for (let at = 0; at < numbers.length; at++)
    made.data.set(row(matrix, numbers[at] ?? 0), at * matrix.columns);
  return made;
}

/** Rows become columns. */
export function transpose({ rows, columns, data }: Matrix): Matrix {
  const made = zeros(columns, rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) made.data[j * rows + i] = data[i * columns + j] ?? 0;
  }
  return made;
}

/** Inner product of `count` numbers of `a` from `aStart` on and of `b` from `bStart` on. */
export function dot(a: Float64Array, b: Float64Array, count = a.length, aStart = 0, bStart = 0): number {
  // Four sums, so that additions need not wait for each other; declared singly, which is three times as fast.
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  let i = aStart;
  let j = bStart;
  for (const end = aStart + count - (count % 4); i < end; i += 4, j += 4) {
    s0 += (a[i] ?? 0) * (b[j] ?? 0);
    s1 += (a[i + 1] ?? 0) * (b[j + 1] ?? 0);
    s2 += (a[i + 2] ?? 0) * (b[j + 2] ?? 0);
    s3 += (a[i + 3] ?? 0) * (b[j + 3] ?? 0);
  }
  for (; i < aStart + count; i++, j++) s0 += (a[i] ?? 0) * (b[j] ?? 0);
  return s0 + s1 + (s2 + s3);
}

/** Adds `factor * x` to `y`, in place. */
export function addScaled(y: Float64Array, factor: number, x: Float64Array, count = x.length): void {
  for (let at = 0; at < count; at++) y[at] = (y[at] ?? 0) + factor * (x[at] ?? 0);
}

/** `a` times the transpose of `b`: inner products of all rows of `a` with all rows of `b`. */
export function multiplyTransposed(a: Matrix, b: Matrix): Matrix {
  const made = zeros(a.rows, b.rows);
  const right = Array.from({ length: b.rows }, (_, at) => row(b, at));
  for (let i = 0; i < a.rows; i++) {
    const left = row(a, i);
    right.forEach((values, j) => {
      made.data[i * b.rows + j] = dot(left, values);
    });
  }
  return made;
}

/** Inner products of all pairs of rows: `matrix` times its own transpose. */
export function gramOfRows(matrix: Matrix): Matrix {
  const count = matrix.rows;
  const made = zeros(count, count);
  const rows = Array.from({ length: count }, (_, at) => row(matrix, at));
  rows.forEach((left, i) => {
    for (let j = 0; j <= i; j++) {
      const right = rows[j];
      const value = right ? dot(left, right) : 0;
      made.data[i * count + j] = value;
      made.data[j * count + i] = value;
    }
  });
  return made;
}

/**
 * The lower triangular L with L Lᵀ = `matrix` + `shift` I; the rest of L is zero.
 * @param matrix symmetric; only its lower triangle is read
 * @throws PolyheadError INVALID_ARGUMENT when that is not positive definite
 */
export function cholesky(matrix: Matrix, shift = 0): Matrix {
  const count = matrix.rows;
  const factor = zeros(count, count);
  const rows = Array.from({ length: count }, (_, at) => row(factor, at));
  rows.forEach((own, i) => {
    for (let j = 0; j < i; j++) {
      const other = rows[j];
      if (!other) break;
      own[j] = ((matrix.data[i * count + j] ?? 0) - dot(own, other, j)) / (other[j] ?? 1);
    }
    const square = (matrix.data[i * count + i] ?? 0) + shift - dot(own, own, i);
    if (!(square > 0)) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `A matrix of ${count} rows is not positive definite: row ${i} leaves ${square}; expected more than 0. Features that are not finite or a strength of 0 do that.`,
        { row: i, got: square },
      );
    }
    own[i] = Math.sqrt(square);
  });
  return factor;
}

/**
 * Solves L x = b in place.
 * @param start b is zero before this place
 */
export function forwardSolve(factor: Matrix, b: Float64Array, start = 0): void {
  const { rows, data } = factor;
  for (let i = start; i < rows; i++) {
    const known = dot(data, b, i - start, i * rows + start, start);
    b[i] = ((b[i] ?? 0) - known) / (data[i * rows + i] ?? 1);
  }
}

/** Solves Lᵀ x = b in place. */
export function backSolve(factor: Matrix, b: Float64Array): void {
  for (let i = factor.rows - 1; i >= 0; i--) {
    const left = row(factor, i);
    const value = (b[i] ?? 0) / (left[i] ?? 1);
    b[i] = value;
    addScaled(b, -value, left, i);
  }
}

/** The x with L Lᵀ x = b. */
export function solveWith(factor: Matrix, b: Float64Array): Float64Array {
  const x = Float64Array.from(b);
  forwardSolve(factor, x);
  backSolve(factor, x);
  return x;
}
