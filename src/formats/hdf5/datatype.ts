/** Data types and shapes: numbers of the dtypes that tensors have, and texts of fixed or any length. */
import type { DType } from "../../tensor/dtype.js";
import { brokenHdf5, type Cursor, unsupportedHdf5 } from "./reader.js";

/** What elements are. */
export type Hdf5Type =
  | { readonly kind: "number"; readonly size: number; readonly dtype: DType; readonly isBigEndian: boolean }
  | { readonly kind: "text"; readonly size: number }
  | { readonly kind: "anyText"; readonly size: number }
  | { readonly kind: "other"; readonly size: number; readonly what: string };

const INTEGERS: Readonly<Record<number, DType>> = { 1: "int8", 2: "int16", 4: "int32", 8: "int64" };
const UNSIGNED: Readonly<Record<number, DType>> = { 1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64" };
const OTHERS: Readonly<Record<number, string>> = {
  2: "times",
  4: "bit fields",
  5: "opaque data",
  6: "records",
  7: "references",
  10: "arrays",
};

/** The type that a message states. */
export function readType(cursor: Cursor, depth = 0): Hdf5Type {
  const first = cursor.u8();
  const bits = cursor.u8();
  const [second] = [cursor.u8(), cursor.u8()];
  const size = cursor.u32();
  if (size === 0 || size > 2 ** 31) throw brokenHdf5(`a data type has ${size} bytes`);
  const isBigEndian = (bits & 1) === 1;
  const kind = first & 15;
  if (kind === 0) {
    const dtype = (bits & 8 ? INTEGERS : UNSIGNED)[size];
    return dtype
      ? { kind: "number", size, dtype, isBigEndian }
      : { kind: "other", size, what: `integers of ${size} bytes` };
  }
  if (kind === 1) return readFloat(cursor, size, isBigEndian, second);
  if (kind === 3) return { kind: "text", size };
  if (kind === 9) {
    return (bits & 15) === 1
      ? { kind: "anyText", size }
      : { kind: "other", size, what: "lists of any length" };
  }
  if (kind === 8 && depth === 0) {
    const base = readType(cursor, 1);
    // h5py stores truth values as an enumeration of one byte.
    return base.kind === "number" && size === 1 ? { ...base, dtype: "bool" } : base;
  }
  return { kind: "other", size, what: OTHERS[kind] ?? "data of an unknown kind" };
}

/** IEEE floats and bfloat16, told apart by the size of the exponent. */
function readFloat(cursor: Cursor, size: number, isBigEndian: boolean, _sign: number): Hdf5Type {
  cursor.skip(5);
  const exponent = cursor.u8();
  const known: Readonly<Record<string, DType>> = {
    "2 5": "float16",
    "2 8": "bfloat16",
    "4 8": "float32",
    "8 11": "float64",
  };
  const dtype = known[`${size} ${exponent}`];
  return dtype
    ? { kind: "number", size, dtype, isBigEndian }
    : { kind: "other", size, what: `floats of ${size} bytes` };
}

/** The shape that a message states; undefined for the one without elements. */
export function readShape(cursor: Cursor): number[] | undefined {
  const version = cursor.u8();
  const rank = cursor.u8();
  cursor.skip(1);
  if (version === 1) cursor.skip(5);
  else if (version !== 2) throw unsupportedHdf5("shapes of a newer version");
  else if (cursor.u8() === 2) return undefined;
  if (rank > 32) throw brokenHdf5(`a shape has ${rank} axes`);
  const shape = Array.from({ length: rank }, () => cursor.length());
  const count = shape.reduce((product, size) => product * size, 1);
  if (count > 2 ** 40) throw brokenHdf5(`a shape has ${count} elements`, { shape });
  return shape;
}
