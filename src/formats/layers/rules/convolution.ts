/**
 * Convolutions in one to three dimensions: plain, grouped, dilated, depthwise, separable and transposed. Filters
 * are turned at import; the padding `same` puts the odd element behind, as TensorFlow does.
 */
import { type Dimension, isConcrete, type SymbolicShape } from "../../../tensor/shape.js";
import { derived, product, sum } from "../../tfjs/dimension.js";
import { malformed } from "../../tfjs/json.js";
import { unsupported } from "../../tfjs/unsupported.js";
import type { Value } from "../../tfjs/value.js";
import { slide, type Window } from "../../tfjs/window.js";
import type { LayerConfig } from "../config.js";
import type { LayerCall, LayerRule, LayerRules, WeightSpec } from "../rule.js";
import { applyActivation } from "./activation.js";
import { channelCount, type Image, imageOf } from "./image.js";

const bias = (config: LayerConfig): WeightSpec[] => (config.bool("use_bias", true) ? [{ name: "bias" }] : []);

/** A convolution's filter as ONNX wants it, and what goes with it. */
interface Filter {
  /** [outputs, inputs per group, ...kernel] */
  readonly weight: Value;
  readonly outputs: number;
  readonly group: number;
}

/** The sizes of a weight. */
function concrete(weight: Value, rank: number): number[] {
  if (isConcrete(weight.shape) && weight.shape.length === rank && !weight.shape.includes(0))
    return [...weight.shape];
  throw malformed(`A filter has the shape [${weight.shape.join(", ")}]; expected ${rank} axes.`, {
    shape: weight.shape,
    rank,
  });
}

/** [...kernel, inputs per group, outputs] */
function fullFilter(call: LayerCall, weight: Value, channels: number, rank: number): Filter {
  const [inputs = 1, outputs = 1] = concrete(weight, rank + 2).slice(-2);
  const group = channels / inputs;
  if (!Number.isInteger(group) || outputs % group !== 0) {
    throw malformed(`A filter for ${inputs} channels is applied to ${channels}.`, { inputs, channels });
  }
  const spatial = Array.from({ length: rank }, (_, axis) => axis);
  return { weight: call.builder.permute(weight, [rank + 1, rank, ...spatial]), outputs, group };
}

/** [...kernel, channels, multiplier] */
function depthwiseFilter(call: LayerCall, weight: Value, channels: number, rank: number): Filter {
  const sizes = concrete(weight, rank + 2);
  const [inputs = 1, multiplier = 1] = sizes.slice(-2);
  if (inputs !== channels) {
    throw malformed(`A depthwise filter for ${inputs} channels is applied to ${channels}.`, {
      inputs,
      channels,
    });
  }
  const kernel = sizes.slice(0, rank);
  const turned = call.builder.permute(weight, [rank, rank + 1, ...kernel.map((_, axis) => axis)]);
  const outputs = inputs * multiplier;
  return { weight: call.builder.reshape(turned, [outputs, 1, ...kernel]), outputs, group: channels };
}

/** How the layer's window slides; `causal` padding is all in front. */
function windowOf(config: LayerConfig, rank: number): Window {
  const kernel = config.sizes("kernel_size", rank, [1]);
  const strides = config.sizes("strides", rank, [1]);
  const dilations = config.sizes("dilation_rate", rank, [1]);
  const padding = config.text("padding", "valid").toLowerCase();
  if (strides.some((stride) => stride > 1) && dilations.some((step) => step > 1))
    throw unsupported("strides and dilation at once");
  if (padding === "causal" && rank > 1) throw unsupported("causal padding of an image");
  return {
    kernel,
    strides,
    dilations,
    padding: padding === "causal" ? "EXPLICIT" : padding.toUpperCase(),
    explicit: kernel.map((each, axis) => [padding === "causal" ? (each - 1) * (dilations[axis] ?? 1) : 0, 0]),
  };
}

function checkKernel(weight: Value, window: Window): void {
  if (window.kernel.every((each, axis) => each === weight.shape[axis])) return;
  throw malformed(
    `A filter has the shape [${weight.shape.join(", ")}]; the layer says kernel_size [${window.kernel.join(", ")}].`,
    { shape: weight.shape, kernel: window.kernel },
  );
}

function convolve(call: LayerCall, image: Image, filter: Filter, window: Window, offset?: Value): Value {
  const { output, attributes } = slide(image.spatial, window);
  const inputs = [image.value, filter.weight, ...(offset ? [offset] : [])];
  return call.builder.op(
    "Conv",
    inputs,
    { ...attributes, group: filter.group },
    image.typed(output, filter.outputs),
  );
}

function convolution(rank: number): LayerRule {
  return {
    weights: (config) => [{ name: "kernel" }, ...bias(config)],
    apply: (call) => {
      const image = imageOf(call, call.real(), rank);
      const window = windowOf(call.config, rank);
      const kernel = call.weight("kernel");
      checkKernel(kernel, window);
      const filter = fullFilter(call, kernel, channelCount(image), rank);
      return applyActivation(call, convolve(call, image, filter, window, call.optionalWeight("bias")));
    },
  };
}

