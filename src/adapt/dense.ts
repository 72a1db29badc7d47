/** This project's matrices and those of the library that decomposes them. */
import { Matrix as Dense } from "ml-matrix";
import type { Matrix } from "../teach/linear-algebra.js";

/** As the library has matrices. */
export function dense({ rows, columns, data }: Matrix): Dense {
  return Dense.from1DArray(rows, columns, data);
}

/** As this project has them. */
export function plain(matrix: Dense): Matrix {
  return { rows: matrix.rows, columns: matrix.columns, data: Float64Array.from(matrix.to1DArray()) };
}
