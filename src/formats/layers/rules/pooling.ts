/** Poolings, global ones included. Padding never counts: it is no candidate for a maximum and no part of a mean. */
import { unsupported } from "../../tfjs/unsupported.js";
import { storedAxis } from "../../tfjs/value.js";
import { slide, type Window } from "../../tfjs/window.js";
import type { LayerRule, LayerRules } from "../rule.js";
import { imageOf } from "./image.js";

function pooling(rank: number, opType: string, attributes: Readonly<Record<string, number>>): LayerRule {
  return {
    apply: (call) => {
      const { config } = call;
      const image = imageOf(call, call.real(), rank);
      const kernel = config.sizes("pool_size", rank, [2]);
      const window: Window = {
        kernel,
        strides: config.has("strides") ? config.sizes("strides", rank, [1]) : kernel,
        dilations: Array<number>(rank).fill(1),
        padding: config.text("padding", "valid").toUpperCase(),
        explicit: [],
      };
      const { output, attributes: geometry } = slide(image.spatial, window);
      const { dilations: _, ...undilated } = geometry;
      const hasGap = kernel.some((size, axis) => size < (window.strides[axis] ?? 1));
      if (hasGap && "auto_pad" in geometry) throw unsupported("pooling with gaps over axes of an open size");
      return call.builder.op(
        opType,
        [image.value],
        { ...undilated, ...attributes },
        image.typed(output, image.channels),
      );
    },
  };
}

/** One number a channel. */
function globalPooling(rank: number, opType: string): LayerRule {
  return {
    apply: (call) => {
      const image = imageOf(call, call.real(), rank);
      const axes = image.axes.map((axis) => storedAxis(image.value, axis)).sort((a, b) => a - b);
      const isKept = call.config.bool("keepdims", false);
      const type = isKept
        ? image.typed(Array<number>(rank).fill(1), image.channels)
        : { dtype: image.value.dtype, shape: [image.batch, image.channels] };
      return call.builder.op(opType, [image.value], { axes, keepdims: Number(isKept) }, type);
    },
  };
}

const maximum = (rank: number) => pooling(rank, "MaxPool", {});
const average = (rank: number) => pooling(rank, "AveragePool", { count_include_pad: 0 });

/** Rules for poolings. */
export const poolingRules: LayerRules = {
  MaxPooling1D: maximum(1),
  MaxPooling2D: maximum(2),
  MaxPooling3D: maximum(3),
  AveragePooling1D: average(1),
  AveragePooling2D: average(2),
  AveragePooling3D: average(3),
  GlobalMaxPooling1D: globalPooling(1, "ReduceMax"),
  GlobalMaxPooling2D: globalPooling(2, "ReduceMax"),
  GlobalMaxPooling3D: globalPooling(3, "ReduceMax"),
  GlobalAveragePooling1D: globalPooling(1, "ReduceMean"),
  GlobalAveragePooling2D: globalPooling(2, "ReduceMean"),
  GlobalAveragePooling3D: globalPooling(3, "ReduceMean"),
};
