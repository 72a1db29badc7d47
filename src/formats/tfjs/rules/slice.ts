/** Slices, whose bounds may be constants (then any layout will do) or computed at run time. */
import { type Dimension, isConcrete } from "../../../tensor/shape.js";
import { addAxes, dropAxes } from "../axes.js";
import type { GraphBuilder } from "../builder.js";
import { derived } from "../dimension.js";
import { malformed } from "../json.js";
import type { Call, Rules } from "../rule.js";
import { AXIS_END, AXIS_START, type AxisRange, axisRange, singleElement, slice } from "../slicing.js";
import { checkListLength, unsupported } from "../unsupported.js";
import { axisIndex, size, type Value } from "../value.js";

function plainSlice(call: Call): Value {
  const value = call.input(0);
  const [begin, sizes] = [call.known(1), call.known(2)];
  if (!begin || !sizes || !isConcrete(begin) || !isConcrete(sizes)) return slicedAtRunTime(call);
  const ranges = begin.map((start, axis) => {
    const count = sizes[axis] ?? -1;
    return axisRange(
      value,
      axisIndex(axis, value.shape.length),
      start,
      count < 0 ? undefined : start + count,
    );
  });
  return slice(call.builder, value, ranges);
}

/** Slice with begin or size computed at run time. */
function slicedAtRunTime(call: Call): Value {
  const { builder } = call;
  const value = builder.plain(call.input(0));
  const starts = builder.cast(call.input(1), "int64");
  const counts = builder.cast(call.input(2), "int64");
  const isOpen = builder.elementwise("Less", [counts, builder.int64s([0])], "bool");
  const ends = builder.elementwise("Add", [starts, counts], "int64");
  const closed = builder.elementwise("Where", [isOpen, builder.int64s([AXIS_END]), ends], "int64");
  const sizes = call.known(2);
  const shape = value.shape.map((_, axis): Dimension => {
    const known = sizes?.[axis];
    return known === undefined || known === -1 ? derived("slice", call.name, axis) : known;
  });
  return builder.op("Slice", [value, starts, closed], {}, { dtype: value.dtype, shape });
}

/** What StridedSlice's sparse lists and bit masks say about the axes. */
interface StridedPlan {
  readonly ranges: readonly AxisRange[];
  /** Axes of the input that are taken away. */
  readonly dropped: readonly number[];
  /** Axes of the result that are new. */
  readonly added: readonly number[];
}

function mask(call: Call, name: string): (index: number) => boolean {
  const bits = call.attributes.int(name, 0);
  return (index) => index < 31 && ((bits >> index) & 1) === 1;
}

function stridedPlan(
  call: Call,
  value: Value,
  begin: readonly number[],
  end: readonly number[],
  strides: readonly number[],
): StridedPlan {
  const isBeginOpen = mask(call, "begin_mask");
  const isEndOpen = mask(call, "end_mask");
  const isEllipsis = mask(call, "ellipsis_mask");
  const isNew = mask(call, "new_axis_mask");
  const isDropped = mask(call, "shrink_axis_mask");
  const ranges: AxisRange[] = [];
  const dropped: number[] = [];
  const added: number[] = [];
  let [axis, resultAxis] = [0, 0];
  for (const [index, start] of begin.entries()) {
    if (isEllipsis(index)) {
      const named = begin.filter((_, later) => later > index && !isNew(later)).length;
      const skipped = value.shape.length - named - axis;
      axis += skipped;
      resultAxis += skipped;
    } else if (isNew(index)) {
      added.push(resultAxis++);
    } else if (isDropped(index)) {
      axisIndex(axis, value.shape.length);
      ranges.push(singleElement(value, axis, start));
      dropped.push(axis++);
    } else {
      axisIndex(axis, value.shape.length);
      const from = isBeginOpen(index) ? undefined : start;
      ranges.push(
        axisRange(value, axis++, from, isEndOpen(index) ? undefined : end[index], strides[index] ?? 1),
      );
      resultAxis++;
    }
  }
  return { ranges, dropped, added };
}

function stridedSlice(call: Call): Value {
  const { builder } = call;
  const value = call.input(0);
  const [begin, end] = [call.known(1), call.known(2)];
  const strides = call.numbers(3, "the strides of a slice");
  if (!begin || !end || !isConcrete(begin) || !isConcrete(end)) return stridedSliceAtRunTime(call, strides);
  const { ranges, dropped, added } = stridedPlan(call, value, begin, end, strides);
  return addAxes(builder, dropAxes(builder, slice(builder, value, ranges), dropped), added);
}

