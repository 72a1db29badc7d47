/**
 * What import knows of the elements of small integer and real values: numbers, or names of dimensions. It is how
 * the arithmetic on shapes that models carry with them (Shape, StridedSlice, Mul, Pack, Reshape) is done once,
 * at import. An unknown element makes the whole value unknown.
 */
import type { DType } from "../../tensor/dtype.js";
import { type Dimension, elementCount, isConcrete, type Shape } from "../../tensor/shape.js";
import { toNumbers } from "../../tensor/tensor.js";
import { broadcastShapes, derived, product, quotient, sum } from "./dimension.js";
import type { Value } from "./value.js";

/** Values of more elements than this are not looked into. */
export const KNOWN_LIMIT = 4096;

/** Elements of a value in TF.js' order as far as they are known at import. */
export function knownElements(value: Value): readonly Dimension[] | undefined {
  if (value.known) return value.known;
  const { constant, layout, dtype } = value;
  if (!constant || layout !== "plain" || dtype === "string" || constant.data.length > KNOWN_LIMIT)
    return undefined;
  return [...toNumbers(constant)];
}

type Combine = (elements: readonly Dimension[], dtype: DType) => Dimension | undefined;

/** A function of numbers only. */
function onNumbers(compute: (...elements: number[]) => number): Combine {
  return (elements) => (isConcrete(elements) ? compute(...elements) : undefined);
}

/** Whether a dimension, or a number that may scale one. */
function isSize(element: Dimension): boolean {
  return typeof element === "string" || Number.isSafeInteger(element);
}

/** What ONNX' elementwise operators do to single elements. */
const COMBINE: Readonly<Record<string, Combine>> = {
  Add: ([a = 0, b = 0]) => sum(a, b),
  Sub: ([a = 0, b = 0]) => {
    if (a === b && typeof a === "string") return 0;
    if (typeof b === "number") return sum(a, -b);
    return derived("subtract", a, b);
  },
  Mul: (elements) => {
    if (isConcrete(elements)) return elements.reduce((left, right) => left * right, 1);
    return elements.every(isSize) ? product(elements) : undefined;
  },
  Div: ([a = 0, b = 1], dtype) => {
    if (typeof a === "number" && typeof b === "number") {
      if (dtype === "float32") return a / b;
      return b === 0 ? undefined : Math.trunc(a / b);
    }
    return quotient([a], [b]) ?? (dtype === "float32" ? undefined : derived("divide", a, b));
  },
  Mod: onNumbers((a, b) => (b === 0 ? Number.NaN : a - Math.floor(a / b) * b)),
  Max: ([a = 0, b = 0]) =>
    typeof a === "number" && typeof b === "number" ? Math.max(a, b) : derived("max", a, b),
  Min: ([a = 0, b = 0]) =>
    typeof a === "number" && typeof b === "number" ? Math.min(a, b) : derived("min", a, b),
  Equal: onNumbers((a, b) => Number(a === b)),
  Less: onNumbers((a, b) => Number(a < b)),
  LessOrEqual: onNumbers((a, b) => Number(a <= b)),
  Greater: onNumbers((a, b) => Number(a > b)),
  GreaterOrEqual: onNumbers((a, b) => Number(a >= b)),
  And: onNumbers((a, b) => Number(a !== 0 && b !== 0)),
  Or: onNumbers((a, b) => Number(a !== 0 || b !== 0)),
  Xor: onNumbers((a, b) => Number((a !== 0) !== (b !== 0))),
  Not: onNumbers((a) => Number(a === 0)),
  Where: ([condition, yes, no]) => (typeof condition === "number" ? (condition ? yes : no) : undefined),
  Neg: onNumbers((a) => -a),
  Floor: onNumbers(Math.floor),
  Ceil: onNumbers(Math.ceil),
  Sqrt: onNumbers(Math.sqrt),
  Reciprocal: onNumbers((a) => 1 / a),
};

/** Elements of an elementwise operator's result; undefined when they depend on what is not known. */
export function combineKnown(
  opType: string,
  inputs: readonly Value[],
  dtype: DType,
): readonly Dimension[] | undefined {
  const combine = Object.hasOwn(COMBINE, opType) ? COMBINE[opType] : undefined;
  const shape = broadcastShapes(...inputs.map((input) => input.shape));
  if (!combine || !shape || !isConcrete(shape) || elementCount(shape) > KNOWN_LIMIT) return undefined;
  const operands: { shape: Shape; elements: readonly Dimension[] }[] = [];
  for (const input of inputs) {
    const elements = knownElements(input);
    if (!elements || !isConcrete(input.shape)) return undefined;
    operands.push({ shape: input.shape, elements });
  }
  const result: Dimension[] = [];
  for (let index = 0; index < elementCount(shape); index++) {
    const picked = operands.map((each) => each.elements[broadcastIndex(index, shape, each.shape)] ?? 0);
    const element = combine(picked, inputs.at(-1)?.dtype ?? dtype);
    if (element === undefined || Number.isNaN(element)) return undefined;
    result.push(element);
  }
  return result;
}

/** Where the element of a broadcast result comes from. */
function broadcastIndex(index: number, shape: Shape, own: Shape): number {
  let [rest, found, stride] = [index, 0, 1];
  for (let back = 1; back <= own.length; back++) {
    const [full, size] = [shape.at(-back) ?? 1, own.at(-back) ?? 1];
    if (size !== 1) found += (rest % full) * stride;
    stride *= size;
    rest = Math.floor(rest / full);
  }
  return found;
}
