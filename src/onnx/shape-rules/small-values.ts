/**
 * The elements of small integer tensors, followed through the graph: what exporters write as
 * Shape, Gather, Concat, Reshape is known before anything runs, the names of dimensions included. Tensors
 * of up to {@link MAX_ITEMS} elements are followed; an element that is no number and no product of dimensions is
 * not known.
 */
import type { DType } from "../../tensor/dtype.js";
import { elementCount, isConcrete, type Shape } from "../../tensor/shape.js";
import { toNumbers } from "../../tensor/tensor.js";
import type { Weight } from "../model.js";
import { dtypeOfCode, weightTensor } from "../weight.js";
import { sliceCuts, sliceRange, splitSizes } from "./layout.js";
import { frontAxis, product, quotient } from "./sizes.js";
import type { Item, NodeView } from "./view.js";

type Items = readonly Item[];
type ItemRule = (view: NodeView) => readonly (Items | undefined)[];

/** Longer lists are not followed. */
export const MAX_ITEMS = 1024;

/** The elements of a weight that is a small scalar or list of numbers and lies in memory. */
export function weightItems(weight: Weight): Items | undefined {
  const dtype = dtypeOfCode(weight.dataType);
  const isNumeric = dtype && (NUMERIC.has(dtype) || dtype === "float16");
  if (!isNumeric || weight.externalData.length > 0) return undefined;
  if (weight.dims.length > 1 || weight.dims.some((size) => size > MAX_ITEMS)) return undefined;
  return [...toNumbers(weightTensor(weight))];
}

const NUMERIC: ReadonlySet<DType> = new Set(
  "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64".split(" ") as DType[],
);
const FRACTIONAL: ReadonlySet<DType> = new Set<DType>(["float16", "bfloat16", "float32", "float64"]);

/** A rule for operators with one output. */
const one =
  (rule: (view: NodeView) => Items | undefined): ItemRule =>
  (view) => [rule(view)];

const passed = one((view) => view.items(0));

/** Element by element over inputs that broadcast; every element must be known to `combine`. */
const zip = (combine: (a: Item, b: Item, isFraction: boolean) => Item): ItemRule =>
  one((view) => {
    const a = view.items(0);
    const b = view.items(1);
    const dtype = view.dtype();
    if (!a || !b || !dtype) return undefined;
    const length = a.length === 1 ? b.length : a.length;
    if (b.length !== length && b.length !== 1) return undefined;
    return Array.from({ length }, (_, at) =>
      combine(a[a.length === 1 ? 0 : at], b[b.length === 1 ? 0 : at], FRACTIONAL.has(dtype)),
    );
  });

/** Arithmetic where `names` says what to do when one side goes by a name. */
const arithmetic = (
  numbers: (a: number, b: number, isFraction: boolean) => number,
  names: (a: Exclude<Item, undefined>, b: Exclude<Item, undefined>) => Item,
): ItemRule =>
  zip((a, b, isFraction) => {
    if (a === undefined || b === undefined) return undefined;
    if (typeof a === "string" || typeof b === "string") return names(a, b);
    const result = numbers(a, b, isFraction);
    return Number.isFinite(result) ? result : undefined;
  });

const add = arithmetic(
  (a, b) => a + b,
  (a, b) => (a === 0 ? b : b === 0 ? a : undefined),
);
const subtract = arithmetic(
  (a, b) => a - b,
  (a, b) => (b === 0 ? a : a === b ? 0 : undefined),
);
const multiply = arithmetic(
  (a, b) => a * b,
  (a, b) =>
    Number(a) < 0 || Number(b) < 0 || isFractional(a) || isFractional(b) ? undefined : product([a, b]),
);
const divide = arithmetic(
  (a, b, isFraction) => (isFraction ? a / b : Math.trunc(a / b)),
  (a, b) => (Number(b) < 0 || isFractional(b) ? undefined : quotient(a, b)),
);
const remainder = arithmetic(
  (a, b) => a - b * Math.floor(a / b),
  () => undefined,
);

const variadic = (numbers: (...values: number[]) => number): ItemRule =>
  one((view) => {
    const lists = view.node.input.map((_, place) => view.numbers(place));
    const known = lists.filter((list) => list !== undefined);
    const length = Math.max(0, ...known.map((list) => list.length));
    if (known.length !== lists.length || known.some((list) => list.length !== length && list.length !== 1))
      return undefined;
    return Array.from({ length }, (_, at) =>
      numbers(...known.map((list) => list[list.length === 1 ? 0 : at] ?? 0)),
    );
  });

