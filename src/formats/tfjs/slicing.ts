/** Parts of axes: what TensorFlow means by begin, end and stride, and the ONNX Slice that does it. */
import type { Dimension } from "../../tensor/shape.js";
import type { GraphBuilder } from "./builder.js";
import { derived, sum } from "./dimension.js";
import { malformed } from "./json.js";
import { knownElements } from "./known.js";
import { size, storedAxis, type Value } from "./value.js";

/** Stands for the end of an axis in ONNX' Slice, whatever its size. */
export const AXIS_END = 2 ** 31 - 1;
/** Stands for the place before the first element when a slice runs backwards. */
export const AXIS_START = -(2 ** 31);

/** Part of one axis as ONNX' Slice takes it. */
export interface AxisRange {
  readonly axis: number;
  readonly start: number;
  readonly end: number;
  readonly step: number;
  /** Number of elements in the part. */
  readonly size: Dimension;
}

/**
 * Part of an axis.
 * @param start the first index, counted from the end when negative; undefined for the beginning
 * @param end the index behind the last one, counted likewise; undefined for the end
 * @throws PolyheadError MODEL_MALFORMED when the step is zero
 */
export function axisRange(
  value: Value,
  axis: number,
  start: number | undefined,
  end: number | undefined,
  step = 1,
): AxisRange {
  if (step === 0) throw malformed("A slice has the step 0.");
  const full = size(value, axis);
  if (typeof full === "number") {
    const [least, most] = step > 0 ? [0, full] : [-1, full - 1];
    const place = (index: number) => Math.min(Math.max(index < 0 ? index + full : index, least), most);
    const from = start === undefined ? (step > 0 ? least : most) : place(start);
    const to = end === undefined ? (step > 0 ? most : least) : place(end);
    const count = Math.max(0, Math.ceil((to - from) / step));
    if (count === 0) return { axis, start: 0, end: 0, step: 1, size: 0 };
    return { axis, start: from, end: to < 0 ? AXIS_START : to, step, size: count };
  }
  const from = start ?? (step > 0 ? 0 : AXIS_END);
  const to = end ?? (step > 0 ? AXIS_END : AXIS_START);
  return { axis, start: from, end: to, step, size: namedSize(full, start ?? 0, end, step) };
}

function namedSize(full: string, start: number, end: number | undefined, step: number): Dimension {
  if (step === -1 && start === 0 && end === undefined) return full;
  if (step === 1 && start >= 0 && (end === undefined || end < 0)) return sum(full, (end ?? 0) - start);
  if (step === 1 && start < 0 && end === undefined) return -start;
  return derived("slice", full, start, end ?? "end", step);
}

/** Part of one axis that holds a single element. */
export function singleElement(value: Value, axis: number, index: number): AxisRange {
  return { ...axisRange(value, axis, index, index === -1 ? undefined : index + 1), size: 1 };
}

/** The part of a value that lies in all of the ranges; axes without a range are kept whole. */
export function slice(builder: GraphBuilder, value: Value, ranges: readonly AxisRange[]): Value {
  const cut = ranges.filter((range) => range.step !== 1 || range.size !== size(value, range.axis));
  if (cut.length === 0) return value;
  const shape = value.shape.map((full, axis) => cut.find((range) => range.axis === axis)?.size ?? full);
  const starts = builder.int64s(cut.map((range) => range.start));
  const ends = builder.int64s(cut.map((range) => range.end));
  const axes = builder.int64s(cut.map((range) => storedAxis(value, range.axis)));
  const steps = cut.every((range) => range.step === 1)
    ? []
    : [builder.int64s(cut.map((range) => range.step))];
  const { dtype, layout } = value;
  const part = builder.op("Slice", [value, starts, ends, axes, ...steps], {}, { dtype, shape, layout });
  return builder.withKnown(part, knownPart(value, cut));
}

/** Elements of a part of a list. */
function knownPart(value: Value, ranges: readonly AxisRange[]): Dimension[] | undefined {
  const known = value.shape.length === 1 ? knownElements(value) : undefined;
  const [range, ...more] = ranges;
  if (!known || !range || more.length > 0 || typeof range.size === "string") return undefined;
  return Array.from({ length: range.size }, (_, at) => known[range.start + at * range.step] ?? 0);
}
