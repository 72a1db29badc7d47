/**
 * Where the windows of convolutions and poolings lie, from the shapes on both sides. The side that windows slide
 * over is called the wide one, the side with one element a window the narrow one; a transposed convolution has its
 * wide side behind it.
 */
import type { Shape } from "../../../tensor/shape.js";
import type { Context } from "../context.js";

/** Windows along each spatial axis. */
export interface Windows {
  readonly kernel: Shape;
  readonly strides: Shape;
  readonly dilations: Shape;
  /** Padding of the wide side, as the windows really use it: begins, then ends. */
  readonly pads: Shape;
  /** Elements at the end of the wide side that no window touches. */
  readonly rest: Shape;
}

/**
 * The windows of a node.
 * @param wide spatial sizes of the side that windows slide over
 * @param narrow spatial sizes of the other side
 * @param padding begins of the padding where no attribute says them
 */
export function windowsOf(
  c: Context,
  kernel: Shape,
  wide: Shape,
  narrow: Shape,
  padding?: (axis: number, total: number) => number,
): Windows {
  const strides = c.ints("strides") ?? kernel.map(() => 1);
  const dilations = c.ints("dilations") ?? kernel.map(() => 1);
  const given = c.ints("pads") ?? [];
  const automatic = c.text("auto_pad", "NOTSET");
  // From the first element of the first window to the last of the last.
  const span = kernel.map((size, axis) => {
    const reach = (size - 1) * (dilations[axis] ?? 1) + 1;
    return ((narrow[axis] ?? 1) - 1) * (strides[axis] ?? 1) + reach;
  });
  const begins = span.map((length, axis) => {
    const total = Math.max(0, length - (wide[axis] ?? 1));
    if (padding) return padding(axis, total);
    if (automatic === "SAME_UPPER") return Math.floor(total / 2);
    if (automatic === "SAME_LOWER") return Math.ceil(total / 2);
    return automatic === "VALID" ? 0 : (given[axis] ?? 0);
  });
  const ends = span.map((length, axis) => length - (wide[axis] ?? 1) - (begins[axis] ?? 0));
  return {
    kernel,
    strides,
    dilations,
    pads: [...begins, ...ends.map((end) => Math.max(0, end))],
    rest: ends.map((end) => Math.max(0, -end)),
  };
}

/** Sums what lies in windows: the convolution with weights [narrow channels, wide channels / group, ...kernel]. */
export function gather(
  c: Context,
  wide: string,
  weights: string,
  { kernel, strides, dilations, pads, rest }: Windows,
  group: number,
  narrow: Shape,
): string {
  const made = c.op("Conv", [wide, weights], { kernel_shape: kernel, strides, dilations, pads, group });
  return rest.reduce(
    (value, size, axis) =>
      size < (strides[axis] ?? 1) ? value : c.builder.slice(value, axis + 2, 0, narrow[axis] ?? 1),
    made,
  );
}

/** The transposed of {@link gather}: spreads each element of the narrow side over its window. */
export function spread(
  c: Context,
  narrow: string,
  weights: string,
  { kernel, strides, dilations, pads, rest }: Windows,
  group: number,
): string {
  return c.op("ConvTranspose", [narrow, weights], {
    kernel_shape: kernel,
    strides,
    dilations,
    pads,
    group,
    output_padding: rest,
  });
}