/** A comparison; a dimension is at least 0. */
const compare = (
  numbers: (a: number, b: number) => boolean,
  dimension: (negative: boolean) => boolean,
): ItemRule =>
  zip((a, b) => {
    if (typeof a === "number" && typeof b === "number") return Number(numbers(a, b));
    if (typeof a === "string" && typeof b === "number" && b < 0) return Number(dimension(false));
    if (typeof a === "number" && typeof b === "string" && a < 0) return Number(dimension(true));
    return a !== undefined && a === b ? Number(numbers(0, 0)) : undefined;
  });

const each = (change: (value: number) => number): ItemRule =>
  one((view) => view.items(0)?.map((item) => (typeof item === "number" ? change(item) : undefined)));

/** Like {@link each}, for changes that leave whole numbers as they are. */
const round = (change: (value: number) => number): ItemRule =>
  one((view) => view.items(0)?.map((item) => (typeof item === "number" ? change(item) : item)));

const cast = one((view) => {
  const to = dtypeOfCode(view.int("to", 0));
  if (!to || !(NUMERIC.has(to) || FRACTIONAL.has(to))) return undefined;
  return view.items(0)?.map((item) => {
    if (to === "bool") return typeof item === "number" ? Number(item !== 0) : undefined;
    if (typeof item !== "number" || FRACTIONAL.has(to)) return item;
    return Math.trunc(item);
  });
});

const shapeOf = one((view) => {
  const shape = view.shape();
  return shape?.slice(view.int("start", 0), view.int("end", shape.length));
});

const size = one((view) => {
  const shape = view.shape();
  return shape && [product(shape)];
});

const gather = one((view) => {
  const items = view.items(0);
  const indices = view.numbers(1);
  if (!items || view.shape()?.length !== 1) return undefined;
  return indices?.map((index) => items[frontAxis(index, items.length) ?? items.length]);
});

const concat = one((view) => {
  const lists = view.node.input.map((_, place) =>
    view.shape(place)?.length === 1 ? view.items(place) : undefined,
  );
  return lists.every((list) => list !== undefined) ? lists.flat() : undefined;
});

const slice = one((view) => {
  let items = view.items(0);
  const shape = view.shape();
  const cuts = shape && sliceCuts(view, shape.length);
  if (!shape || !isConcrete(shape) || !cuts) return undefined;
  const sizes = [...shape];
  for (const { axis, start, end, step } of cuts) {
    if (!items || typeof end !== "number") return undefined;
    const [first, length] = sliceRange(sizes[axis] ?? 0, start, end, step);
    items = pick(items, sizes, axis, first, length, step);
    sizes[axis] = length;
  }
  return items;
});

/** The elements at `first`, `first + step`, ... along one axis. */
function pick(items: Items, shape: Shape, axis: number, first: number, length: number, step: number): Items {
  const inner = elementCount(shape.slice(axis + 1));
  const size = shape[axis] ?? 0;
  return Array.from({ length: elementCount(shape.slice(0, axis)) }, (_, outer) =>
    Array.from({ length }, (_, at) => {
      const from = (outer * size + first + at * step) * inner;
      return items.slice(from, from + inner);
    }),
  ).flat(2);
}

/** A table turned; lists stay as they are. */
const transpose = one((view) => {
  const items = view.items(0);
  const shape = view.shape();
  if (!items || !shape || shape.length > 2) return undefined;
  const isTurned = shape.length === 2 && (view.ints("perm") ?? [1, 0])[0] === 1;
  const [rows, columns] = shape.map(Number);
  if (!isTurned || rows === undefined || columns === undefined) return items;
  return items.map((_, at) => items[(at % rows) * columns + Math.floor(at / rows)]);
});

const split: ItemRule = (view) => {
  const items = view.shape()?.length === 1 ? view.items(0) : undefined;
  const sizes = items && splitSizes(view, items.length);
  if (!items || !sizes?.every((length) => typeof length === "number")) return [];
  let at = 0;
  return sizes.map((length) => {
    at += length;
    return items.slice(at - length, at);
  });
};

