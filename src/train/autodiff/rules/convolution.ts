/**
 * Convolutions. With respect to the input, the gradient of a convolution is the transposed convolution of dy with the
 * same weights, and the other way round. With respect to the weights it is a convolution again: each weight
 * met input and dy at all positions and in all images, so that images take the place of channels, dy that of the
 * weights, and strides and dilations change places.
 */
import { elementCount, type Shape } from "../../../tensor/shape.js";
import type { Context, Rule } from "../context.js";
import { gather, spread, type Windows, windowsOf } from "./window.js";

const biasGradient = (c: Context, dy: string) => () => {
  const axes = c.outputShape().flatMap((_, axis) => (axis === 1 ? [] : [axis]));
  return c.sum(dy, axes, false);
};

const convolution: Rule = (c, dy) => {
  const group = c.int("group", 1);
  const windows = windowsOf(c, c.shape(1).slice(2), c.shape().slice(2), c.outputShape().slice(2));
  return [
    () => spread(c, dy, c.x(1), windows, group),
    () => weightGradient(c, [c.x(), c.shape()], [dy, c.outputShape()], windows, group),
    biasGradient(c, dy),
  ];
};

const transposedConvolution: Rule = (c, dy) => {
  const group = c.int("group", 1);
  const kernel = c.shape(1).slice(2);
  const [wide, narrow] = [c.outputShape().slice(2), c.shape().slice(2)];
  const upper = c.text("auto_pad", "NOTSET") === "SAME_UPPER";
  const extra = c.ints("output_padding") ?? [];
  const isAutomatic = c.text("auto_pad", "NOTSET").startsWith("SAME") || c.hasAttribute("output_shape");
  const windows = windowsOf(
    c,
    kernel,
    wide,
    narrow,
    isAutomatic
      ? (axis, total) => {
          const all = total + (extra[axis] ?? 0);
          return upper ? Math.floor(all / 2) : Math.ceil(all / 2);
        }
      : undefined,
  );
  return [
    () => gather(c, dy, c.x(1), windows, group, narrow),
    () => weightGradient(c, [dy, c.outputShape()], [c.x(), c.shape()], windows, group),
    biasGradient(c, dy),
  ];
};

/**
 * Gradient with respect to weights [narrow channels, wide channels / group, ...kernel].
 * @param wide [images, wide channels, ...sizes]
 * @param narrow [images, narrow channels, ...sizes]
 */
function weightGradient(
  c: Context,
  [wide, wideShape]: readonly [string, Shape],
  [narrow, narrowShape]: readonly [string, Shape],
  windows: Windows,
  group: number,
): string {
  const [images = 1, channels = 1, ...sizes] = wideShape;
  const [, filters = 1, ...places] = narrowShape;
  const { kernel, strides, dilations, pads, rest } = windows;
  const isPointwise = [...kernel, ...strides].every((size) => size === 1) && pads.every((size) => size === 0);
  if (isPointwise && group === 1) {
    const area = elementCount(sizes);
    const left = c.builder.reshape(narrow, [images, filters, area]);
    const right = c.builder.transpose(c.builder.reshape(wide, [images, channels, area]), [0, 2, 1]);
    const each = c.op("MatMul", [left, right]);
    return c.builder.reshape(images === 1 ? each : c.sum(each, [0], false), [filters, channels, ...kernel]);
  }
  const spatial = sizes.map((_, axis) => axis + 3);
  const own = channels / group;
  // Channels of one group become images, images become channels, group by group.
  const turnedWide = c.builder.reshape(
    c.builder.transpose(c.builder.reshape(wide, [images, group, own, ...sizes]), [2, 1, 0, ...spatial]),
    [own, group * images, ...sizes],
  );
  const turnedNarrow = c.builder.transpose(narrow, [1, 0, ...sizes.map((_, axis) => axis + 2)]);
  const made = c.op("Conv", [turnedWide, turnedNarrow], {
    kernel_shape: places,
    strides: dilations,
    dilations: strides,
    pads,
    group,
  });
  const cropped = kernel.reduce(
    (value, size, axis) =>
      (rest[axis] ?? 0) < (dilations[axis] ?? 1) ? value : c.builder.slice(value, axis + 2, 0, size),
    made,
  );
  return c.builder.transpose(cropped, [1, 0, ...sizes.map((_, axis) => axis + 2)]);
}

/** Rules of the standard operator set. */
export const CONVOLUTION: Readonly<Record<string, Rule>> = {
  Conv: convolution,
  ConvTranspose: transposedConvolution,
};
