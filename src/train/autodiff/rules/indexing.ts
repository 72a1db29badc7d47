/**
 * Operators that pick elements or put them somewhere. What was picked flows back to where it was picked from, and is
 * added where it was picked more than once; what was put flows back from where it lies.
 */
import { elementCount, type Shape } from "../../../tensor/shape.js";
import { int64 } from "../../../tensor/tensor.js";
import type { Context, Rule } from "../context.js";

/** The gradient of picks along one axis. `indices` has the shape of `dy`; negative ones count from the end. */
function addAt(c: Context, shape: Shape, axis: number, indices: string, dy: string): string {
  return c.op("ScatterElements", [c.filled(shape, 0), indices, dy], { axis, reduction: "add" });
}

/** A number of cuts, each along an axis: reversed back, spread out by the step, padded to the whole. */
const slice: Rule = (c, dy) => [
  () => {
    const shape = c.shape();
    const rank = shape.length;
    const [starts, ends] = [c.numbers(1), c.numbers(2)];
    const axes = c.has(3) ? c.numbers(3) : starts.map((_, place) => place);
    const steps = c.has(4) ? c.numbers(4) : starts.map(() => 1);
    let gradient = dy;
    const sizes = [...c.outputShape()];
    const pads = new Array<number>(2 * rank).fill(0);
    axes.forEach((given, place) => {
      const axis = given < 0 ? given + rank : given;
      const [size, count, step] = [shape[axis] ?? 1, sizes[axis] ?? 0, steps[place] ?? 1];
      const start = firstOf(starts[place] ?? 0, size, step);
      if (count === 0 || ends[place] === undefined) return;
      if (step < 0) gradient = c.builder.slice(gradient, axis, -1, -(2 ** 31), -1);
      const stride = Math.abs(step);
      const lowest = step < 0 ? start + (count - 1) * step : start;
      let length = count;
      if (stride > 1) {
        // Zeros between the elements: a new axis behind, padded, and folded into the old one.
        const parted = [...sizes.slice(0, axis), count, 1, ...sizes.slice(axis + 1)];
        const behind = parted.map((_, at) => (at === axis + 1 ? stride - 1 : 0));
        length = (count - 1) * stride + 1;
        sizes[axis] = count * stride;
        gradient = c.builder.pad(c.builder.reshape(gradient, parted), [...parted.map(() => 0), ...behind]);
        gradient = c.builder.slice(c.builder.reshape(gradient, sizes), axis, 0, length);
      }
      pads[axis] = lowest;
      pads[axis + rank] = size - lowest - length;
      sizes[axis] = length;
    });
    if (elementCount(c.outputShape()) === 0) return c.filled(shape, 0);
    return c.builder.pad(gradient, pads);
  },
];

/** The first place that a cut takes: counted from the end when negative, and kept inside. */
function firstOf(start: number, size: number, step: number): number {
  const place = start < 0 ? start + size : start;
  return Math.max(0, Math.min(step < 0 ? size - 1 : size, place));
}

const concat: Rule = (c, dy) => {
  const axis = c.axis(0);
  const sizes = c.node.input.map((_, place) => c.shape(place)[axis] ?? 0);
  return sizes.map((size, place) => () => {
    const start = sizes.slice(0, place).reduce((sum, each) => sum + each, 0);
    return c.builder.slice(dy, axis, start, start + size);
  });
};

const split: Rule = (c) => [
  () =>
    c.op(
      "Concat",
      c.node.output.map((_, place) => c.dy(place)),
      { axis: c.axis(0) },
    ),
];

/** One index is a slice; several are added up along the axis. */
const gather: Rule = (c, dy) => [
  () => {
    const shape = c.shape();
    const axis = c.axis(0);
    const [before, size, after] = [shape.slice(0, axis), shape[axis] ?? 1, shape.slice(axis + 1)];
    const count = elementCount(c.shape(1));
    const picked = [...before, count, ...after];
    const flat = c.builder.reshape(dy, picked);
    const only = c.constant(1);
    if (count === 1 && only) {
      const place = firstOf(only[0] ?? 0, size, 1);
      const pads = [...shape, ...shape].map(() => 0);
      pads[axis] = place;
      pads[axis + shape.length] = size - 1 - place;
      return c.builder.pad(flat, pads);
    }
    const indices = c.builder.reshape(c.x(1), [count, ...after.map(() => 1)]);
    return addAt(c, shape, axis, c.builder.expand(indices, picked), flat);
  },
];

