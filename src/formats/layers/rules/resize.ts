/** Images made larger, smaller or cut: padding, cropping, enlarging by whole factors, resizing, and values rescaled. */

import type { Dimension } from "../../../tensor/shape.js";
import { float32 } from "../../../tensor/tensor.js";
import { product } from "../../tfjs/dimension.js";
import { malformed } from "../../tfjs/json.js";
import { pad } from "../../tfjs/rules/padding.js";
import { axisRange, slice } from "../../tfjs/slicing.js";
import { unsupported } from "../../tfjs/unsupported.js";
import { inStoredOrder, size, type Value } from "../../tfjs/value.js";
import type { LayerCall, LayerRule, LayerRules } from "../rule.js";
import { type Image, imageOf } from "./image.js";

function zeroPadding(rank: number): LayerRule {
  return {
    apply: (call) => {
      const { axes, value } = imageOf(call, call.input(), rank);
      const margins = call.config.margins("padding", rank);
      const paddings = value.shape.map(
        (_, axis): readonly [number, number] => margins[axes.indexOf(axis)] ?? [0, 0],
      );
      return pad(call.builder, value, paddings);
    },
  };
}

function cropping(rank: number): LayerRule {
  return {
    apply: (call) => {
      const { axes, value } = imageOf(call, call.input(), rank);
      const ranges = call.config.margins("cropping", rank).map(([before, after], at) => {
        const axis = axes[at] ?? 1;
        const full = size(value, axis);
        if (typeof full === "number" && before + after >= full)
          throw malformed(`${before} and ${after} elements are cut off an axis of ${full}.`);
        return axisRange(value, axis, before, after === 0 ? undefined : -after);
      });
      return slice(call.builder, value, ranges);
    },
  };
}

/** Repeats every element, or draws lines between them. */
function upSampling(rank: number): LayerRule {
  return {
    apply: (call) => {
      const { builder, config } = call;
      const image = imageOf(call, call.real(), rank);
      const factors = config.sizes("size", rank, [2]);
      const mode = config.text("interpolation", "nearest");
      const scaled = image.spatial.map((full, axis) => product([full, factors[axis] ?? 1]));
      const coordinates = call.dialect === "tfjs" ? "asymmetric" : "half_pixel";
      if (mode === "bilinear") return resized(call, image, scaled, factors, "linear", coordinates);
      if (mode !== "nearest") throw unsupported(`enlarging by ${mode} interpolation`);
      const attributes = {
        mode: "nearest",
        coordinate_transformation_mode: "asymmetric",
        nearest_mode: "floor",
      };
      const type = image.typed(scaled, image.channels);
      return builder.op("Resize", [image.value, undefined, scales(call, image, factors)], attributes, type);
    },
  };
}

function scales(call: LayerCall, image: Image, factors: readonly number[]): Value {
  const all = image.value.shape.map((_, axis) => factors[image.axes.indexOf(axis)] ?? 1);
  return call.builder.constant(float32([all.length], inStoredOrder(image.value, all)));
}

/** Resizes as Keras does, by the centres of pixels; enlarging in TF.js goes by their corners. */
function resized(
  call: LayerCall,
  image: Image,
  sizes: readonly Dimension[],
  factors: readonly number[],
  mode: "linear" | "nearest",
  coordinates: "half_pixel" | "asymmetric",
): Value {
  const { builder } = call;
  const attributes = {
    mode,
    coordinate_transformation_mode: coordinates,
    ...(mode === "nearest" && { nearest_mode: "round_prefer_ceil" }),
  };
  const type = image.typed(sizes, image.channels);
  const isExact = factors.every((factor) => Math.fround(factor) === factor);
  if (isExact)
    return builder.op("Resize", [image.value, undefined, scales(call, image, factors)], attributes, type);
  const target = builder.shapeList(inStoredOrder(image.value, type.shape));
  return builder.op("Resize", [image.value, undefined, undefined, target], attributes, type);
}

/** To a fixed size. */
const resizing: LayerRule = {
  apply: (call) => {
    const { config } = call;
    const image = imageOf(call, call.real(), 2);
    const sizes = [config.int("height", 1), config.int("width", 1)];
    const mode = config.text("interpolation", "bilinear");
    if (config.bool("crop_to_aspect_ratio", false) || config.bool("pad_to_aspect_ratio", false))
      throw unsupported("resizing that keeps the aspect ratio");
    if (config.bool("antialias", false)) throw unsupported("resizing with antialiasing");
    if (mode !== "bilinear" && mode !== "nearest") throw unsupported(`resizing by ${mode} interpolation`);
    if (sizes.some((each) => each < 1 || each >= 2 ** 31))
      throw malformed(`An image is to become ${sizes.join(" x ")}.`);
    const factors = image.spatial.map((full, axis) =>
      typeof full === "number" ? (sizes[axis] ?? 1) / full : Number.NaN,
    );
    if (factors.every((factor) => factor === 1)) return image.value;
    return resized(call, image, sizes, factors, mode === "bilinear" ? "linear" : "nearest", "half_pixel");
  },
};

/** The middle of an image that is at least as large. */
const centerCrop: LayerRule = {
  apply: (call) => {
    if (call.dialect === "tfjs") throw unsupported("the crop of TF.js, which resamples");
    const { config } = call;
    const { value, axes, spatial } = imageOf(call, call.input(), 2);
    const wanted = [config.int("height", 1), config.int("width", 1)];
    const ranges = axes.map((axis, at) => {
      const [full, part] = [spatial[at] ?? 1, wanted[at] ?? 1];
      if (typeof full === "string") throw unsupported("the middle of an image of an open size");
      if (full < part) throw unsupported("a crop that is larger than the image");
      const start = Math.floor((full - part) / 2);
      return axisRange(value, axis, start, start + part);
    });
    return slice(call.builder, value, ranges);
  },
};

/** x times a scale plus an offset, each one number or one a channel. */
const rescaling: LayerRule = {
  apply: (call) => {
    const { builder, config } = call;
    const constant = (name: string, fallback: number) => {
      const values = config.numbers(name) ?? [fallback];
      const [only = fallback] = values;
      return values.length === 1
        ? builder.scalar("float32", only)
        : builder.constant(float32([values.length], values));
    };
    const scaled = builder.elementwise("Mul", [call.real(), constant("scale", 1)], "float32");
    const isZero = (config.numbers("offset") ?? [0]).every((each) => each === 0);
    return isZero ? scaled : builder.elementwise("Add", [scaled, constant("offset", 0)], "float32");
  },
};

/** Rules for sizes of images. */
export const resizeRules: LayerRules = {
  ZeroPadding1D: zeroPadding(1),
  ZeroPadding2D: zeroPadding(2),
  ZeroPadding3D: zeroPadding(3),
  Cropping1D: cropping(1),
  Cropping2D: cropping(2),
  Cropping3D: cropping(3),
  UpSampling1D: upSampling(1),
  UpSampling2D: upSampling(2),
  UpSampling3D: upSampling(3),
  Resizing: resizing,
  CenterCrop: centerCrop,
  Rescaling: rescaling,
};
