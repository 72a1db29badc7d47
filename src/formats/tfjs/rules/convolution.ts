/**
 * Convolutions in one to three dimensions, plain, depthwise and transposed, with the bias and activation
 * that TF.js fuses into them. Images are stored channels first; filters are turned at import.
 */
import { isConcrete, type SymbolicShape } from "../../../tensor/shape.js";
import type { GraphBuilder } from "../builder.js";
import { derived } from "../dimension.js";
import { malformed } from "../json.js";
import type { Call, Rule, Rules } from "../rule.js";
import { unsupported } from "../unsupported.js";
import { size, type Value } from "../value.js";
import { isChannelsFirstFormat, readWindow, slide, type Window } from "../window.js";
import { activate } from "./activation.js";
import { dilatedConvolution } from "./batch-space.js";

/** A convolution's filter as ONNX wants it, and what goes with it. */
interface Filter {
  /** [outputs, inputs per group, ...kernel] */
  readonly weight: Value;
  readonly kernel: readonly number[];
  readonly outputs: number;
  readonly group: number;
}

type ReadFilter = (builder: GraphBuilder, filter: Value, channels: number) => Filter;

/** [...kernel, inputs, outputs]; fewer inputs than the image has channels mean groups. */
const fullFilter: ReadFilter = (builder, filter, channels) => {
  const { kernel, last } = filterShape(filter);
  const [inputs, outputs] = last;
  const rank = kernel.length + 2;
  const spatial = kernel.map((_, axis) => axis);
  const group = channels / inputs;
  if (!Number.isInteger(group) || outputs % group !== 0) {
    throw malformed(`A filter for ${inputs} channels is applied to ${channels}.`, { inputs, channels });
  }
  return { weight: builder.permute(filter, [rank - 1, rank - 2, ...spatial]), kernel, outputs, group };
};

/** [...kernel, channels, multiplier]; each channel has its own filters. */
const depthwiseFilter: ReadFilter = (builder, filter, channels) => {
  const { kernel, last } = filterShape(filter);
  const [inputs, multiplier] = last;
  if (inputs !== channels) {
    throw malformed(`A depthwise filter for ${inputs} channels is applied to ${channels}.`, {
      inputs,
      channels,
    });
  }
  const spatial = kernel.map((_, axis) => axis);
  const turned = builder.permute(filter, [kernel.length, kernel.length + 1, ...spatial]);
  const outputs = inputs * multiplier;
  return { weight: builder.reshape(turned, [outputs, 1, ...kernel]), kernel, outputs, group: channels };
};

function filterShape(filter: Value): { kernel: number[]; last: [number, number] } {
  if (!isConcrete(filter.shape)) throw unsupported("a filter of a size known at run time only");
  const kernel = filter.shape.slice(0, -2);
  const [inputs, outputs] = filter.shape.slice(-2);
  if (kernel.length === 0 || !inputs || !outputs || kernel.includes(0)) {
    throw malformed(`A filter has the shape [${filter.shape.join(", ")}].`, { shape: filter.shape });
  }
  return { kernel, last: [inputs, outputs] };
}

/** A rule for a convolution, with the extra inputs and attributes of the fused operators. */
function convolution(readFilter: ReadFilter): Rule {
  return (call) => {
    const { builder, attributes } = call;
    const fused = readFused(call);
    const x = builder.cast(call.input(0), "float32");
    const filter = readFilter(builder, builder.plain(call.input(1)), channelsOf(call, x));
    const window = readWindow(attributes, filter.kernel);
    const convolve = (image: Value, by: Window) => {
      const result = convolveImage(call, image, filter, by, fused.bias);
      return activate(builder, fused.activation, result, fused);
    };
    const image = call.input(0);
    return dilatedConvolution(image, window, convolve) ?? convolve(x, window);
  };
}

function convolveImage(
  call: Call,
  image: Value,
  filter: Filter,
  window: Window,
  bias: Value | undefined,
): Value {
  const { builder } = call;
  const { weight, outputs, group } = filter;
  const [batch, spatial] = [size(image, 0), spatialShape(call, image)];
  const { output, attributes } = slide(spatial, window);
  const inputs = [inImageLayout(call, image), weight, ...(bias ? [bias] : [])];
  return builder.op("Conv", inputs, { ...attributes, group }, imageType(call, batch, output, outputs));
}

/** What TF.js fuses into an operator. */
interface Fused {
  readonly bias: Value | undefined;
  readonly activation: string;
  readonly slope: Value | undefined;
  readonly alpha: number;
}