const gatherElements: Rule = (c, dy) => [() => addAt(c, c.shape(), c.axis(0), c.x(1), dy)];

/** Rows of the data by a tuple of indices each: tuples become one number, rows one axis. */
const gatherNd: Rule = (c, dy) => [
  () => {
    const [shape, indexShape] = [c.shape(), c.shape(1)];
    const batch = c.int("batch_dims", 0);
    const length = indexShape.at(-1) ?? 0;
    const leading = shape.slice(0, batch);
    const indexed = shape.slice(batch, batch + length);
    const row = elementCount(shape.slice(batch + length));
    const tuples = indexShape.slice(batch, -1);
    const sizes = c.builder.constant(int64([length], indexed));
    const strides = c.builder.constant(
      int64(
        [length],
        indexed.map((_, at) => elementCount(indexed.slice(at + 1))),
      ),
    );
    const zero = c.builder.constant(int64([], [0]));
    const isNegative = c.builder.op("Less", [c.x(1), zero]);
    const positive = c.builder.op("Where", [isNegative, c.builder.op("Add", [c.x(1), sizes]), c.x(1)]);
    const places = c.builder.reduce(
      "ReduceSum",
      c.builder.op("Mul", [positive, strides]),
      [indexShape.length - 1],
      false,
    );
    const batches = elementCount(leading);
    const perBatch = elementCount(tuples);
    const offsets = c.builder.constant(
      int64(
        [batches, 1],
        Array.from({ length: batches }, (_, at) => at * elementCount(indexed)),
      ),
    );
    const all = c.builder.op("Add", [c.builder.reshape(places, [batches, perBatch]), offsets]);
    const count = batches * perBatch;
    const rows = c.builder.expand(c.builder.reshape(all, [count, 1]), [count, row]);
    const flat: Shape = [batches * elementCount(indexed), row];
    return c.builder.reshape(addAt(c, flat, 0, rows, c.builder.reshape(dy, [count, row])), shape);
  },
];

/** Data where nothing was put over it (everywhere, if the updates were added), updates from where they were put. */
const scatterElements: Rule = (c, dy) => {
  const axis = c.axis(0);
  return [
    () =>
      c.text("reduction", "none") === "add"
        ? dy
        : c.op("ScatterElements", [dy, c.x(1), c.filled(c.shape(2), 0)], { axis }),
    undefined,
    () => c.op("GatherElements", [dy, c.x(1)], { axis }),
  ];
};

const scatterNd: Rule = (c, dy) => [
  () =>
    c.text("reduction", "none") === "add" ? dy : c.op("ScatterND", [dy, c.x(1), c.filled(c.shape(2), 0)]),
  undefined,
  () => c.op("GatherND", [dy, c.x(1)]),
];

/** The values that were kept flow back to where they were. */
const topK: Rule = (c, dy) => [() => addAt(c, c.shape(), c.axis(-1), c.optional(1), dy)];

const reverseSequence: Rule = (c, dy) => [
  () =>
    c.op("ReverseSequence", [dy, c.x(1)], {
      batch_axis: c.int("batch_axis", 1),
      time_axis: c.int("time_axis", 0),
    }),
];

const trilu: Rule = (c, dy) => [
  () => c.op("Trilu", c.has(1) ? [dy, c.x(1)] : [dy], { upper: c.int("upper", 1) }),
];

/** Rules of the standard operator set. */
export const INDEXING: Readonly<Record<string, Rule>> = {
  Concat: concat,
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherNd,
  ReverseSequence: reverseSequence,
  ScatterElements: scatterElements,
  ScatterND: scatterNd,
  Slice: slice,
  Split: split,
  TopK: topK,
  Trilu: trilu,
};