/** StridedSlice with bounds computed at run time, over the first axes. */
function stridedSliceAtRunTime(call: Call, strides: readonly number[]): Value {
  const { builder, attributes } = call;
  if (attributes.int("ellipsis_mask", 0) !== 0 || attributes.int("new_axis_mask", 0) !== 0) {
    throw unsupported("a slice with bounds computed at run time and an ellipsis or a new axis");
  }
  const value = builder.plain(call.input(0));
  const chosen = (name: string) => {
    const isSet = mask(call, name);
    return strides.map((_, index) => isSet(index));
  };
  const bits = (flags: readonly boolean[]) => builder.cast(builder.int64s(flags.map(Number)), "bool");
  const where = (flags: readonly boolean[], yes: Value, no: Value) =>
    flags.includes(true) ? builder.elementwise("Where", [bits(flags), yes, no], "int64") : no;
  const open = (forward: number, backward: number) =>
    builder.int64s(strides.map((stride) => (stride > 0 ? forward : backward)));
  const [isBeginOpen, isEndOpen] = [chosen("begin_mask"), chosen("end_mask")];
  const isDropped = chosen("shrink_axis_mask");

  const begin = builder.cast(call.input(1), "int64");
  const starts = where(isBeginOpen, open(0, AXIS_END), begin);
  const next = builder.elementwise("Add", [begin, builder.int64s([1])], "int64");
  const isLast = builder.elementwise("Equal", [next, builder.int64s([0])], "bool");
  const afterOne = builder.elementwise("Where", [isLast, builder.int64s([AXIS_END]), next], "int64");
  const ends = where(
    isDropped,
    afterOne,
    where(isEndOpen, open(AXIS_END, AXIS_START), builder.cast(call.input(2), "int64")),
  );
  const shape = value.shape.map((full, axis): Dimension => {
    if (isDropped[axis]) return 1;
    const isWhole = axis >= strides.length || (isBeginOpen[axis] && isEndOpen[axis] && strides[axis] === 1);
    return isWhole ? full : derived("slice", call.name, axis);
  });
  const axes = builder.int64s(strides.map((_, axis) => axisIndex(axis, value.shape.length)));
  const sliced = builder.op(
    "Slice",
    [value, starts, ends, axes, builder.int64s(strides)],
    {},
    { dtype: value.dtype, shape },
  );
  return dropAxes(
    builder,
    sliced,
    isDropped.flatMap((drop, axis) => (drop ? [axis] : [])),
  );
}

function reverse(call: Call): Value {
  const value = call.input(0);
  const { length: rank } = value.shape;
  const given = call.numbers(1, "the axes to reverse");
  const axes = call.op === "Reverse" ? given.flatMap((flag, axis) => (flag ? [axis] : [])) : given;
  const ranges = axes.map((axis) => axisRange(value, axisIndex(axis, rank), undefined, undefined, -1));
  return slice(call.builder, value, ranges);
}

function split(call: Call): readonly Value[] {
  const isEven = call.op === "Split";
  const value = call.input(isEven ? 1 : 0);
  const axis = axisIndex(call.number(isEven ? 0 : 2, "the axis of a split"), value.shape.length);
  const full = size(value, axis);
  if (typeof full === "string") throw unsupported("a split of an axis whose size is known at run time only");
  if (isEven) {
    const parts = call.attributes.int("num_split", 1);
    if (parts < 1 || full % parts !== 0)
      throw malformed(`An axis of ${full} cannot be split into ${parts} parts.`);
    checkListLength(parts, "a split");
    return splitAxis(call.builder, value, axis, Array<number>(parts).fill(full / parts));
  }
  const sizes = call.numbers(1, "the sizes of a split");
  const stated = sizes.reduce((sum, each) => sum + Math.max(each, 0), 0);
  return splitAxis(
    call.builder,
    value,
    axis,
    sizes.map((each) => (each < 0 ? full - stated : each)),
  );
}

function splitAxis(builder: GraphBuilder, value: Value, axis: number, sizes: readonly number[]): Value[] {
  let start = 0;
  return sizes.map((count) => {
    const range = axisRange(value, axis, start, start + count);
    start += count;
    return slice(builder, value, [range]);
  });
}

function unpack(call: Call): readonly Value[] {
  return unpacked(call, call.input(0), call.attributes.int("axis", 0));
}

/** The parts of a value along one axis, without that axis. */
export function unpacked({ builder }: Call, value: Value, along: number): readonly Value[] {
  const axis = axisIndex(along, value.shape.length);
  const full = size(value, axis);
  if (typeof full === "string") throw unsupported("unpacking an axis whose size is known at run time only");
  checkListLength(full, "unpacking");
  return splitAxis(builder, value, axis, Array<number>(full).fill(1)).map((part) =>
    dropAxes(builder, part, [axis]),
  );
}

/** Rules for parts of values. */
export const sliceRules: Rules = {
  Slice: plainSlice,
  StridedSlice: stridedSlice,
  Reverse: reverse,
  ReverseV2: reverse,
  Split: split,
  SplitV: split,
  Unpack: unpack,
};
