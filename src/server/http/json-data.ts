/**
 * Tensors as JSON: a list of elements in row-major order, or lists within lists as the shape has them. Elements
 * have to be values of their datatype exactly: no number is clipped, and only fractions are rounded. What JSON has
 * no numbers for is a text: "NaN", "Infinity" and "-Infinity", and if a client likes, INT64 and UINT64.
 */
import { PolyheadError } from "../../base/errors.js";
import { DTYPES, type DType } from "../../tensor/dtype.js";
import { elementCount, formatShape, type Shape } from "../../tensor/shape.js";
import { bfloatToNumber, halfToNumber, type Tensor } from "../../tensor/tensor.js";
import { shown } from "../protocol/shown.js";
import { numberToBfloat, numberToHalf } from "./small-float.js";

const INTEGERS: Readonly<Partial<Record<DType, readonly [number, number]>>> = {
  uint8: [0, 2 ** 8 - 1],
  uint16: [0, 2 ** 16 - 1],
  uint32: [0, 2 ** 32 - 1],
  int8: [-(2 ** 7), 2 ** 7 - 1],
  int16: [-(2 ** 15), 2 ** 15 - 1],
  int32: [-(2 ** 31), 2 ** 31 - 1],
};
const LONG_INTEGERS: Readonly<Partial<Record<DType, readonly [bigint, bigint]>>> = {
  uint64: [0n, 2n ** 64n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
};
/** What a number becomes in a float's array, and whether it is within the float's range there. */
const FLOATS: Readonly<Partial<Record<DType, { bits(value: number): number; value(bits: number): number }>>> =
  {
    float16: { bits: numberToHalf, value: halfToNumber },
    bfloat16: { bits: numberToBfloat, value: bfloatToNumber },
    float32: { bits: Math.fround, value: Number },
    float64: { bits: Number, value: Number },
  };
const NOT_FINITE = new Map([
  ["NaN", Number.NaN],
  ["Infinity", Number.POSITIVE_INFINITY],
  ["-Infinity", Number.NEGATIVE_INFINITY],
]);

/**
 * The tensor in JSON data.
 * @param what names the tensor in messages: `Input "x"`
 * @throws PolyheadError INPUT_MISMATCH when data and shape differ, DATA_MALFORMED for elements of other kinds
 */
export function readJsonData(dtype: DType, shape: Shape, data: unknown, what: string): Tensor {
  if (!Array.isArray(data)) {
    throw new PolyheadError("INVALID_ARGUMENT", `${what} has ${shown(data)} as data; expected a list.`, {});
  }
  const isNested = shape.length > 1 && Array.isArray(data[0]);
  const form = isNested ? shape : [elementCount(shape)];
  // Before memory is taken for what the shape promises.
  checkForm(data, form, 0, shape, what);
  if (dtype === "string") {
    const texts: string[] = [];
    walk(data, form.length, (value) => texts.push(text(value, what)));
    return { dtype, shape, data: texts };
  }
  const array = new DTYPES[dtype].array(elementCount(shape));
  let at = 0;
  if (array instanceof BigInt64Array || array instanceof BigUint64Array) {
    walk(data, form.length, (value) => {
      array[at++] = longInteger(value, dtype, what);
    });
  } else {
    const convert = converter(dtype, what);
    walk(data, form.length, (value) => {
      array[at++] = convert(value);
    });
  }
  return { dtype, shape, data: array };
}

/** The elements of a tensor as the text of a flat JSON list. */
export function writeJsonData({ dtype, data }: Tensor): string {
  if (!ArrayBuffer.isView(data)) return JSON.stringify(data);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) return `[${data.join(",")}]`;
  if (dtype === "bool") return `[${Array.from(data, (value) => (value ? "true" : "false")).join(",")}]`;
  const { value: toNumber = Number } = FLOATS[dtype] ?? {};
  return `[${Array.from(data, (element) => number(toNumber(element))).join(",")}]`;
}

function number(value: number): string {
  return Number.isFinite(value) ? String(value) : `"${value}"`;
}

function checkForm(data: readonly unknown[], form: Shape, axis: number, shape: Shape, what: string): void {
  if (data.length !== form[axis]) {
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `${what} of shape ${formatShape(shape)} has a list of ${data.length} in its data; expected ${form[axis]}.`,
      { shape, expected: form[axis], got: data.length },
    );
  }
  if (axis + 1 === form.length) return;
  for (const part of data) {
    if (!Array.isArray(part)) {
      throw new PolyheadError(
        "INPUT_MISMATCH",
        `${what} of shape ${formatShape(shape)} has ${shown(part)} in its data; expected a list of ${form[axis + 1]}.`,
        { shape },
      );
    }
    checkForm(part, form, axis + 1, shape, what);
  }
}

function walk(data: readonly unknown[], depth: number, visit: (value: unknown) => void): void {
  for (const value of data) {
    if (depth > 1 && Array.isArray(value)) walk(value, depth - 1, visit);
    else visit(value);
  }
}

function converter(dtype: DType, what: string): (value: unknown) => number {
  const range = INTEGERS[dtype];
  const float = FLOATS[dtype];
  if (range) {
    const [least, most] = range;
    return (value) => {
      if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most)
        return value;
      throw refused(value, `a whole number from ${least} to ${most}`, what);
    };
  }
  if (float) {
    return (given) => {
      const value = typeof given === "bigint" ? Number(given) : given;
      const special = typeof value === "string" ? NOT_FINITE.get(value) : undefined;
      if (special !== undefined) return float.bits(special);
      if (typeof value !== "number") throw refused(value, 'a number, "NaN", "Infinity" or "-Infinity"', what);
      const bits = float.bits(value);
      if (!Number.isFinite(float.value(bits)))
        throw refused(value, `a number within the range of ${dtype}`, what);
      return bits;
    };
  }
  return (value) => {
    if (typeof value === "boolean") return Number(value);
    throw refused(value, "true or false", what);
  };
}

function longInteger(value: unknown, dtype: DType, what: string): bigint {
  const [least, most] = LONG_INTEGERS[dtype] ?? [0n, 0n];
  const isText = typeof value === "string" && /^-?\d{1,20}$/.test(value);
  const isExact = typeof value === "bigint" || Number.isSafeInteger(value) || isText;
  const integer = isExact ? BigInt(value as bigint | number | string) : undefined;
  if (integer !== undefined && integer >= least && integer <= most) return integer;
  throw refused(value, `a whole number from ${least} to ${most}, without exponent`, what);
}

function text(value: unknown, what: string): string {
  if (typeof value === "string") return value;
  throw refused(value, "a text", what);
}

function refused(got: unknown, expected: string, what: string): PolyheadError {
  return new PolyheadError("DATA_MALFORMED", `${what} has ${shown(got)} in its data; expected ${expected}.`, {
    expected,
  });
}
