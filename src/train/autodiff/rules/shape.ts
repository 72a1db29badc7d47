/** Operators that only move or repeat elements: the gradient is moved back, and summed where there were copies. */
import type { Context, Rule } from "../context.js";

const reshaped: Rule = (c, dy) => [() => c.builder.reshape(dy, c.shape())];

const transpose: Rule = (c, dy) => [
  () => {
    const perm = c.ints("perm") ?? c.shape().map((_, axis) => c.shape().length - 1 - axis);
    return c.builder.transpose(
      dy,
      perm.map((_, axis) => perm.indexOf(axis)),
    );
  },
];

/** Each axis as (copies, elements), summed over copies. */
const tile: Rule = (c, dy) => [
  () => {
    const [from, to] = [c.outputShape(), c.shape()];
    const parted = to.flatMap((size, axis) => [size === 0 ? 1 : (from[axis] ?? 0) / size, size]);
    return c.sum(
      c.builder.reshape(dy, parted),
      to.map((_, axis) => 2 * axis),
      false,
    );
  },
];

/** Blocks of size b x b go back into channels, in the order in which they came out of them. */
const depthToSpace: Rule = (c, dy) => [
  () => {
    const block = c.int("blocksize", 1);
    const [images = 1, channels = 1, height = 1, width = 1] = c.shape();
    const parted = [images, channels / block ** 2, height, block, width, block];
    const perm = c.text("mode", "DCR") === "CRD" ? [0, 1, 3, 5, 2, 4] : [0, 3, 5, 1, 2, 4];
    return c.builder.reshape(c.builder.transpose(c.builder.reshape(dy, parted), perm), c.shape());
  },
];

const spaceToDepth: Rule = (c, dy) => [
  () => c.op("DepthToSpace", [dy], { blocksize: c.int("blocksize", 1), mode: "DCR" }),
];

/** Rules of the standard operator set. */
export const SHAPE: Readonly<Record<string, Rule>> = {
  DepthToSpace: depthToSpace,
  Expand: (c: Context, dy: string) => [() => c.builder.sumTo(dy, c.outputShape(), c.shape())],
  Flatten: reshaped,
  Reshape: reshaped,
  SpaceToDepth: spaceToDepth,
  Squeeze: reshaped,
  Tile: tile,
  Transpose: transpose,
  Unsqueeze: reshaped,
};
