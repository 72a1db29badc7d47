/**
 * Gradients with respect to 3 x 3 weights tile by tile, after Winograd, "Arithmetic complexity of computations" (1980),
 * as Lavin and Gray, "Fast algorithms for convolutional neural networks" (2016) write it for images. The narrow side
 * is cut into tiles of 2 x 2. Each meets a tile of 4 x 4 of the wide side, and gives 9 sums of 4 products. Both are taken
 * to 16 numbers, of which the products number by number are enough: 16 in place of 36. Over all tiles they are 16
 * products of matrices, and a last small one takes them to the 9 weights.
 */
import { elementCount, type Shape } from "../../../tensor/shape.js";
import type { Context } from "../context.js";
import type { Windows } from "./window.js";

/** With fewer channels on one side, taking tiles apart costs more than it saves. */
const LEAST_CHANNELS = 48;
/** On smaller sides too much of the tiles lies outside. */
const LEAST_SIDE = 7;
/**
 * Images are taken in two groups, so that threads share what the runtime does group by group, where the products of
 * each group are not too large to be added afterwards.
 */
const GROUPS = 2;
const MOST_PRODUCTS = 128 * 128;

/**
 * Along one axis, for tiles of the wide side, for tiles of the narrow side, and back: sums are BACK' (WIDE a) (NARROW b),
 * the middle product number by number.
 */
const WIDE = [
  [1, 0, -1, 0],
  [0, 1, 1, 0],
  [0, -1, 1, 0],
  [0, 1, 0, -1],
];
const NARROW = [
  [1, 0],
  [0.5, 0.5],
  [0.5, -0.5],
  [0, 1],
];
const BACK = [
  [1, 0, 0],
  [1, 1, 1],
  [1, -1, 1],
  [0, 0, -1],
];

/** A value of shape [images, channels, height, width]. */
type Images = readonly [value: string, shape: Shape];

/**
 * Whether this way is faster than others.
 * @param channels of the side that has fewer
 * @param places sides of the narrow side
 */
export function isFitForTiles(windows: Windows, channels: number, places: Shape): boolean {
  const { kernel, strides, dilations, rest } = windows;
  return (
    kernel.join() === "3,3" &&
    [...strides, ...dilations].every((each) => each === 1) &&
    rest.every((each) => each === 0) &&
    channels >= LEAST_CHANNELS &&
    places.every((side) => side >= LEAST_SIDE)
  );
}

/** The gradient [narrow channels, wide channels, 3, 3]. */
export function productsOfTiles(c: Context, wide: Images, narrow: Images, { pads }: Windows): string {
  const [images = 1, filters = 1, ...places] = narrow[1];
  const [, channels = 1, ...sizes] = wide[1];
  const tiles = places.map((side) => Math.ceil(side / 2));
  const end = (axis: number) => 2 * (tiles[axis] ?? 0);
  const begins = pads.slice(0, 2);
  const wideEnds = sizes.map((side, axis) => end(axis) + 2 - side - (begins[axis] ?? 0));
  const narrowEnds = places.map((side, axis) => end(axis) - side);
  const groups = images % GROUPS === 0 && filters * channels <= MOST_PRODUCTS ? GROUPS : 1;
  const a = numbers(c, narrow, NARROW, [0, 0, ...narrowEnds], groups);
  const b = numbers(c, wide, WIDE, [...begins, ...wideEnds], groups);
  const products = c.op("MatMul", [a, c.builder.transpose(b, [0, 2, 1])]);
  const flat = c.builder.reshape(products, [groups * 16, filters * channels]);
  const back = Array.from({ length: groups }, () => together(BACK)).flat();
  const sums = c.op("Gemm", [flat, c.floats([groups * 16, 9], back)], { transA: 1 });
  return c.builder.reshape(sums, [filters, channels, 3, 3]);
}

/** The 16 numbers of every tile, [groups of images and numbers, channels, images of a group and tiles]. */
function numbers(
  c: Context,
  [value, [images = 1, channels = 1, ...sizes]]: Images,
  matrix: readonly (readonly number[])[],
  pads: readonly number[],
  groups: number,
): string {
  const each = images / groups;
  const grouped = c.builder.reshape(value, [groups, each, channels, elementCount(sizes)]);
  const planes = c.builder.reshape(c.builder.transpose(grouped, [0, 2, 1, 3]), [
    images * channels,
    1,
    ...sizes,
  ]);
  const side = matrix[0]?.length ?? 0;
  const filters = c.floats([16, 1, side, side], together(matrix));
  const made = c.op("Conv", [planes, filters], { kernel_shape: [side, side], strides: [2, 2], pads });
  const tiles = c.builder.reshape(made, [groups, channels * each, 16, -1]);
  return c.builder.reshape(c.builder.transpose(tiles, [0, 2, 1, 3]), [groups * 16, channels, -1]);
}

/** What a matrix does along both axes: each row of it along the first one with each along the second one. */
function together(matrix: readonly (readonly number[])[]): number[] {
  return matrix.flatMap((row) => matrix.flatMap((other) => row.flatMap((a) => other.map((b) => a * b))));
}
