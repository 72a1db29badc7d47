/** Normalisations. In evaluation mode those with running statistics use them; the others measure their input. */
import { float } from "../../../onnx/model.js";
import type { Value } from "../builder.js";
import type { Layer } from "../layer.js";
import type { Call, Rule } from "../rule.js";
import { restoreShape } from "./reshaping.js";

const EPS = 1e-5;

/** The channels that a layer's tensors or settings tell. */
function channels(layer: Layer): number | undefined {
  for (const name of ["weight", "running_mean", "bias"])
    if (layer.has(name)) return layer.tensor(name, 1).shape[0];
  for (const name of ["num_features", "num_channels"])
    if (layer.setting(name) !== undefined) return layer.int(name, 0);
  return undefined;
}

function expectsChannels(rank: number | undefined) {
  return (layer: Layer) => {
    const count = channels(layer);
    return { ...(rank !== undefined && { rank }), ...(count !== undefined && { channels: count }) };
  };
}

/** A value's scale and shift by channel, where the layer has them. */
function scaled(call: Call, value: Value): Value {
  const [weight, bias] = [call.channelWeight("weight"), call.channelWeight("bias")];
  const larger = weight ? call.op("Mul", [value, weight]) : value;
  return bias ? call.op("Add", [larger, bias]) : larger;
}

/** (value - mean) / sqrt(variance + eps), both measured over some axes. */
function standardised(call: Call, axes: readonly number[], eps: number): Value {
  const small = call.shape.map((size, axis) => (axes.includes(axis) ? 1 : size));
  const mean = (value: Value) => call.op("ReduceMean", [value], { axes: [...axes], keepdims: 1 }, small);
  const centred = call.op("Sub", [call.input, mean(call.input)]);
  const variance = mean(call.op("Mul", [centred, centred]));
  return call.op("Div", [centred, call.op("Sqrt", [call.withNumber("Add", variance, eps)], {}, small)]);
}

/** Running statistics by channel, as one scale and shift. */
function byRunningStatistics(call: Call): Value {
  const { layer } = call;
  const mean = layer.tensor("running_mean", 1);
  const [count = 0] = mean.shape;
  const filled = (name: string, value: number) =>
    layer.has(name)
      ? call.weight(name, layer.tensor(name, 1))
      : call.floats([count], new Float32Array(count).fill(value));
  return call.op(
    "BatchNormalization",
    [
      call.input,
      filled("weight", 1),
      filled("bias", 0),
      call.weight("running_mean", mean),
      call.weight("running_var", layer.tensor("running_var", 1)),
    ],
    { epsilon: float(layer.number("eps", EPS)) },
  );
}

function requireChannels(call: Call): void {
  const count = channels(call.layer);
  if (count !== undefined) call.requireSize(1, count);
}

/** `BatchNorm` over inputs of one of these ranks. */
function batchNorm(...ranks: readonly number[]): Rule {
  return {
    keeps: "shape",
    expects: expectsChannels(ranks.length === 1 ? ranks[0] : undefined),
    apply(call) {
      call.requireRank(...ranks);
      requireChannels(call);
      if (call.layer.has("running_mean")) return byRunningStatistics(call);
      call.note(
        `${call.layer.label} keeps no running statistics and normalises over the batch, as it does in PyTorch: an answer depends on the other rows.`,
      );
      const axes = call.shape.flatMap((_, axis) => (axis === 1 ? [] : [axis]));
      return scaled(call, standardised(call, axes, call.layer.number("eps", EPS)));
    },
  };
}

/** `InstanceNorm`: each channel of each row, or by running statistics where the layer keeps them. */
function instanceNorm(rank: number): Rule {
  return {
    keeps: "shape",
    expects: expectsChannels(rank),
    apply(call) {
      call.requireRank(rank);
      requireChannels(call);
      if (call.layer.has("running_mean")) return byRunningStatistics(call);
      const axes = call.shape.flatMap((_, axis) => (axis < 2 ? [] : [axis]));
      return scaled(call, standardised(call, axes, call.layer.number("eps", EPS)));
    },
  };
}

/** `GroupNorm`: each group of channels of each row. */
const GROUP_NORM: Rule = {
  keeps: "shape",
  expects: expectsChannels(undefined),
  apply(call) {
    const groups = call.layer.int("num_groups", 1);
    requireChannels(call);
    const count = call.knownSize(1, "splits the channels");
    if (groups < 1 || count % groups !== 0)
      throw call.layer.wrong("num_groups", `a divisor of ${count}`, groups);
    const grouped = call.op("Reshape", [call.input, call.ints([0, groups, -1])], {}, [
      call.shape[0] ?? "batch",
      groups,
      "?",
    ]);
    const ones = (value: number) => call.floats([groups], new Float32Array(groups).fill(value));
    const normal = call.op(
      "InstanceNormalization",
      [grouped, ones(1), ones(0)],
      { epsilon: float(call.layer.number("eps", EPS)) },
      grouped.shape,
    );
    return scaled(call, restoreShape(call, normal));
  },
};

