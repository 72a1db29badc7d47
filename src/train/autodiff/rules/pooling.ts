/** Poolings: a mean gives each of its elements an equal share, a maximum gives all to the element that it was. */
import { elementCount, type Shape } from "../../../tensor/shape.js";
import type { Context, Rule } from "../context.js";
import { spread, type Windows, windowsOf } from "./window.js";

function poolingWindows(c: Context): Windows {
  return windowsOf(c, c.ints("kernel_shape") ?? [], c.shape().slice(2), c.outputShape().slice(2));
}

/** Each element of dy in all places of its window, overlaps added. */
function spreadEvenly(c: Context, dy: string, windows: Windows): string {
  const channels = c.shape()[1] ?? 1;
  return spread(c, dy, c.filled([channels, 1, ...windows.kernel], 1), windows, channels);
}

/** The number of elements that count in each window: those of the image and, if padding counts, of its padding. */
function averagedElements(c: Context, windows: Windows): { shape: Shape; counts: number[] } {
  const withPadding = c.int("count_include_pad", 0) !== 0;
  const [sizes, places] = [c.shape().slice(2), c.outputShape().slice(2)];
  const isSame = c.text("auto_pad", "NOTSET").startsWith("SAME");
  const given = isSame ? windows.pads : (c.ints("pads") ?? []);
  const perAxis = sizes.map((size, axis) => {
    const begin = windows.pads[axis] ?? 0;
    const end = given[axis + sizes.length] ?? 0;
    const [from, to] = withPadding ? [-begin, size + end] : [0, size];
    return Array.from({ length: places[axis] ?? 1 }, (_, place) => {
      const start = place * (windows.strides[axis] ?? 1) - begin;
      const at = Array.from(
        { length: windows.kernel[axis] ?? 1 },
        (_, step) => start + step * (windows.dilations[axis] ?? 1),
      );
      return at.filter((position) => position >= from && position < to).length;
    });
  });
  const counts = perAxis.reduce((all, axis) => all.flatMap((a) => axis.map((b) => a * b)), [1]);
  return { shape: [1, 1, ...places], counts };
}

const averagePool: Rule = (c, dy) => [
  () => {
    const windows = poolingWindows(c);
    const { shape, counts } = averagedElements(c, windows);
    const shares = counts.map((count) => 1 / Math.max(1, count));
    const isEven = shares.every((share) => share === shares[0]);
    return spreadEvenly(c, c.mul(dy, isEven ? (shares[0] ?? 1) : c.floats(shape, shares)), windows);
  },
];

/**
 * The runtime says where each maximum was (of equal ones the first); what comes from several windows is added. Where
 * windows are apart and inside there is nothing to add, and the runtime's own inverse does it, twice as fast.
 */
const maxPool: Rule = (c, dy) => [
  () => {
    const { kernel, strides, dilations, pads } = poolingWindows(c);
    const isApart = kernel.every((size, axis) => size <= (strides[axis] ?? 1) && dilations[axis] === 1);
    if (isApart && pads.every((pad) => pad === 0) && c.dtype === "float32") {
      const attributes = { kernel_shape: kernel, strides };
      return c.op("MaxUnpool", [dy, c.optional(1), c.builder.ints(c.shape())], attributes);
    }
    const [count, places] = [elementCount(c.shape()), elementCount(c.outputShape())];
    const added = c.op(
      "ScatterElements",
      [c.filled([count], 0), c.builder.reshape(c.optional(1), [places]), c.builder.reshape(dy, [places])],
      { axis: 0, reduction: "add" },
    );
    return c.builder.reshape(added, c.shape());
  },
];

/** (sum |x|^p)^(1/p): sign(x) |x|^(p - 1) y^(1 - p); a window of zeros gives nothing. */
const normPool =
  (share: (c: Context, dy: string) => string): Rule =>
  (c, dy) => [
    () => {
      const p = c.int("p", 2);
      const isZero = c.op("Equal", [c.y(), 0]);
      const scale = c.select(isZero, 0, c.op("Pow", [c.select(isZero, 1, c.y()), 1 - p]));
      const shared = share(c, c.mul(dy, scale));
      if (p === 2) return c.mul(c.x(), shared);
      const power = c.op("Pow", [c.op("Abs", [c.x()]), p - 1]);
      return c.mul(c.mul(c.op("Sign", [c.x()]), power), shared);
    },
  ];

const globalMaxPool: Rule = (c, dy) => [
  () => {
    const isMaximum = c.where("Equal", c.x(), c.y());
    const axes = c.shape().flatMap((_, axis) => (axis < 2 ? [] : [axis]));
    return c.mul(isMaximum, c.div(dy, c.sum(isMaximum, axes)));
  },
];

/** Rules of the standard operator set. */
export const POOLING: Readonly<Record<string, Rule>> = {
  AveragePool: averagePool,
  GlobalAveragePool: (c, dy) => [
    () => c.builder.expand(c.mul(dy, 1 / elementCount(c.shape().slice(2))), c.shape()),
  ],
  GlobalLpPool: normPool((_, dy) => dy),
  GlobalMaxPool: globalMaxPool,
  LpPool: normPool((c, dy) => spreadEvenly(c, dy, poolingWindows(c))),
  MaxPool: maxPool,
};
