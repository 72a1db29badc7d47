/** Convolutions of one, two and three dimensions, plain and transposed. */
import type { Dimension } from "../../../tensor/shape.js";
import type { Value } from "../builder.js";
import type { Layer } from "../layer.js";
import { type Call, type Rule, sizeAfter } from "../rule.js";
import { type PadMode, pad } from "./padding.js";

/** A convolution over `axes` axes. */
export function convolution(axes: number): Rule {
  return {
    expects: (layer) => {
      const [, channels = 0] = layer.tensor("weight", axes + 2).shape;
      return { rank: axes + 2, channels: channels * layer.int("groups", 1) };
    },
    apply(call) {
      const { layer } = call;
      const weight = layer.tensor("weight", axes + 2);
      const [outputs = 0, inputs = 0, ...kernel] = weight.shape;
      requireKernel(layer, kernel);
      const group = layer.int("groups", 1);
      call.requireRank(axes + 2);
      call.requireSize(1, inputs * group);
      const strides = layer.ints("stride", axes, 1);
      const dilations = layer.ints("dilation", axes, 1);
      const [before, after] = paddings(layer, kernel, dilations);
      const mode = layer.word("padding_mode", ["zeros", "reflect", "replicate", "circular"], "zeros");
      const isPlain = mode === "zeros";
      const input = isPlain
        ? call.input
        : pad(call, call.input, { before, after, mode: MODES[mode], value: 0 });
      const sizes = call.shape.slice(2).map((size, at) => {
        const [k = 1, stride = 1, dilation = 1] = [kernel[at], strides[at], dilations[at]];
        const room = (before[at] ?? 0) + (after[at] ?? 0) - dilation * (k - 1);
        return sizeAfter(
          size,
          (known) => Math.floor((known + room - 1) / stride) + 1,
          stride === 1 && room === 0,
        );
      });
      requirePositive(layer, sizes);
      return call.op(
        "Conv",
        [input, call.weight("weight", weight), biasOf(call, outputs)],
        {
          kernel_shape: kernel,
          strides,
          dilations,
          group,
          pads: isPlain ? [...before, ...after] : Array(2 * axes).fill(0),
        },
        [call.shape[0] ?? "batch", outputs, ...sizes],
      );
    },
  };
}

/** A transposed convolution over `axes` axes. */
export function transposedConvolution(axes: number): Rule {
  return {
    expects: (layer) => ({ rank: axes + 2, channels: layer.tensor("weight", axes + 2).shape[0] ?? 0 }),
    apply(call) {
      const { layer } = call;
      layer.word("padding_mode", ["zeros"], "zeros");
      const weight = layer.tensor("weight", axes + 2);
      const [inputs = 0, outputs = 0, ...kernel] = weight.shape;
      requireKernel(layer, kernel);
      const group = layer.int("groups", 1);
      call.requireRank(axes + 2);
      call.requireSize(1, inputs);
      const strides = layer.ints("stride", axes, 1);
      const dilations = layer.ints("dilation", axes, 1);
      const padding = layer.ints("padding", axes, 0);
      const extra = layer.ints("output_padding", axes, 0);
      const sizes = call.shape.slice(2).map((size, at) => {
        const [k = 1, stride = 1, dilation = 1] = [kernel[at], strides[at], dilations[at]];
        const room = dilation * (k - 1) + (extra[at] ?? 0) + 1 - 2 * (padding[at] ?? 0);
        return sizeAfter(size, (known) => (known - 1) * stride + room, stride === 1 && room === 1);
      });
      requirePositive(layer, sizes);
      return call.op(
        "ConvTranspose",
        [call.input, call.weight("weight", weight), biasOf(call, outputs * group)],
        {
          kernel_shape: kernel,
          strides,
          dilations,
          group,
          pads: [...padding, ...padding],
          output_padding: extra,
        },
        [call.shape[0] ?? "batch", outputs * group, ...sizes],
      );
    },
  };
}

const MODES: Readonly<Record<"zeros" | "reflect" | "replicate" | "circular", PadMode>> = {
  zeros: "constant",
  reflect: "reflect",
  replicate: "edge",
  circular: "circular",
};

/** Padding before and after each axis; of `same`, the odd one goes behind. */
function paddings(
  layer: Layer,
  kernel: readonly number[],
  dilations: readonly number[],
): [number[], number[]] {
  const given = layer.setting("padding");
  if (given === "same") {
    const total = kernel.map((size, at) => (size - 1) * (dilations[at] ?? 1));
    const before = total.map((each) => Math.floor(each / 2));
    return [before, total.map((each, at) => each - (before[at] ?? 0))];
  }
  const padding = given === "valid" ? kernel.map(() => 0) : layer.ints("padding", kernel.length, 0);
  return [padding, padding];
}

function biasOf(call: Call, outputs: number): Value | undefined {
  return call.layer.has("bias") ? call.weight("bias", call.layer.tensor("bias", 1), [outputs]) : undefined;
}

/** An architecture may say the kernel's size; the weights know it. */
function requireKernel(layer: Layer, kernel: readonly number[]): void {
  const said = layer.ints("kernel_size", kernel.length, kernel);
  if (said.some((size, at) => size !== kernel[at]))
    throw layer.wrong("kernel_size", `${JSON.stringify(kernel)}, as the weight has it`, said);
}

/** @throws PolyheadError MODEL_MALFORMED when the window does not fit into the input */
export function requirePositive(layer: Layer, sizes: readonly Dimension[]): void {
  if (sizes.every((size) => typeof size === "string" || size > 0)) return;
  throw layer.wrong("input", "an image that is large enough for its window", sizes);
}