/** The axes of a `normalized_shape`, from the end, held to the input. */
function trailing(call: Call): { shape: readonly number[]; axis: number } {
  const shape = trailingShape(call.layer);
  if (!shape || shape.length >= call.rank)
    throw call.layer.wrong("normalized_shape", `fewer axes than the input's ${call.rank}`, shape);
  shape.forEach((size, at) => {
    call.requireSize(at - shape.length, size);
  });
  return { shape, axis: call.rank - shape.length };
}

function trailingShape(layer: Layer): readonly number[] | undefined {
  const given = layer.setting("normalized_shape");
  const list = typeof given === "number" ? [given] : given;
  if (Array.isArray(list) && list.every(Number.isSafeInteger)) return list;
  return layer.has("weight") ? layer.anyTensor("weight").shape : undefined;
}

/** `LayerNorm` over the last axes of each position. */
const LAYER_NORM: Rule = {
  keeps: "shape",
  expects: (layer) => ({ trailing: trailingShape(layer) ?? [] }),
  apply(call) {
    const { shape, axis } = trailing(call);
    const { layer } = call;
    const count = shape.reduce((product, size) => product * size, 1);
    const scale = layer.has("weight")
      ? call.weight("weight", layer.tensor("weight", shape.length))
      : call.floats(shape, new Float32Array(count).fill(1));
    const bias = layer.has("bias") ? call.weight("bias", layer.tensor("bias", shape.length)) : undefined;
    return call.op("LayerNormalization", [call.input, scale, bias], {
      axis,
      epsilon: float(layer.number("eps", EPS)),
    });
  },
};

/** `RMSNorm` over the last axes of each position; its default eps is that of float32. */
const RMS_NORM: Rule = {
  keeps: "shape",
  expects: (layer) => ({ trailing: trailingShape(layer) ?? [] }),
  apply(call) {
    const { shape, axis } = trailing(call);
    const axes = shape.map((_, at) => axis + at);
    const small = call.shape.map((size, at) => (at >= axis ? 1 : size));
    const square = call.op(
      "ReduceMean",
      [call.op("Mul", [call.input, call.input])],
      { axes, keepdims: 1 },
      small,
    );
    const eps = call.layer.number("eps", 2 ** -23);
    const root = call.op("Sqrt", [call.withNumber("Add", square, eps)], {}, small);
    const normal = call.op("Div", [call.input, root]);
    if (!call.layer.has("weight")) return normal;
    return call.op("Mul", [normal, call.weight("weight", call.layer.tensor("weight", shape.length))]);
  },
};

/** torchvision's `LayerNorm2d`: over the channels of each place of an image. */
const LAYER_NORM_2D: Rule = {
  keeps: "shape",
  expects: expectsChannels(4),
  apply(call) {
    call.requireRank(4);
    requireChannels(call);
    return scaled(call, standardised(call, [1], call.layer.number("eps", EPS)));
  },
};

const LOCAL_RESPONSE_NORM: Rule = {
  keeps: "shape",
  apply: (call) =>
    call.op("LRN", [call.input], {
      size: call.layer.int("size", 1),
      alpha: float(call.layer.number("alpha", 1e-4)),
      beta: float(call.layer.number("beta", 0.75)),
      bias: float(call.layer.number("k", 1)),
    }),
};

/** Rules by the names of the layers. */
export const NORMALISATION_RULES: readonly (readonly [kind: string, rule: Rule])[] = [
  ["BatchNorm1d", batchNorm(2, 3)],
  ["BatchNorm2d", batchNorm(4)],
  ["BatchNorm3d", batchNorm(5)],
  ["SyncBatchNorm", batchNorm(2, 3, 4, 5)],
  ["FrozenBatchNorm2d", batchNorm(4)],
  ["InstanceNorm1d", instanceNorm(3)],
  ["InstanceNorm2d", instanceNorm(4)],
  ["InstanceNorm3d", instanceNorm(5)],
  ["GroupNorm", GROUP_NORM],
  ["LayerNorm", LAYER_NORM],
  ["LayerNorm2d", LAYER_NORM_2D],
  ["RMSNorm", RMS_NORM],
  ["LocalResponseNorm", LOCAL_RESPONSE_NORM],
];
