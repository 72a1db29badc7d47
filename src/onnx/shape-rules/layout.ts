/** Operators that arrange elements anew: reshape, transpose, join, split, slice, repeat. */
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";
import { dtypeOfCode } from "../weight.js";
import { broadcast } from "./broadcasting.js";
import { frontAxes, frontAxis, isSize, MAX_RANK, product, quotient, withAxis } from "./sizes.js";
import type { Item, NodeView, Rule } from "./view.js";

const reshape: Rule = (view) => {
  const dtype = view.dtype();
  const wanted = view.ints("shape") ?? view.items(1);
  if (wanted) return [{ dtype, shape: reshaped(view, view.shape(), wanted) }];
  const rank = view.shape(1)?.[0];
  const isRank = typeof rank === "number" && rank <= MAX_RANK;
  return [{ dtype, shape: isRank ? view.unknowns(rank) : undefined }];
};

function reshaped(
  view: NodeView,
  from: SymbolicShape | undefined,
  wanted: readonly Item[],
): SymbolicShape | undefined {
  if (wanted.length > MAX_RANK) return undefined;
  const keepsZero = view.int("allowzero", 0) !== 0;
  const sizes = wanted.map((item, axis): Item => {
    if (item === 0 && !keepsZero) return from ? from[axis] : undefined;
    return item;
  });
  const isComplete = sizes.every((size) => size !== undefined);
  const rest = sizes.filter((size): size is Dimension => size !== undefined && size !== -1);
  if (sizes.length - rest.length > 1 && isComplete) return undefined;
  const whole = from && product(from);
  const part = product(rest);
  const left = isComplete && whole !== undefined && part !== undefined ? quotient(whole, part) : undefined;
  return sizes.map((size) =>
    size === undefined ? view.unknown() : size === -1 ? (left ?? view.unknown()) : size,
  );
}

const flatten: Rule = (view) => {
  const shape = view.shape();
  if (!shape) return [{ dtype: view.dtype(), shape: view.unknowns(2) }];
  const axis = view.int("axis", 1);
  const at = axis === shape.length ? axis : frontAxis(axis, shape.length);
  if (at === undefined) return [{ dtype: view.dtype() }];
  const sides = [shape.slice(0, at), shape.slice(at)].map((side) => product(side) ?? view.unknown());
  return [{ dtype: view.dtype(), shape: sides }];
};

const squeeze: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  const asked = view.list("axes", 1);
  if (!shape || asked === undefined) return [{ dtype }];
  if (asked === "none") {
    const isKnown = shape.every((size) => typeof size === "number");
    return [{ dtype, shape: isKnown ? shape.filter((size) => size !== 1) : undefined }];
  }
  const axes = frontAxes(asked, shape.length);
  return [{ dtype, shape: axes && shape.filter((_, axis) => !axes.includes(axis)) }];
};

const unsqueeze: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  const asked = view.list("axes", 1);
  if (!shape || asked === undefined || asked === "none") return [{ dtype }];
  const rank = shape.length + asked.length;
  const axes = rank <= MAX_RANK ? frontAxes(asked, rank) : undefined;
  if (!axes) return [{ dtype }];
  const old = shape.values();
  const result = Array.from({ length: rank }, (_, axis) =>
    axes.includes(axis) ? 1 : (old.next().value ?? 1),
  );
  return [{ dtype, shape: result }];
};

const transpose: Rule = (view) => {
  const shape = view.shape();
  const order = view.ints("perm") ?? shape?.map((_, axis) => axis).reverse();
  const axes = shape && order?.length === shape.length ? frontAxes(order, shape.length) : undefined;
  return [{ dtype: view.dtype(), shape: axes?.map((axis) => shape?.[axis] ?? 1) }];
};

const concat: Rule = (view) => {
  const dtype = view.dtype();
  const known = view.node.input.map((_, place) => view.shape(place)).filter((shape) => shape !== undefined);
  const [first] = known;
  const axis = first && view.axis(1, first.length);
  if (!first || axis === undefined || known.some((shape) => shape.length !== first.length))
    return [{ dtype }];
  const total = known.length === view.inputCount ? sum(known.map((shape) => shape[axis] ?? 0)) : undefined;
  // Along the other axes all inputs agree, so whoever knows a number is right.
  const sizes = first.map(
    (size, at) => known.map((shape) => shape[at]).find((each) => typeof each === "number") ?? size,
  );
  return [{ dtype, shape: withAxis(sizes, axis, total ?? view.unknown()) }];
};

/** The sum of dimensions where all but one are numbers and those nought, or all are numbers. */
function sum(sizes: readonly Dimension[]): Dimension | undefined {
  const rest = sizes.filter((size) => size !== 0);
  if (rest.length === 1) return rest[0];
  return rest.every((size) => typeof size === "number")
    ? rest.reduce((total, size) => total + size, 0)
    : undefined;
}

const split: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  const axis = shape && view.axis(0, shape.length);
  if (!shape || axis === undefined) return view.node.output.map(() => ({ dtype }));
  const parts = splitSizes(view, shape[axis] ?? 1);
  return view.node.output.map((_, place) => ({
    dtype,
    shape: withAxis(shape, axis, parts?.[place] ?? view.unknown()),
  }));
};

