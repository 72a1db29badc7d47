/** Images made larger and smaller, and channels spread over space. */

import type { AttributeValue } from "../../../onnx/model.js";
import type { Dimension } from "../../../tensor/shape.js";
import { float32 } from "../../../tensor/tensor.js";
import { derived, product, quotient } from "../dimension.js";
import { malformed } from "../json.js";
import type { Call, Rules } from "../rule.js";
import { LONGEST_LIST, unsupported } from "../unsupported.js";
import { size, storedAxis, type Value } from "../value.js";
import { isChannelsFirstFormat } from "../window.js";

/** Says which place of the old image a place of the new one shows. */
interface Sampling {
  readonly alignCorners: boolean;
  readonly halfPixelCenters: boolean;
}

function samplingOf(call: Call): Sampling {
  return {
    alignCorners: call.attributes.bool("align_corners"),
    halfPixelCenters: call.attributes.bool("half_pixel_centers"),
  };
}

function coordinateMode({ alignCorners, halfPixelCenters }: Sampling): string {
  if (alignCorners) return "align_corners";
  return halfPixelCenters ? "half_pixel" : "asymmetric";
}

/** The new height and width as far as import knows them. */
function newSizes(call: Call): [Dimension, Dimension] {
  const known = call.known(1);
  const sizes = [0, 1].map((axis) => known?.[axis] ?? derived("resize", call.name, axis));
  if (sizes.some((each) => typeof each === "number" && !(each >= 1 && each < 2 ** 31))) {
    throw malformed(`An image is to become [${sizes.join(", ")}] large.`, { sizes });
  }
  return [sizes[0] ?? 1, sizes[1] ?? 1];
}

function resize(call: Call, image: Value, attributes: Readonly<Record<string, AttributeValue>>): Value {
  const { builder } = call;
  const sizes = newSizes(call);
  const stored = builder.channelsFirst(builder.cast(image, "float32"));
  const [batch, channels] = [size(image, 0), size(image, -1)];
  const type = { dtype: "float32", shape: [batch, ...sizes, channels], layout: "channelsFirst" } as const;
  const scales = sizes.map((wanted, axis) => {
    const full = size(image, axis + 1);
    return typeof wanted === "number" && typeof full === "number" ? wanted / full : Number.NaN;
  });
  // A scale that float32 holds exactly says the same as the sizes, and leaves the batch open.
  if (scales.every((scale) => Math.fround(scale) === scale)) {
    const list = builder.constant(float32([4], [1, 1, ...scales]));
    return builder.op("Resize", [stored, undefined, list], attributes, type);
  }
  const front = [batch, channels];
  const list = sizes.every((each) => typeof each === "number")
    ? builder.shapeList([...front, ...sizes])
    : builder.op(
        "Concat",
        [builder.shapeList(front), builder.cast(call.input(1), "int64")],
        { axis: 0 },
        { dtype: "int64", shape: [4] },
      );
  return builder.op("Resize", [stored, undefined, undefined, list], attributes, type);
}

function bilinear(call: Call): Value {
  const mode = coordinateMode(samplingOf(call));
  return resize(call, call.input(0), { mode: "linear", coordinate_transformation_mode: mode });
}

/** The place of the old image that is nearest, as TF.js computes it. */
function nearest(at: number, from: number, to: number, { alignCorners, halfPixelCenters }: Sampling): number {
  const isAligned = alignCorners && to > 1;
  const ratio = isAligned ? (from - 1) / (to - 1) : from / to;
  const place = ratio * (halfPixelCenters ? at + 0.5 : at);
  return Math.min(from - 1, Math.max(0, alignCorners ? Math.round(place) : Math.floor(place)));
}

/** By whole factors with Resize, else by picking rows and columns, which leaves nothing to rounding. */
function nearestNeighbor(call: Call): Value {
  const { builder } = call;
  const sampling = samplingOf(call);
  const image = call.input(0);
  const sizes = newSizes(call);
  const axes = sizes.map((to, axis) => ({ to, from: size(image, axis + 1), axis: axis + 1 }));
  const isWhole = axes.every(
    ({ from, to }) => typeof from === "number" && typeof to === "number" && to % from === 0,
  );
  const isListed = axes.every(
    ({ from, to }) => typeof from === "number" && typeof to === "number" && to <= LONGEST_LIST,
  );
  if ((isWhole && !sampling.alignCorners) || !isListed) {
    const rounding = sampling.alignCorners || sampling.halfPixelCenters ? "round_prefer_ceil" : "floor";
    const attributes = {
      mode: "nearest",
      coordinate_transformation_mode: coordinateMode(sampling),
      nearest_mode: rounding,
    };
    return builder.cast(resize(call, image, attributes), image.dtype);
  }
  return axes.reduce((value, { from, to, axis }) => {
    if (typeof from === "string" || typeof to === "string") return value;
    const places = Array.from({ length: to }, (_, at) => nearest(at, from, to, sampling));
    const { dtype, layout } = value;
    const shape = value.shape.map((each, at) => (at === axis ? to : each));
    return builder.op(
      "Gather",
      [value, builder.int64s(places)],
      { axis: storedAxis(value, axis) },
      { dtype, shape, layout },
    );
  }, image);
}

function blockOf(call: Call): number {
  const block = call.attributes.int("block_size", 1);
  if (block >= 1) return block;
  throw malformed(`Channels are spread over blocks of ${block}.`, { block });
}

/** The image stored channels first, and a function that says the result's type. */
function framed(call: Call) {
  const { builder } = call;
  const isFirst = isChannelsFirstFormat(call.attributes);
  const given = call.input(0);
  if (given.shape.length !== 4) throw malformed(`An image has the rank ${given.shape.length}; expected 4.`);
  const image = isFirst ? builder.plain(given) : builder.channelsFirst(given);
  const [height, width, channels] = isFirst ? [2, 3, 1] : [1, 2, 3];
  const type = (h: Dimension, w: Dimension, c: Dimension) => ({
    dtype: given.dtype,
    shape: isFirst ? [size(given, 0), c, h, w] : [size(given, 0), h, w, c],
    layout: image.layout,
  });
  return {
    image,
    height: size(given, height),
    width: size(given, width),
    channels: size(given, channels),
    type,
  };
}

function even(full: Dimension, parts: number): Dimension {
  const part = quotient([full], [parts]);
  if (part !== undefined) return part;
  throw typeof full === "number"
    ? malformed(`An axis of ${full} cannot be cut into parts of ${parts}.`)
    : unsupported("blocks of an axis whose size is known at run time only");
}

function depthToSpace(call: Call): Value {
  const block = blockOf(call);
  const { image, height, width, channels, type } = framed(call);
  const result = type(product([height, block]), product([width, block]), even(channels, block * block));
  return call.builder.op("DepthToSpace", [image], { blocksize: block, mode: "DCR" }, result);
}

function spaceToDepth(call: Call): Value {
  const block = blockOf(call);
  const { image, height, width, channels, type } = framed(call);
  const result = type(even(height, block), even(width, block), product([channels, block * block]));
  return call.builder.op("SpaceToDepth", [image], { blocksize: block }, result);
}

/** Rules for images. */
export const imageRules: Rules = {
  ResizeBilinear: bilinear,
  ResizeNearestNeighbor: nearestNeighbor,
  DepthToSpace: depthToSpace,
  SpaceToDepth: spaceToDepth,
};
