/**
 * SpaceToBatchND and BatchToSpaceND. TensorFlow writes a dilated convolution as a plain one between these
 * two; it is found again here. SpaceToBatchND's result remembers the padded image; a convolution on it is
 * computed in both ways; BatchToSpaceND takes the dilated one, and what nobody reads is dropped at the end.
 */
import type { Dimension } from "../../../tensor/shape.js";
import type { GraphBuilder } from "../builder.js";
import { product, quotient } from "../dimension.js";
import { malformed } from "../json.js";
import type { Call, Rules } from "../rule.js";
import { axisRange, slice } from "../slicing.js";
import { unsupported } from "../unsupported.js";
import { size, type Value } from "../value.js";
import type { Window } from "../window.js";
import { pad, pairs } from "./padding.js";

/**
 * The convolution of a value that SpaceToBatchND made; undefined when the value or the window is another.
 * @param convolve applies the convolution with the given window
 */
export function dilatedConvolution(
  value: Value,
  window: Window,
  convolve: (image: Value, window: Window) => Value,
): Value | undefined {
  const { spaceToBatch } = value;
  const isPlain =
    [...window.strides, ...window.dilations].every((step) => step === 1) && window.padding === "VALID";
  if (!spaceToBatch || !isPlain || spaceToBatch.block.length !== window.kernel.length) return undefined;
  const { image, block } = spaceToBatch;
  const dilated = convolve(image, { ...window, dilations: block });
  return { ...convolve(value, window), spaceToBatch: { image: dilated, block } };
}

function spaceToBatch(call: Call): Value {
  const { builder } = call;
  const block = blockOf(call);
  const value = call.input(0);
  const margins = pairs(call.numbers(2, "the paddings of a block"));
  const paddings = value.shape.map((_, axis) => margins[axis - 1] ?? ([0, 0] as [number, number]));
  const image = pad(builder, value, paddings);
  return { ...cutIntoBlocks(builder, builder.plain(image), block), spaceToBatch: { image, block } };
}

/** [N, H, W, C] to [N, H/b, b, W/b, b, C] to [b, b, N, H/b, W/b, C] to [b*b*N, H/b, W/b, C]. */
function cutIntoBlocks(builder: GraphBuilder, image: Value, block: readonly number[]): Value {
  const batch = size(image, 0);
  const rest = image.shape.slice(block.length + 1);
  const counts = block.map((step, axis) => divided(size(image, axis + 1), step));
  const inner = rest.map((_, axis) => 2 * block.length + 1 + axis);
  const cut = builder.reshape(image, [
    batch,
    ...counts.flatMap((count, axis) => [count, block[axis] ?? 1]),
    ...rest,
  ]);
  const turned = builder.permute(cut, [
    ...block.map((_, axis) => 2 * axis + 2),
    0,
    ...block.map((_, axis) => 2 * axis + 1),
    ...inner,
  ]);
  return builder.reshape(turned, [product([...block, batch]), ...counts, ...rest]);
}

function batchToSpace(call: Call): Value {
  const { builder } = call;
  const block = blockOf(call);
  const value = call.input(0);
  const known = value.spaceToBatch;
  const isSameBlock =
    known?.block.length === block.length && known.block.every((step, axis) => step === block[axis]);
  const image = known && isSameBlock ? known.image : joinBlocks(builder, builder.plain(value), block);
  const ranges = pairs(call.numbers(2, "the crops of a block")).map(([before, after], axis) =>
    axisRange(image, axis + 1, before, after === 0 ? undefined : -after),
  );
  return slice(builder, image, ranges);
}

/** [b*b*N, h, w, C] to [b, b, N, h, w, C] to [N, h, b, w, b, C] to [N, h*b, w*b, C]. */
function joinBlocks(builder: GraphBuilder, value: Value, block: readonly number[]): Value {
  const batch = quotient([size(value, 0)], block);
  if (batch === undefined)
    throw malformed(`A batch of ${size(value, 0)} is no number of blocks of ${block.join(" x ")}.`);
  const spatial = block.map((_, axis) => size(value, axis + 1));
  const rest = value.shape.slice(block.length + 1);
  const cut = builder.reshape(value, [...block, batch, ...spatial, ...rest]);
  const turned = builder.permute(cut, [
    block.length,
    ...block.flatMap((_, axis) => [block.length + 1 + axis, axis]),
    ...rest.map((_, axis) => 2 * block.length + 1 + axis),
  ]);
  const sizes = spatial.map((count, axis) => product([count, block[axis] ?? 1]));
  return builder.reshape(turned, [batch, ...sizes, ...rest]);
}

function blockOf(call: Call): readonly number[] {
  const block = call.numbers(1, "the shape of a block");
  if (block.length > 0 && block.length < call.input(0).shape.length && block.every((step) => step >= 1))
    return block;
  throw malformed(
    `A value of rank ${call.input(0).shape.length} is cut into blocks of [${block.join(", ")}].`,
  );
}

function divided(full: Dimension, step: number): Dimension {
  const count = quotient([full], [step]);
  if (count !== undefined) return count;
  if (typeof full === "number") throw malformed(`An axis of ${full} cannot be cut into blocks of ${step}.`);
  throw unsupported("blocks of an axis whose size is known at run time only");
}

/** Rules for moving space into the batch and back. */
export const batchSpaceRules: Rules = {
  SpaceToBatchND: spaceToBatch,
  BatchToSpaceND: batchToSpace,
};
