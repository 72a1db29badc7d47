/** Arbitrary tensors for property tests: every dtype that NumPy has, up to three dimensions, any bits. */
import fc from "fast-check";
import { byteLength, type DType, elementCount, fromBytes, type Tensor } from "../../src/tensor/index.js";

const NUMERIC: readonly DType[] = [
  "float16",
  "float32",
  "float64",
  "int8",
  "int16",
  "int32",
  "int64",
  "uint8",
  "uint16",
  "uint32",
  "uint64",
  "complex64",
  "complex128",
];

const shapes = fc.array(fc.nat(4), { maxLength: 3 });

const numeric = fc.tuple(fc.constantFrom(...NUMERIC), shapes).chain(([dtype, shape]) => {
  const length = byteLength(dtype, elementCount(shape));
  return fc
    .uint8Array({ minLength: length, maxLength: length })
    .map((bytes): Tensor => fromBytes(dtype, shape, bytes));
});

// NumPy cannot keep NULs at the end of a string.
const text = fc.string({ unit: "grapheme", maxLength: 6 }).filter((string) => !string.endsWith("\0"));

const strings = shapes.chain((shape) => {
  const length = elementCount(shape);
  return fc
    .array(text, { minLength: length, maxLength: length })
    .map((data): Tensor => ({ dtype: "string", shape, data }));
});

/** A tensor that NumPy can save. */
export const arbitraryTensor: fc.Arbitrary<Tensor> = fc.oneof({ weight: 4, arbitrary: numeric }, strings);
