/** Layers that move elements without changing them: flattening, unflattening, shuffling, permuting. */
import type { Dimension, SymbolicShape } from "../../../tensor/shape.js";
import type { Value } from "../builder.js";
import { type Call, OPEN, type Rule } from "../rule.js";

/** The value in the shape that the call's input has. */
export function restoreShape(call: Call, value: Value): Value {
  const shape = call.op("Shape", [call.input], {}, [call.rank]);
  return call.op("Reshape", [value, shape], {}, call.shape);
}

function product(sizes: readonly Dimension[]): Dimension {
  return sizes.reduce<Dimension>(
    (all, size) => (typeof all === "number" && typeof size === "number" ? all * size : OPEN),
    1,
  );
}

/** The value in another shape, of which at most one size is open and every other axis is kept or known. */
function reshape(call: Call, value: Value, shape: SymbolicShape, target: readonly number[]): Value {
  return call.op("Reshape", [value, call.ints(target)], {}, shape);
}

/** `Flatten`: one axis from several. */
const FLATTEN: Rule = {
  apply(call) {
    const start = call.axis("start_dim", 1);
    const end = call.axis("end_dim", -1);
    if (end < start) throw call.layer.wrong("end_dim", `an axis from ${start} on`, end);
    if (start === end) return call.input;
    const size = product(call.shape.slice(start, end + 1));
    const shape = [...call.shape.slice(0, start), size, ...call.shape.slice(end + 1)];
    if (start === 1 && end === call.rank - 1) return call.op("Flatten", [call.input], { axis: 1 }, shape);
    const behind = call.shape.slice(end + 1);
    if (start === 0 || behind.some((each) => typeof each === "string"))
      throw call.layer.unsupported("flattens over the batch, or in front of an axis whose size is open");
    const target = [...Array(start).fill(0), typeof size === "number" ? size : -1, ...behind.map(Number)];
    return reshape(call, call.input, shape, target);
  },
};

/** `Unflatten`: several axes from one, of which one may be -1. */
const UNFLATTEN: Rule = {
  apply(call) {
    const axis = call.axis("dim", 1);
    const given = call.layer.setting("unflattened_size");
    const parts = Array.isArray(given) ? given : [];
    if (axis === 0 || parts.length === 0 || !parts.every(Number.isSafeInteger))
      throw call.layer.wrong("unflattened_size", "a list of sizes, and an axis behind the batch", given);
    const known = parts.filter((size) => size !== -1).reduce((all: number, size: number) => all * size, 1);
    if (!parts.includes(-1)) call.requireSize(axis, known);
    const size = call.knownSize(axis, "splits an axis");
    const full: number[] = parts.map((each: number) => (each === -1 ? size / known : each));
    const behind = call.shape.slice(axis + 1);
    if (full.some((each) => !Number.isSafeInteger(each)) || behind.some((each) => typeof each === "string"))
      throw call.layer.wrong("unflattened_size", `sizes whose product is ${size}`, given);
    return reshape(
      call,
      call.input,
      [...call.shape.slice(0, axis), ...full, ...behind],
      [...Array(axis).fill(0), ...full, ...behind.map(Number)],
    );
  },
};

/** An image's size times or through a factor. */
function times(size: Dimension | undefined, factor: number): Dimension {
  return typeof size === "number" ? size * factor : OPEN;
}

/** `PixelShuffle`: channels to places. */
const PIXEL_SHUFFLE: Rule = {
  expects: () => ({ rank: 4 }),
  apply(call) {
    call.requireRank(4);
    const factor = call.layer.int("upscale_factor", 1);
    const channels = call.knownSize(1, "takes channels apart");
    const [batch = "batch", , height, width] = call.shape;
    return call.op("DepthToSpace", [call.input], { blocksize: factor, mode: "CRD" }, [
      batch,
      channels / factor ** 2,
      times(height, factor),
      times(width, factor),
    ]);
  },
};

/** `PixelUnshuffle`: places to channels; the places of one channel stay together. */
const PIXEL_UNSHUFFLE: Rule = {
  expects: () => ({ rank: 4 }),
  apply(call) {
    call.requireRank(4);
    const factor = call.layer.int("downscale_factor", 1);
    const channels = call.knownSize(1, "puts places into channels");
    const [batch = "batch", , height, width] = call.shape;
    const shape = [batch, channels * factor ** 2, times(height, 1 / factor), times(width, 1 / factor)];
    const spread = call.op("SpaceToDepth", [call.input], { blocksize: factor }, shape);
    if (channels === 1) return spread;
    const order = Array.from({ length: channels * factor ** 2 }, (_, at) => {
      const [channel, place] = [Math.floor(at / factor ** 2), at % factor ** 2];
      return place * channels + channel;
    });
    return call.op("Gather", [spread, call.ints(order)], { axis: 1 }, shape);
  },
};

/** `ChannelShuffle`: the channels of all groups in turn. */
const CHANNEL_SHUFFLE: Rule = {
  keeps: "shape",
  apply(call) {
    const groups = call.layer.int("groups", 1);
    const channels = call.knownSize(1, "shuffles the channels");
    if (groups < 1 || channels % groups !== 0)
      throw call.layer.wrong("groups", `a divisor of ${channels}`, groups);
    const order = Array.from(
      { length: channels },
      (_, at) => (at % groups) * (channels / groups) + Math.floor(at / groups),
    );
    return call.op("Gather", [call.input, call.ints(order)], { axis: 1 });
  },
};

/** torchvision's `Permute`. */
const PERMUTE: Rule = {
  apply(call) {
    const order = call.layer.ints("dims", call.rank, []);
    if ([...order].sort((a, b) => a - b).some((axis, at) => axis !== at) || order[0] !== 0)
      throw call.layer.wrong("dims", "every axis once, the batch first", order);
    return call.op(
      "Transpose",
      [call.input],
      { perm: order },
      order.map((axis) => call.shape[axis] ?? OPEN),
    );
  },
};

/** Rules by the names of the layers. */
export const RESHAPING_RULES: readonly (readonly [kind: string, rule: Rule])[] = [
  ["Flatten", FLATTEN],
  ["Unflatten", UNFLATTEN],
  ["PixelShuffle", PIXEL_SHUFFLE],
  ["PixelUnshuffle", PIXEL_UNSHUFFLE],
  ["ChannelShuffle", CHANNEL_SHUFFLE],
  ["Permute", PERMUTE],
];