/**
 * Reads bias and activation of a fused operator; there are none when the node is not fused.
 * @throws PolyheadError MODEL_UNSUPPORTED for a fused batch normalisation, which TF.js does not have either
 */
export function readFused(call: Call): Fused {
  const fused = call.attributes.texts("fused_ops").map((name) => name.toLowerCase());
  const hasBias = fused[0] === "biasadd";
  const activation = (hasBias ? fused[1] : fused[0]) ?? "linear";
  if (activation === "fusedbatchnorm") throw unsupported("a fused batch normalisation");
  const extra = call.inputs.slice(2);
  return {
    bias: hasBias ? call.builder.plain(call.input(2)) : undefined,
    activation,
    slope: activation === "prelu" ? extra[hasBias ? 1 : 0] : undefined,
    alpha: call.attributes.float("leakyrelu_alpha", 0.2),
  };
}

function channelsOf(call: Call, image: Value): number {
  const channels = size(image, isChannelsFirstFormat(call.attributes) ? 1 : -1);
  if (typeof channels === "number" && channels > 0) return channels;
  throw unsupported("an image whose number of channels is known at run time only");
}

function spatialShape(call: Call, image: Value): SymbolicShape {
  return isChannelsFirstFormat(call.attributes) ? image.shape.slice(2) : image.shape.slice(1, -1);
}

/** The image stored channels first; an image in the format NCHW is stored so already. */
function inImageLayout(call: Call, image: Value): Value {
  const { builder } = call;
  return isChannelsFirstFormat(call.attributes) ? builder.plain(image) : builder.channelsFirst(image);
}

function imageType(call: Call, batch: Value["shape"][number], spatial: SymbolicShape, channels: number) {
  return isChannelsFirstFormat(call.attributes)
    ? ({ dtype: "float32", shape: [batch, channels, ...spatial], layout: "plain" } as const)
    : ({ dtype: "float32", shape: [batch, ...spatial, channels], layout: "channelsFirst" } as const);
}

/** Gradient of a convolution, which networks use to make images larger: (output shape, filter, image). */
function transposedConvolution(call: Call): Value {
  const { builder, attributes } = call;
  const image = builder.cast(call.input(2), "float32");
  const filter = builder.plain(call.input(1));
  const { kernel, last } = filterShape(filter);
  const [outputs] = last;
  const { strides, dilations, padding, explicit } = readWindow(attributes, kernel);
  const wanted = call.known(0) ?? [];
  const first = isChannelsFirstFormat(attributes) ? 2 : 1;

  const axes = spatialShape(call, image).map((input, axis) => {
    const [stride, extent] = [strides[axis] ?? 1, ((kernel[axis] ?? 1) - 1) * (dilations[axis] ?? 1) + 1];
    const stated = wanted[axis + first];
    const full = typeof input === "number" ? (input - 1) * stride + extent : undefined;
    const usual = padding === "SAME" ? stride - extent : Math.max(stride - extent, 0);
    const more = typeof stated === "number" && full !== undefined ? stated - full : usual;
    const output =
      typeof stated === "number"
        ? stated
        : full === undefined
          ? derived("grow", input, stride, more)
          : full + more;
    return { more, output, margins: explicit[axis] ?? [0, 0] };
  });
  const before = axes.map(({ more, margins }) =>
    padding === "EXPLICIT" ? margins[0] : Math.floor(Math.max(-more, 0) / 2),
  );
  const after = axes.map(({ more }, axis) => Math.max(-more, 0) - (before[axis] ?? 0));
  const rank = kernel.length;
  return builder.op(
    "ConvTranspose",
    [inImageLayout(call, image), builder.permute(filter, [rank + 1, rank, ...kernel.map((_, axis) => axis)])],
    {
      kernel_shape: kernel,
      strides,
      dilations,
      pads: [...before, ...after],
      output_padding: axes.map(({ more }) => Math.max(more, 0)),
    },
    imageType(
      call,
      size(image, 0),
      axes.map(({ output }) => output),
      outputs,
    ),
  );
}

/** Rules for convolutions. */
export const convolutionRules: Rules = {
  Conv2D: convolution(fullFilter),
  Conv3D: convolution(fullFilter),
  _FusedConv2D: convolution(fullFilter),
  DepthwiseConv2d: convolution(depthwiseFilter),
  DepthwiseConv2dNative: convolution(depthwiseFilter),
  FusedDepthwiseConv2dNative: convolution(depthwiseFilter),
  Conv2dTranspose: transposedConvolution,
  Conv2DBackpropInput: transposedConvolution,
};
