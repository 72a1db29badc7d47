/** Arithmetic on constant tensors that is done at import: permuting axes and changing dtypes. */
import { PolyheadError } from "../../base/errors.js";
import { DTYPES, type DType } from "../../tensor/dtype.js";
import { elementCount, type Shape } from "../../tensor/shape.js";
import { type NumericArray, type Tensor, tensor, toNumbers } from "../../tensor/tensor.js";

type NumberArray = Exclude<NumericArray, BigInt64Array | BigUint64Array>;

/** A tensor with its axes in the given order: axis i of the result is axis `order[i]` of the argument. */
export function permuteTensor(value: Tensor, order: readonly number[]): Tensor {
  const { data, dtype } = value;
  const shape = order.map((axis) => value.shape[axis] ?? 1);
  const from = gatherOrder(value.shape, order);
  if (!isNumberArray(data)) {
    if (ArrayBuffer.isView(data)) throw new PolyheadError("INTERNAL", "64-bit constants are never permuted.");
    return tensor(
      dtype,
      shape,
      Array.from(from, (index) => data[index] ?? ""),
    );
  }
  const permuted = data.slice();
  for (let index = 0; index < from.length; index++) permuted[index] = data[from[index] ?? 0] ?? 0;
  return tensor(dtype, shape, permuted);
}

/** For each element of the permuted tensor, in order, its place in the original. */
function gatherOrder(shape: Shape, order: readonly number[]): Uint32Array {
  const strides = shape.map((_, axis) => elementCount(shape.slice(axis + 1)));
  const from = new Uint32Array(elementCount(shape));
  let filled = Math.min(1, from.length);
  for (const axis of filled === 0 ? [] : order.toReversed()) {
    const block = filled;
    const size = shape[axis] ?? 1;
    for (let step = 1; step < size; step++) {
      const shift = step * (strides[axis] ?? 0);
      for (let index = 0; index < block; index++) from[filled++] = (from[index] ?? 0) + shift;
    }
  }
  return from;
}

/** The same elements in another shape. */
export function reshapeTensor(value: Tensor, shape: Shape): Tensor {
  return tensor(value.dtype, shape, value.data);
}

/** A numeric tensor in another dtype, with C's conversions: fractions are cut off, not-zero is true. */
export function castTensor(value: Tensor, dtype: DType): Tensor {
  return numberTensor(dtype, value.shape, toNumbers(value));
}

/** A tensor from numbers, in any numeric dtype. */
export function numberTensor(dtype: DType, shape: Shape, values: ArrayLike<number>): Tensor {
  if (dtype === "int64")
    return tensor(
      dtype,
      shape,
      BigInt64Array.from(values, (value) => BigInt(Math.trunc(value))),
    );
  if (dtype === "bool")
    return tensor(
      dtype,
      shape,
      Uint8Array.from(values, (value) => (value === 0 ? 0 : 1)),
    );
  const made = new DTYPES[dtype].array(values.length);
  if (!isNumberArray(made)) throw new PolyheadError("INTERNAL", `No numbers can be stored as ${dtype}.`);
  for (let index = 0; index < values.length; index++) made[index] = values[index] ?? 0;
  return tensor(dtype, shape, made);
}

function isNumberArray(data: Tensor["data"]): data is NumberArray {
  return ArrayBuffer.isView(data) && !(data instanceof BigInt64Array) && !(data instanceof BigUint64Array);
}
