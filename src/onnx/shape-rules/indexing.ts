/** Operators that pick elements, and those that reduce axes. */
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";
import { frontAxes, withAxis } from "./sizes.js";
import type { Known, NodeView, Rule } from "./view.js";

const gather: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  const indices = view.shape(1);
  const axis = shape && view.axis(0, shape.length);
  if (!shape || !indices || axis === undefined) return [{ dtype }];
  return [{ dtype, shape: [...shape.slice(0, axis), ...indices, ...shape.slice(axis + 1)] }];
};

const gatherElements: Rule = (view) => [{ dtype: view.dtype(), shape: view.shape(1) }];

const gatherNd: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  const indices = view.shape(1);
  const depth = indices?.at(-1);
  if (!shape || !indices || typeof depth !== "number") return [{ dtype }];
  return [{ dtype, shape: [...indices.slice(0, -1), ...shape.slice(view.int("batch_dims", 0) + depth)] }];
};

const topK: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  const axis = shape && view.axis(-1, shape.length);
  const size = view.opset < 10 ? view.int("k", 0) : view.items(1)?.[0];
  const picked = shape && axis !== undefined ? withAxis(shape, axis, size ?? view.unknown()) : undefined;
  return [
    { dtype, shape: picked },
    { dtype: "int64", shape: picked },
  ];
};

const nonZero: Rule = (view) => [
  { dtype: "int64", shape: [view.shape()?.length ?? view.unknown(), view.unknown()] },
];

const unique: Rule = (view) => {
  const shape = view.shape();
  const hasAxis = view.hasAttribute("axis");
  const axis = hasAxis && shape ? view.axis(0, shape.length) : undefined;
  const kept = view.unknown();
  const values = hasAxis ? (axis === undefined ? undefined : shape && withAxis(shape, axis, kept)) : [kept];
  const list: Known = { dtype: "int64", shape: [kept] };
  return [{ dtype: view.dtype(), shape: values }, list, { dtype: "int64", shape: [view.unknown()] }, list];
};

const compress: Rule = (view) => {
  const shape = view.shape();
  const hasAxis = view.hasAttribute("axis");
  const axis = hasAxis && shape ? view.axis(0, shape.length) : undefined;
  const some = view.unknown();
  const result = hasAxis ? (axis === undefined ? undefined : shape && withAxis(shape, axis, some)) : [some];
  return [{ dtype: view.dtype(), shape: result }];
};

const oneHot: Rule = (view) => {
  const dtype = view.dtype(2);
  const shape = view.shape();
  const depth = view.items(1)?.[0] ?? view.unknown();
  const axis = shape && view.axis(-1, shape.length + 1);
  return [{ dtype, shape: axis === undefined ? undefined : shape?.toSpliced(axis, 0, depth) }];
};

const nonMaxSuppression: Rule = (view) => [{ dtype: "int64", shape: [view.unknown(), 3] }];

const argument: Rule = (view) => {
  const shape = view.shape();
  const axis = shape && view.axis(0, shape.length);
  return [{ dtype: "int64", shape: axis === undefined ? undefined : shape && reduced(view, shape, [axis]) }];
};

/** From which operator set on the axes of a reduction are an input. */
const AXES_INPUT_SINCE = { ReduceSum: 13, others: 18 };

const reduce: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  if (!shape) return [{ dtype }];
  const since = view.node.opType === "ReduceSum" ? AXES_INPUT_SINCE.ReduceSum : AXES_INPUT_SINCE.others;
  const asked = view.opset < since ? (view.ints("axes") ?? "none") : view.list("axes", 1);
  if (asked === undefined) {
    const isSameRank = view.int("keepdims", 1) !== 0;
    return [{ dtype, shape: isSameRank ? view.unknowns(shape.length) : undefined }];
  }
  if (asked === "none" || asked.length === 0) {
    const isIdle = view.int("noop_with_empty_axes", 0) !== 0;
    const all = shape.map((_, axis) => axis);
    return [{ dtype, shape: isIdle ? shape : reduced(view, shape, all) }];
  }
  const axes = frontAxes(asked, shape.length);
  return [{ dtype, shape: axes && reduced(view, shape, axes) }];
};

function reduced(view: NodeView, shape: SymbolicShape, axes: readonly number[]): SymbolicShape {
  const isKept = view.int("keepdims", 1) !== 0;
  return shape.flatMap((size, axis): Dimension[] => {
    if (!axes.includes(axis)) return [size];
    return isKept ? [1] : [];
  });
}

const REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare".split(" ");

/** Rules of this file by operator. */
export const INDEXING: Readonly<Record<string, Rule>> = {
  ...Object.fromEntries(REDUCTIONS.map((kind) => [`Reduce${kind}`, reduce])),
  ArgMax: argument,
  ArgMin: argument,
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherNd,
  TopK: topK,
  NonZero: nonZero,
  Unique: unique,
  Compress: compress,
  OneHot: oneHot,
  NonMaxSuppression: nonMaxSuppression,
};
