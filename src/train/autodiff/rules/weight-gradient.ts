/**
 * Gradients with respect to the weights of convolutions. Each weight met the wide side and the narrow one (see
 * `window.ts`) at all positions and in all images. That is a convolution again: images take the place of channels,
 * the narrow side that of the weights, and strides and dilations change places. For most kernels products of
 * matrices are faster, because the runtime is made for small kernels.
 */
import { elementCount, type Shape } from "../../../tensor/shape.js";
import type { Context } from "../context.js";
import { isFitForTiles, productsOfTiles } from "./tiles.js";
import type { Windows } from "./window.js";

/**
 * Gradient with respect to weights [narrow channels, wide channels / group, ...kernel].
 * @param wide [images, wide channels, ...sizes]
 * @param narrow [images, narrow channels, ...sizes]
 */
export function weightGradient(
  c: Context,
  [wide, wideShape]: readonly [string, Shape],
  [narrow, narrowShape]: readonly [string, Shape],
  windows: Windows,
  group: number,
): string {
  const [images = 1, channels = 1, ...sizes] = wideShape;
  const [, filters = 1, ...places] = narrowShape;
  const { kernel, strides, dilations, pads } = windows;
  const isPointwise = kernel.every((size) => size === 1) && pads.every((size) => size === 0);
  if (isPointwise && group === 1) {
    const area = elementCount(places);
    const met = everyStep(c, wide, places, strides);
    const left = c.builder.reshape(narrow, [images, filters, area]);
    const right = c.builder.transpose(c.builder.reshape(met, [images, channels, area]), [0, 2, 1]);
    const each = c.op("MatMul", [left, right]);
    return c.builder.reshape(images === 1 ? each : c.sum(each, [0], false), [filters, channels, ...kernel]);
  }
  const own = channels / group;
  if (group === 1 && isFitForTiles(windows, Math.min(channels, filters), places))
    return productsOfTiles(c, [wide, wideShape], [narrow, narrowShape], windows);
  if (group === 1 && channels >= LEAST_CHANNELS && elementCount(kernel) <= MOST_SHIFTS)
    return productsOfShifts(c, [wide, wideShape], [narrow, narrowShape], windows);
  if (own === 1 && filters === channels)
    return perChannel(c, [wide, wideShape], [narrow, narrowShape], windows);
  const spatial = sizes.map((_, axis) => axis + 3);
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
  return c.builder.transpose(withoutRest(c, made, windows), [1, 0, ...sizes.map((_, axis) => axis + 2)]);
}

/** Elements of kernels only: where the wide side has a rest, one element more may have been made. */
function withoutRest(c: Context, made: string, { kernel, dilations, rest }: Windows): string {
  return kernel.reduce(
    (value, size, axis) =>
      (rest[axis] ?? 0) < (dilations[axis] ?? 1) ? value : c.builder.slice(value, axis + 2, 0, size),
    made,
  );
}

/** What windows of one element meet. */
function everyStep(c: Context, wide: string, places: Shape, strides: Shape): string {
  const ends = places.map((size, axis) => (size - 1) * (strides[axis] ?? 1) + 1);
  if (strides.every((stride) => stride === 1)) return wide;
  const ints = [places.map(() => 0), ends, places.map((_, axis) => axis + 2), strides];
  return c.builder.op("Slice", [wide, ...ints.map((each) => c.builder.ints(each))]);
}

/** Kernels of more elements are not taken apart. */
const MOST_SHIFTS = 49;
/** With fewer channels, matrix products are too thin to be fast. */
const LEAST_CHANNELS = 16;

/** The wide side as each element of the kernel meets it, padding included: one piece for each. */
function shifts(c: Context, padded: string, places: Shape, windows: Windows): string[] {
  const { kernel, strides, dilations } = windows;
  const lists = [
    places.map((_, axis) => axis + 2),
    ...(strides.every((each) => each === 1) ? [] : [strides]),
  ];
  return Array.from({ length: elementCount(kernel) }, (_, at) => {
    const offsets = kernel.map((size, axis) => {
      const inner = elementCount(kernel.slice(axis + 1));
      return (Math.floor(at / inner) % size) * (dilations[axis] ?? 1);
    });
    const ends = offsets.map((offset, axis) => offset + ((places[axis] ?? 1) - 1) * (strides[axis] ?? 1) + 1);
    return c.builder.op("Slice", [padded, ...[offsets, ends, ...lists].map((each) => c.builder.ints(each))]);
  });
}

function padded(c: Context, wide: string, { pads, kernel }: Windows): string {
  const [begins, ends] = [pads.slice(0, kernel.length), pads.slice(kernel.length)];
  return c.builder.pad(wide, [0, 0, ...begins, 0, 0, ...ends]);
}

/** For each element of the kernel one product of matrices over all images and positions: up to 1.9 times as fast. */
function productsOfShifts(
  c: Context,
  [wide, [, channels = 1]]: readonly [string, Shape],
  [narrow, narrowShape]: readonly [string, Shape],
  windows: Windows,
): string {
  const [images = 1, filters = 1, ...places] = narrowShape;
  const perm = [1, 0, ...places.map((_, axis) => axis + 2)];
  const met = images * elementCount(places);
  const left = c.builder.reshape(c.builder.transpose(narrow, perm), [filters, met]);
  const all = padded(c, c.builder.transpose(wide, perm), windows);
  const products = shifts(c, all, places, windows).map((piece) => {
    const right = c.builder.reshape(piece, [channels, met]);
    return c.builder.reshape(c.op("Gemm", [left, right], { transB: 1 }), [filters, channels, 1]);
  });
  const joined = c.builder.op("Concat", products, { axis: 2 });
  return c.builder.reshape(joined, [filters, channels, ...windows.kernel]);
}

/** One channel a filter: each channel of each image is convolved with its dy, and images are added. */
function perChannel(
  c: Context,
  [wide, wideShape]: readonly [string, Shape],
  [narrow, narrowShape]: readonly [string, Shape],
  windows: Windows,
): string {
  const { kernel, strides, dilations, pads } = windows;
  const [images = 1, channels = 1, ...sizes] = wideShape;
  const places = narrowShape.slice(2);
  const made = c.op(
    "Conv",
    [
      c.builder.reshape(wide, [1, images * channels, ...sizes]),
      c.builder.reshape(narrow, [images * channels, 1, ...places]),
    ],
    { kernel_shape: places, strides: dilations, dilations: strides, pads, group: images * channels },
  );
  return c.sum(
    c.builder.reshape(withoutRest(c, made, windows), [images, channels, 1, ...kernel]),
    [0],
    false,
  );
}
