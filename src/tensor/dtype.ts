/**
 * Element types. The names are ONNX Runtime's where it has one, lower-cased ONNX names else. A dtype says
 * how wide an element is and which array holds it; types narrower than a byte are packed two or four to a
 * byte, low bits first, as ONNX stores them, and types JavaScript has no numbers for stay as their bits.
 */

interface DTypeInfo {
  /** Bits of one element; 0 for strings, whose size varies. */
  readonly bits: number;
  /** What holds the elements. */
  readonly array: ArrayKind;
}

/** The arrays that hold elements. */
export type ArrayKind =
  | Float32ArrayConstructor
  | Float64ArrayConstructor
  | Int8ArrayConstructor
  | Int16ArrayConstructor
  | Int32ArrayConstructor
  | BigInt64ArrayConstructor
  | Uint8ArrayConstructor
  | Uint16ArrayConstructor
  | Uint32ArrayConstructor
  | BigUint64ArrayConstructor;

/** Every element type of the current ONNX schema. */
export const DTYPES = {
  float32: { bits: 32, array: Float32Array },
  uint8: { bits: 8, array: Uint8Array },
  int8: { bits: 8, array: Int8Array },
  uint16: { bits: 16, array: Uint16Array },
  int16: { bits: 16, array: Int16Array },
  int32: { bits: 32, array: Int32Array },
  int64: { bits: 64, array: BigInt64Array },
  string: { bits: 0, array: Uint8Array },
  bool: { bits: 8, array: Uint8Array },
  float16: { bits: 16, array: Uint16Array },
  float64: { bits: 64, array: Float64Array },
  uint32: { bits: 32, array: Uint32Array },
  uint64: { bits: 64, array: BigUint64Array },
  complex64: { bits: 64, array: Float32Array },
  complex128: { bits: 128, array: Float64Array },
  bfloat16: { bits: 16, array: Uint16Array },
  float8e4m3fn: { bits: 8, array: Uint8Array },
  float8e4m3fnuz: { bits: 8, array: Uint8Array },
  float8e5m2: { bits: 8, array: Uint8Array },
  float8e5m2fnuz: { bits: 8, array: Uint8Array },
  uint4: { bits: 4, array: Uint8Array },
  int4: { bits: 4, array: Uint8Array },
  float4e2m1: { bits: 4, array: Uint8Array },
  float8e8m0: { bits: 8, array: Uint8Array },
  uint2: { bits: 2, array: Uint8Array },
  int2: { bits: 2, array: Uint8Array },
} as const satisfies Record<string, DTypeInfo>;

/** Name of an element type. */
export type DType = keyof typeof DTYPES;

/** Whether the name is that of an element type. */
export function isDType(name: string): name is DType {
  return Object.hasOwn(DTYPES, name);
}

/** Bytes that `count` elements take when stored densely; strings have no fixed size and give 0. */
export function byteLength(dtype: DType, count: number): number {
  return Math.ceil((DTYPES[dtype].bits * count) / 8);
}