/** How long each part of a Split is; undefined when that is not known. */
export function splitSizes(view: NodeView, size: Dimension): readonly Dimension[] | undefined {
  const given = view.list("split", 1);
  if (given !== "none") return given?.every(isSize) ? given : undefined;
  const count = view.outputCount;
  if (typeof size === "string") {
    const part = quotient(size, count);
    return part === undefined ? undefined : view.node.output.map(() => part);
  }
  const part = Math.ceil(size / count);
  return view.node.output.map((_, place) => Math.max(0, Math.min(part, size - place * part)));
}

const slice: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  if (!shape) return [{ dtype }];
  const cuts = sliceCuts(view, shape.length);
  if (!cuts) return [{ dtype, shape: view.unknowns(shape.length) }];
  let result: SymbolicShape = shape;
  for (const cut of cuts) {
    const size = shape[cut.axis] ?? 1;
    result = withAxis(result, cut.axis, slicedSize(size, cut) ?? view.unknown());
  }
  return [{ dtype, shape: result }];
};

interface Cut {
  readonly axis: number;
  readonly start: number;
  readonly end: Item;
  readonly step: number;
}

/** What a Slice takes of each axis; undefined when it is not known. Ends may be dimensions that go by a name. */
export function sliceCuts(view: NodeView, rank: number): readonly Cut[] | undefined {
  const starts = view.ints("starts") ?? view.numbers(1);
  const ends = view.ints("ends") ?? view.items(2);
  const givenAxes = view.list("axes", 3);
  const givenSteps = view.list("steps", 4);
  if (!starts || !ends || !givenAxes || !givenSteps) return undefined;
  const axes = frontAxes(givenAxes === "none" ? starts.map((_, axis) => axis) : givenAxes, rank);
  if (!axes || axes.length !== starts.length || ends.length !== starts.length) return undefined;
  const cuts = axes.map((axis, place) => ({
    axis,
    start: starts[place] ?? 0,
    end: ends[place],
    step: givenSteps === "none" ? 1 : (givenSteps[place] ?? 1),
  }));
  return cuts.every(({ step }) => step !== 0) ? cuts : undefined;
}

/** First index and number of indices that a cut takes of an axis of `size` elements. */
export function sliceRange(size: number, start: number, end: number, step: number): [number, number] {
  const clamp = (at: number) =>
    Math.min(Math.max(at < 0 ? at + size : at, step < 0 ? -1 : 0), step < 0 ? size - 1 : size);
  const first = clamp(start);
  return [first, Math.max(0, Math.ceil((clamp(end) - first) / step))];
}

function slicedSize(size: Dimension, { start, end, step }: Cut): Dimension | undefined {
  if (typeof size === "number")
    return typeof end === "number" ? sliceRange(size, start, end, step)[1] : undefined;
  const isWhole =
    start === 0 && step === 1 && (end === size || (typeof end === "number" && end >= 2 ** 31 - 1));
  return isWhole ? size : undefined;
}

const expand: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  const wanted = view.items(1);
  if (!shape || !wanted || wanted.length > MAX_RANK) return [{ dtype }];
  return [{ dtype, shape: broadcast(view, [shape, wanted.map((size) => size ?? view.unknown())]) }];
};

const tile: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  const repeats = view.items(1);
  if (!shape || view.opset < 6) return [{ dtype }];
  const result = shape.map((size, axis) => {
    const times = repeats?.[axis];
    return (times === undefined ? undefined : product([size, times])) ?? view.unknown();
  });
  return [{ dtype, shape: result }];
};

const constantOfShape: Rule = (view) => {
  const value = view.tensor("value");
  const sizes = view.items(0);
  return [
    {
      dtype: value ? dtypeOfCode(value.dataType) : "float32",
      shape: sizes && sizes.length <= MAX_RANK ? sizes.map((size) => size ?? view.unknown()) : undefined,
    },
  ];
};

const range: Rule = (view) => {
  const [start, limit, step] = [0, 1, 2].map((place) => view.numbers(place)?.[0]);
  const isKnown = start !== undefined && limit !== undefined && step !== undefined && step !== 0;
  const counted = isKnown ? Math.max(0, Math.ceil((limit - start) / step)) : undefined;
  // From nought in steps of one, a range is as long as its limit says.
  const limitItem = start === 0 && step === 1 ? view.items(1)?.[0] : undefined;
  return [{ dtype: view.dtype(), shape: [counted ?? limitItem ?? view.unknown()] }];
};

const shapeOf: Rule = (view) => {
  const rank = view.shape()?.length;
  if (rank === undefined) return [{ dtype: "int64", shape: [view.unknown()] }];
  const [, length] = sliceRange(rank, view.int("start", 0), view.int("end", rank), 1);
  return [{ dtype: "int64", shape: [length] }];
};

/** Rules of this file by operator. */
export const LAYOUT: Readonly<Record<string, Rule>> = {
  Reshape: reshape,
  Flatten: flatten,
  Squeeze: squeeze,
  Unsqueeze: unsqueeze,
  Transpose: transpose,
  Concat: concat,
  Split: split,
  Slice: slice,
  Expand: expand,
  Tile: tile,
  ConstantOfShape: constantOfShape,
  Range: range,
  Shape: shapeOf,
  Size: () => [{ dtype: "int64", shape: [] }],
};
