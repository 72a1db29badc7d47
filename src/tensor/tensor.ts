/**
 * A dense tensor in memory: dtype, shape, elements in row-major order. It is plain data and is never
 * changed in place by Polyhead; whoever makes one may keep its array.
 */
import { PolyheadError } from "../base/errors.js";
import { byteLength, DTYPES, type DType } from "./dtype.js";
import { elementCount, formatShape, type Shape } from "./shape.js";

/** An array of numbers or bits that holds a tensor's elements. */
export type NumericArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint16Array
  | Uint32Array
  | BigUint64Array;

/** A dense tensor. */
export interface Tensor {
  readonly dtype: DType;
  readonly shape: Shape;
  /** Elements in row-major order; strings for dtype `string`, an array of the dtype's kind else. */
  readonly data: NumericArray | readonly string[];
}

/**
 * A tensor over the given elements, checked.
 * @throws PolyheadError DATA_MALFORMED when the number of elements does not fit dtype and shape
 */
export function tensor(dtype: DType, shape: Shape, data: NumericArray | readonly string[]): Tensor {
  const count = elementCount(shape);
  const expected =
    dtype === "string" ? count : byteLength(dtype, count) / DTYPES[dtype].array.BYTES_PER_ELEMENT;
  const isStrings = !ArrayBuffer.isView(data);
  if (isStrings !== (dtype === "string") || data.length !== expected) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `A ${dtype} tensor of shape ${formatShape(shape)} needs ${expected} elements; got ${data.length}.`,
      { dtype, shape, expected, got: data.length },
    );
  }
  return { dtype, shape, data };
}

/** A float32 tensor from numbers. */
export function float32(shape: Shape, values: ArrayLike<number>): Tensor {
  return tensor("float32", shape, values instanceof Float32Array ? values : Float32Array.from(values));
}

/** An int64 tensor from whole numbers. */
export function int64(shape: Shape, values: Iterable<number | bigint>): Tensor {
  return tensor("int64", shape, BigInt64Array.from(values, BigInt));
}

/**
 * The bytes of a numeric tensor, little-endian, without copying.
 * @throws PolyheadError DATA_MALFORMED for strings
 */
export function bytesOf(value: Tensor): Uint8Array {
  if (!ArrayBuffer.isView(value.data)) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      "A string tensor has no fixed bytes; expected a numeric one.",
      {},
    );
  }
  return new Uint8Array(value.data.buffer, value.data.byteOffset, value.data.byteLength);
}

/**
 * A numeric tensor over little-endian bytes. The bytes are used as they are when their offset is aligned
 * to the element size, and copied else.
 * @throws PolyheadError DATA_MALFORMED when the number of bytes does not fit
 */
export function fromBytes(dtype: DType, shape: Shape, bytes: Uint8Array): Tensor {
  const Kind = DTYPES[dtype].array;
  if (bytes.length !== byteLength(dtype, elementCount(shape)) || dtype === "string") {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `A ${dtype} tensor of shape ${formatShape(shape)} needs ${byteLength(dtype, elementCount(shape))} bytes; got ${bytes.length}.`,
      { dtype, shape, got: bytes.length },
    );
  }
  // Not bytes.slice(), which does not copy when the bytes are a Node Buffer.
  const aligned = bytes.byteOffset % Kind.BYTES_PER_ELEMENT === 0 ? bytes : new Uint8Array(bytes);
  return {
    dtype,
    shape,
    data: new Kind(
      aligned.buffer as ArrayBuffer,
      aligned.byteOffset,
      aligned.length / Kind.BYTES_PER_ELEMENT,
    ),
  };
}

/** The elements of a real-valued tensor as numbers; float16 and bfloat16 are widened. */
export function toNumbers(value: Tensor): Float64Array {
  const { data, dtype } = value;
  if (!ArrayBuffer.isView(data)) {
    throw new PolyheadError("DATA_MALFORMED", "Strings cannot be read as numbers.", { dtype });
  }
  if (dtype === "float16") return Float64Array.from(data as Uint16Array, halfToNumber);
  if (dtype === "bfloat16") return Float64Array.from(data as Uint16Array, bfloatToNumber);
  return Float64Array.from(data as ArrayLike<number | bigint>, Number);
}

/** The value of an IEEE 754 half-precision number given by its 16 bits. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The value of a bfloat16 number given by its 16 bits. */
export function bfloatToNumber(bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0] ?? 0;
}
