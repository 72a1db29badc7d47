/** Normalisations: by statistics that came with the model, and by those of each row itself. */
import { float } from "../../../onnx/model.js";
import { elementCount, isConcrete } from "../../../tensor/shape.js";
import { float32 } from "../../../tensor/tensor.js";
import { derived } from "../../tfjs/dimension.js";
import { malformed } from "../../tfjs/json.js";
import { unsupported } from "../../tfjs/unsupported.js";
import { axisIndex, size, type Value } from "../../tfjs/value.js";
import type { LayerConfig } from "../config.js";
import type { LayerCall, LayerRule, LayerRules, WeightSpec } from "../rule.js";

/** `gamma` and `beta`, as far as the layer has them. */
function scaleAndCenter(config: LayerConfig): WeightSpec[] {
  return [
    ...(config.bool("scale", true) ? [{ name: "gamma" }] : []),
    ...(config.bool("center", true) ? [{ name: "beta" }] : []),
  ];
}

/** The one axis that a layer normalises along. */
function onlyAxis(config: LayerConfig, rank: number): number {
  const [axis = -1, ...more] = config.ints("axis") ?? [-1];
  if (more.length > 0) throw unsupported("a batch normalisation along several axes");
  return axisIndex(axis, rank);
}

const batchNormalization: LayerRule = {
  weights: (config) => [
    ...scaleAndCenter(config),
    { name: "moving_mean", isTrainable: false, aliases: ["running_mean"] },
    { name: "moving_variance", isTrainable: false, aliases: ["running_std", "moving_var"] },
  ],
  apply: (call) => {
    const { builder, config } = call;
    const x = call.real();
    const rank = x.shape.length;
    const axis = onlyAxis(config, rank);
    if (axis === 0) throw unsupported("a batch normalisation along the batch");
    const [mean, variance] = [call.weight("moving_mean"), call.weight("moving_variance")];
    const count = size(mean, 0);
    if (mean.shape.length !== 1 || typeof count !== "number")
      throw malformed(`The means have the shape [${mean.shape.join(", ")}]; expected one a channel.`);
    const all = (value: number) => builder.constant(float32([count], new Float32Array(count).fill(value)));
    const scale = call.optionalWeight("gamma") ?? all(1);
    const offset = call.optionalWeight("beta") ?? all(0);
    const normalized = (image: Value) =>
      builder.op(
        "BatchNormalization",
        [image, scale, offset, mean, variance],
        { epsilon: float(config.number("epsilon", 0.001)) },
        image,
      );
    if (axis === rank - 1 && rank > 2) return normalized(builder.channelsFirst(x));
    if (axis === 1) return normalized(builder.plain(x));
    const order = [0, axis, ...x.shape.map((_, at) => at).filter((at) => at !== 0 && at !== axis)];
    const back = order.map((_, at) => order.indexOf(at));
    return builder.permute(normalized(builder.permute(builder.plain(x), order)), back);
  },
};

/** (x - mean) / sqrt(variance + epsilon) of each row, scaled and moved element by element along some axes. */
const layerNormalization: LayerRule = {
  weights: scaleAndCenter,
  apply: (call) => {
    const { builder, config } = call;
    if (config.bool("rms_scaling", false)) throw unsupported("a layer normalisation by the root mean square");
    const x = builder.plain(call.real());
    const rank = x.shape.length;
    const axes = (config.ints("axis") ?? [-1]).map((axis) => axisIndex(axis, rank)).sort((a, b) => a - b);
    const [first = rank - 1] = axes;
    const isTail = axes.every((axis, at) => axis === first + at) && first + axes.length === rank;
    const epsilon = config.number("epsilon", 0.001);
    const [gamma, beta] = [call.optionalWeight("gamma"), call.optionalWeight("beta")];
    const tail = x.shape.slice(first);
    if (isTail && isConcrete(tail)) {
      const scale = gamma ?? builder.constant(float32(tail, new Float32Array(elementCount(tail)).fill(1)));
      const inputs = [x, scale, ...(beta ? [beta] : [])];
      return builder.op("LayerNormalization", inputs, { axis: first - rank, epsilon: float(epsilon) }, x);
    }
    const normalized = standardized(call, x, axes, epsilon);
    return scaled(call, normalized, spread(call, gamma, axes, rank), spread(call, beta, axes, rank));
  },
};

/** A weight along some axes as one that broadcasts with all of them. */
function spread(
  call: LayerCall,
  weight: Value | undefined,
  axes: readonly number[],
  rank: number,
): Value | undefined {
  if (!weight) return undefined;
  const shape = Array.from({ length: rank }, (_, axis) => {
    const at = axes.indexOf(axis);
    return at < 0 ? 1 : size(weight, at);
  });
  return call.builder.reshape(weight, shape);
}

function standardized(call: LayerCall, x: Value, axes: readonly number[], epsilon: number): Value {
  const { builder } = call;
  const shape = x.shape.map((each, axis) => (axes.includes(axis) ? 1 : each));
  const mean = (of: Value) =>
    builder.op("ReduceMean", [of], { axes: [...axes], keepdims: 1 }, { dtype: "float32", shape });
  const centred = builder.elementwise("Sub", [x, mean(x)], "float32");
  const variance = mean(builder.elementwise("Mul", [centred, centred], "float32"));
  const spreadOut = builder.elementwise("Add", [variance, builder.scalar("float32", epsilon)], "float32");
  return builder.elementwise("Div", [centred, builder.unary("Sqrt", spreadOut)], "float32");
}