const where = one((view) => {
  const condition = view.items(0);
  const yes = view.items(1);
  const no = view.items(2);
  if (!condition || !yes || !no) return undefined;
  const length = Math.max(condition.length, yes.length, no.length);
  const at = (items: Items, place: number) => items[items.length === 1 ? 0 : place];
  return Array.from({ length }, (_, place) => {
    const test = at(condition, place);
    if (typeof test === "number") return at(test === 0 ? no : yes, place);
    return at(yes, place) === at(no, place) ? at(yes, place) : undefined;
  });
});

/** One element, as often as the output has room for. */
function repeated(item: Item, times: Item): Items | undefined {
  return typeof times === "number" && times >= 0 && times <= MAX_ITEMS
    ? Array.from({ length: times }, () => item)
    : undefined;
}

const constantOfShape = one((view) => {
  const sizes = view.items(0);
  const value = view.tensor("value");
  const item = value ? weightItems(value)?.[0] : 0;
  if (!sizes || sizes.length > 1 || item === undefined) return undefined;
  return repeated(item, sizes.length === 0 ? 1 : sizes[0]);
});

const expand = one((view) => {
  const items = view.items(0);
  const sizes = view.items(1);
  if (!items || sizes?.length !== 1) return undefined;
  return items.length === 1 && sizes[0] !== 1 ? repeated(items[0], sizes[0]) : items;
});

const range = one((view) => {
  const [start, limit, step] = [0, 1, 2].map((place) => view.numbers(place)?.[0]);
  if (start === undefined || limit === undefined || !step) return undefined;
  const length = Math.max(0, Math.ceil((limit - start) / step));
  return length <= MAX_ITEMS ? Array.from({ length }, (_, at) => start + at * step) : undefined;
});

/** A reduction of a whole list; of a scalar there is nothing to reduce. */
const reduce = (combine: (items: Items) => Item): ItemRule =>
  one((view) => {
    const items = view.items(0);
    return items && view.shape()?.length === 1 ? [combine(items)] : undefined;
  });
const reduceNumbers = (combine: (numbers: readonly number[]) => number): ItemRule =>
  reduce((items) => (items.every((item) => typeof item === "number") ? combine(items) : undefined));

function isFractional(item: Item): boolean {
  return typeof item === "number" && !Number.isInteger(item);
}

/** By operator: the elements of its outputs as far as they are known. */
export const SMALL_VALUES: Readonly<Record<string, ItemRule>> = {
  Identity: passed,
  Reshape: passed,
  Squeeze: passed,
  Unsqueeze: passed,
  Transpose: transpose,
  Flatten: passed,
  Shape: shapeOf,
  Size: size,
  Add: add,
  Sub: subtract,
  Mul: multiply,
  Div: divide,
  Mod: remainder,
  Min: variadic(Math.min),
  Max: variadic(Math.max),
  Equal: compare(
    (a, b) => a === b,
    () => false,
  ),
  Greater: compare(
    (a, b) => a > b,
    (isSecond) => !isSecond,
  ),
  GreaterOrEqual: compare(
    (a, b) => a >= b,
    (isSecond) => !isSecond,
  ),
  Less: compare(
    (a, b) => a < b,
    (isSecond) => isSecond,
  ),
  LessOrEqual: compare(
    (a, b) => a <= b,
    (isSecond) => isSecond,
  ),
  And: variadic((a = 0, b = 0) => Number(a !== 0 && b !== 0)),
  Or: variadic((a = 0, b = 0) => Number(a !== 0 || b !== 0)),
  Not: each((value) => Number(value === 0)),
  Neg: each((value) => -value),
  Abs: round(Math.abs),
  Floor: round(Math.floor),
  Ceil: round(Math.ceil),
  Sqrt: each(Math.sqrt),
  Cast: cast,
  Gather: gather,
  Concat: concat,
  Slice: slice,
  Split: split,
  Where: where,
  ConstantOfShape: constantOfShape,
  Expand: expand,
  Range: range,
  ReduceProd: reduce((items) => {
    const known = items.filter((item) => item !== undefined);
    return known.length === items.length && !known.some((item) => Number(item) < 0)
      ? product(known)
      : undefined;
  }),
  ReduceSum: reduceNumbers((numbers) => numbers.reduce((total, each) => total + each, 0)),
  ReduceMax: reduceNumbers((numbers) => Math.max(...numbers)),
  ReduceMin: reduceNumbers((numbers) => Math.min(...numbers)),
};