function depthwise(rank: number): LayerRule {
  return {
    weights: (config) => [{ name: "depthwise_kernel", aliases: ["kernel"] }, ...bias(config)],
    apply: (call) => {
      const image = imageOf(call, call.real(), rank);
      const window = windowOf(call.config, rank);
      if (call.dialect === "tfjs" && window.dilations.some((step) => step > 1))
        throw unsupported("a dilated depthwise convolution, which TF.js computes without dilation");
      const kernel = call.weight("depthwise_kernel");
      checkKernel(kernel, window);
      const filter = depthwiseFilter(call, kernel, channelCount(image), rank);
      return applyActivation(call, convolve(call, image, filter, window, call.optionalWeight("bias")));
    },
  };
}

/** A depthwise convolution and then a plain one with a window of one. */
function separable(rank: number): LayerRule {
  return {
    weights: (config) => [{ name: "depthwise_kernel" }, { name: "pointwise_kernel" }, ...bias(config)],
    apply: (call) => {
      const image = imageOf(call, call.real(), rank);
      const window = windowOf(call.config, rank);
      const kernel = call.weight("depthwise_kernel");
      checkKernel(kernel, window);
      const apart = convolve(call, image, depthwiseFilter(call, kernel, channelCount(image), rank), window);
      const spread = imageOf(call, apart, rank);
      const pointwise = fullFilter(call, call.weight("pointwise_kernel"), channelCount(spread), rank);
      const ones = Array<number>(rank).fill(1);
      const point: Window = {
        kernel: ones,
        strides: ones,
        dilations: ones,
        padding: "VALID",
        explicit: [],
      };
      return applyActivation(call, convolve(call, spread, pointwise, point, call.optionalWeight("bias")));
    },
  };
}

/** Sizes and padding of one axis of a transposed convolution. */
interface Growth {
  readonly output: Dimension;
  readonly before: number;
  readonly after: number;
  /** Elements that no window reaches. */
  readonly extra: number;
}

/** The gradient of a convolution that makes `input` elements of the result. */
function grow(
  input: Dimension,
  stride: number,
  extent: number,
  isSame: boolean,
  extra: number | undefined,
): Growth {
  const usual = isSame ? stride - extent : Math.max(stride - extent, 0);
  const stated = extra === undefined ? usual : extra - (isSame ? 2 * Math.floor(extent / 2) : 0);
  const full: Dimension =
    typeof input === "number"
      ? (input - 1) * stride + extent
      : sum(product([input, stride]), extent - stride);
  const output =
    typeof input === "number"
      ? (input - 1) * stride + extent + stated
      : stated === stride - extent
        ? product([input, stride])
        : derived("grow", full, stated);
  const cut = isSame ? Math.max(-stated, 0) : 0;
  if (stated < 0 && !isSame) throw unsupported("an output padding below zero");
  if (typeof output === "number" && output < 1)
    throw malformed(`A transposed convolution has ${output} outputs.`);
  const before = Math.floor(cut / 2);
  return { output, before, after: cut - before, extra: Math.max(stated, 0) };
}

/** [...kernel, outputs, inputs] */
function transposed(rank: number): LayerRule {
  return {
    weights: (config) => [{ name: "kernel" }, ...bias(config)],
    apply: (call) => {
      const { builder, config } = call;
      const image = imageOf(call, call.real(), rank);
      const window = windowOf(config, rank);
      const kernel = call.weight("kernel");
      checkKernel(kernel, window);
      const [outputs = 1, inputs = 1] = concrete(kernel, rank + 2).slice(-2);
      if (inputs !== channelCount(image)) {
        throw malformed(`A filter for ${inputs} channels is applied to ${image.channels}.`, { inputs });
      }
      if (config.int("groups", 1) !== 1) throw unsupported("a transposed convolution in groups");
      const extra = config.ints("output_padding");
      const axes = image.spatial.map((input, axis) => {
        const [stride, step] = [window.strides[axis] ?? 1, window.dilations[axis] ?? 1];
        const extent = ((window.kernel[axis] ?? 1) - 1) * step + 1;
        return grow(input, stride, extent, window.padding === "SAME", extra?.[axis] ?? extra?.[0]);
      });
      const result = builder.op(
        "ConvTranspose",
        [
          image.value,
          builder.permute(kernel, [rank + 1, rank, ...window.kernel.map((_, axis) => axis)]),
          call.optionalWeight("bias"),
        ],
        {
          kernel_shape: window.kernel,
          strides: window.strides,
          dilations: window.dilations,
          pads: [...axes.map(({ before }) => before), ...axes.map(({ after }) => after)],
          output_padding: axes.map((each) => each.extra),
        },
        image.typed(sizes(axes), outputs),
      );
      return applyActivation(call, result);
    },
  };
}

function sizes(axes: readonly Growth[]): SymbolicShape {
  return axes.map(({ output }) => output);
}

/** Rules for convolutions. */
export const convolutionRules: LayerRules = {
  Conv1D: convolution(1),
  Conv2D: convolution(2),
  Conv3D: convolution(3),
  DepthwiseConv1D: depthwise(1),
  DepthwiseConv2D: depthwise(2),
  SeparableConv1D: separable(1),
  SeparableConv2D: separable(2),
  Conv1DTranspose: transposed(1),
  Conv2DTranspose: transposed(2),
  Conv3DTranspose: transposed(3),
};