function scaled(call: LayerCall, x: Value, scale: Value | undefined, offset: Value | undefined): Value {
  const { builder } = call;
  const larger = scale ? builder.elementwise("Mul", [x, scale], "float32") : x;
  return offset ? builder.elementwise("Add", [larger, offset], "float32") : larger;
}

/** By mean and variance of each group of channels of a row. */
const groupNormalization: LayerRule = {
  weights: scaleAndCenter,
  apply: (call) => {
    const { builder, config } = call;
    const x = call.real();
    const rank = x.shape.length;
    const axis = onlyAxis(config, rank);
    if (axis !== rank - 1 && axis !== 1) throw unsupported("a group normalisation along an inner axis");
    const image = axis === rank - 1 ? builder.channelsFirst(x) : builder.plain(x);
    const channels = size(x, axis);
    if (typeof channels !== "number")
      throw unsupported("a group normalisation of an open number of channels");
    const wanted = config.int("groups", 32);
    const groups = wanted === -1 ? channels : wanted;
    if (groups < 1 || channels % groups !== 0)
      throw malformed(`${channels} channels make no ${groups} groups.`);
    const ones = builder.constant(float32([groups], new Float32Array(groups).fill(1)));
    const zeros = builder.constant(float32([groups], new Float32Array(groups)));
    const rows = builder.op(
      "Reshape",
      [image, builder.int64s([0, groups, -1])],
      {},
      {
        dtype: "float32",
        shape: [size(x, 0), groups, derived("group", call.layer.name)],
      },
    );
    const epsilon = float(config.number("epsilon", 0.001));
    const normalized = builder.op("InstanceNormalization", [rows, ones, zeros], { epsilon }, rows);
    const shape = builder.op("Shape", [image], {}, { dtype: "int64", shape: [rank] });
    const back = builder.op("Reshape", [normalized, shape], {}, image);
    const [gamma, beta] = [call.optionalWeight("gamma"), call.optionalWeight("beta")];
    return scaled(call, back, spread(call, gamma, [axis], rank), spread(call, beta, [axis], rank));
  },
};

/** Divided by the length of the vectors along some axes. */
const unitNormalization: LayerRule = {
  apply: (call) => {
    const { builder, config } = call;
    const x = builder.plain(call.real());
    const axes = (config.ints("axis") ?? [-1]).map((axis) => axisIndex(axis, x.shape.length));
    return unitLength(call, x, axes, 1e-12);
  },
};

/** x / sqrt(max(sum of squares, least)) along some axes. */
export function unitLength(call: LayerCall, x: Value, axes: readonly number[], least: number): Value {
  const { builder } = call;
  const shape = x.shape.map((each, axis) => (axes.includes(axis) ? 1 : each));
  const squares = builder.elementwise("Mul", [x, x], "float32");
  const total = builder.op(
    "ReduceSum",
    [squares, builder.int64s(axes)],
    { keepdims: 1 },
    { dtype: "float32", shape },
  );
  const bounded = builder.elementwise("Max", [total, builder.scalar("float32", least)], "float32");
  return builder.elementwise("Div", [x, builder.unary("Sqrt", bounded)], "float32");
}

/** (x - mean) / max(sqrt(variance), 1e-7), by statistics that were measured before training or stand in the file. */
const normalization: LayerRule = {
  weights: (config, dialect) =>
    config.has("mean")
      ? []
      : [
          { name: "mean", isTrainable: false },
          { name: "variance", isTrainable: false },
          ...(dialect === "keras3" ? [] : [{ name: "count", isTrainable: false, isOptional: true }]),
        ],
  apply: (call) => {
    const { builder, config } = call;
    const x = builder.plain(call.real());
    const rank = x.shape.length;
    const axes = (config.has("axis") ? (config.ints("axis") ?? []) : config.raw.axis === null ? [] : [-1])
      .map((axis) => axisIndex(axis, rank))
      .sort((a, b) => a - b);
    const shape = x.shape.map((each, axis) => (axes.includes(axis) ? each : 1));
    const statistic = (name: string): Value => {
      const values = config.numbers(name);
      const given = values ? builder.constant(float32([values.length], values)) : call.weight(name);
      const own = isConcrete(given.shape) ? elementCount(given.shape) : 0;
      if (own === 1) return builder.reshape(given, []);
      if (isConcrete(shape) && elementCount(shape) === own) return builder.reshape(given, shape);
      throw malformed(`${own} statistics do not fit a value of the shape [${x.shape.join(", ")}].`);
    };
    const deviation = builder.elementwise(
      "Max",
      [builder.unary("Sqrt", statistic("variance")), builder.scalar("float32", 1e-7)],
      "float32",
    );
    const mean = statistic("mean");
    if (config.bool("invert", false))
      return builder.elementwise(
        "Add",
        [builder.elementwise("Mul", [x, deviation], "float32"), mean],
        "float32",
      );
    return builder.elementwise(
      "Div",
      [builder.elementwise("Sub", [x, mean], "float32"), deviation],
      "float32",
    );
  },
};

/** Rules for normalisations. */
export const normalizationRules: LayerRules = {
  BatchNormalization: batchNormalization,
  BatchNormalizationV1: batchNormalization,
  SyncBatchNormalization: batchNormalization,
  LayerNormalization: layerNormalization,
  GroupNormalization: groupNormalization,
  UnitNormalization: unitNormalization,
  Normalization: normalization,
};
