/** Rows of tensors: taking one out of a batch and stacking several into one. */
import { PolyheadError } from "../base/errors.js";
import { DTYPES } from "./dtype.js";
import { formatShape, sameShape } from "./shape.js";
import type { NumericArray, Tensor } from "./tensor.js";

/**
 * Row `at` of the first dimension, as a batch of one that shares the tensor's memory.
 * @throws PolyheadError INPUT_MISMATCH for scalars and for elements narrower than a byte
 */
export function rowOf(batch: Tensor, at: number): Tensor {
  return sliceRows(batch, at, at + 1);
}

/**
 * Rows from `start` to before `end`, sharing the tensor's memory.
 * @throws PolyheadError INPUT_MISMATCH for scalars and for elements narrower than a byte
 */
export function sliceRows(batch: Tensor, start: number, end: number): Tensor {
  const [rows = 0, ...rest] = batch.shape;
  if (rows === 0 || DTYPES[batch.dtype].bits % 8 !== 0) {
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `A ${batch.dtype} tensor of shape ${formatShape(batch.shape)} has no rows to take.`,
      { shape: batch.shape },
    );
  }
  const width = batch.data.length / rows;
  const range = [start * width, end * width] as const;
  const data = ArrayBuffer.isView(batch.data) ? batch.data.subarray(...range) : batch.data.slice(...range);
  return { dtype: batch.dtype, shape: [end - start, ...rest], data };
}

/**
 * The rows of those numbers, in that order; shares the tensor's memory where they are one piece.
 * @throws PolyheadError INPUT_MISMATCH for scalars and for elements narrower than a byte
 */
export function takeRows(batch: Tensor, rows: readonly number[]): Tensor {
  const [first = 0] = rows;
  const isOnePiece = rows.every((row, at) => row === first + at);
  if (isOnePiece) return sliceRows(batch, first, first + rows.length);
  return stackRows(rows.map((row) => rowOf(batch, row)));
}

/**
 * Tensors joined along the first dimension.
 * @param memory of at least so many bytes to write them to, if there is any
 * @throws PolyheadError INPUT_MISMATCH when dtypes or the other dimensions differ
 */
export function stackRows(
  parts: readonly Tensor[],
  memory: (bytes: number) => ArrayBuffer | undefined = () => undefined,
): Tensor {
  const [first] = parts;
  if (!first) throw new PolyheadError("INPUT_MISMATCH", "No rows to stack; expected at least one.", {});
  if (parts.length === 1) return first;
  const rest = first.shape.slice(1);
  for (const { dtype, shape } of parts) {
    if (dtype !== first.dtype || shape.length === 0 || !sameShape(shape.slice(1), rest)) {
      throw new PolyheadError(
        "INPUT_MISMATCH",
        `Rows of shapes ${formatShape(first.shape)} and ${formatShape(shape)} cannot be stacked.`,
        { shapes: [first.shape, shape] },
      );
    }
  }
  const shape = [parts.reduce((sum, part) => sum + (part.shape[0] ?? 0), 0), ...rest];
  if (!ArrayBuffer.isView(first.data))
    return { dtype: first.dtype, shape, data: parts.flatMap(({ data }) => [...(data as readonly string[])]) };
  const Kind = DTYPES[first.dtype].array;
  const length = parts.reduce((sum, part) => sum + part.data.length, 0);
  const room = memory(length * Kind.BYTES_PER_ELEMENT);
  const data = (room ? new Kind(room, 0, length) : new Kind(length)) as NumericArray;
  let at = 0;
  for (const part of parts) {
    data.set(part.data as never, at);
    at += part.data.length;
  }
  return { dtype: first.dtype, shape, data };
}
