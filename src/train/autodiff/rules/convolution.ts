/**
 * Convolutions. With respect to the input, the gradient of a convolution is the transposed convolution of dy with the
 * same weights, and the other way round. Gradients with respect to weights have a file of their own.
 */
import type { Context, Rule } from "../context.js";
import { weightGradient } from "./weight-gradient.js";
import { gather, spread, windowsOf } from "./window.js";

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

/** Rules of the standard operator set. */
export const CONVOLUTION: Readonly<Record<string, Rule>> = {
  Conv: convolution,
  ConvTranspose: transposedConvolution,
};
