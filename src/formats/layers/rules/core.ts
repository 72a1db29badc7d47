/** Dense layers, embeddings, layers that change the shape only, and those that do nothing in evaluation. */
import { elementCount, isConcrete, type SymbolicShape } from "../../../tensor/shape.js";
import { addAxes } from "../../tfjs/axes.js";
import { product, quotient } from "../../tfjs/dimension.js";
import { malformed } from "../../tfjs/json.js";
import { unsupported } from "../../tfjs/unsupported.js";
import { layoutOfOrder, size, storedOrder, type Value } from "../../tfjs/value.js";
import type { LayerCall, LayerRule, LayerRules } from "../rule.js";
import { applyActivation } from "./activation.js";

const dense: LayerRule = {
  weights: (config) => [{ name: "kernel" }, ...(config.bool("use_bias", true) ? [{ name: "bias" }] : [])],
  apply: (call) => {
    if (call.config.has("lora_rank")) throw unsupported("weights of low rank beside a kernel (LoRA)");
    return applyActivation(
      call,
      multiply(call, call.builder.plain(call.real()), call.weight("kernel"), call.optionalWeight("bias")),
    );
  },
};

/**
 * x times a matrix, plus an offset, over the last axis.
 * @throws PolyheadError MODEL_MALFORMED when the matrix does not fit
 */
export function multiply(call: LayerCall, x: Value, matrix: Value, offset: Value | undefined): Value {
  const { builder } = call;
  const [rows, columns] = matrix.shape;
  const inputs = size(x, -1);
  if (matrix.shape.length !== 2 || columns === undefined || (typeof inputs === "number" && inputs !== rows)) {
    throw malformed(
      `A kernel of the shape [${matrix.shape.join(", ")}] is applied to a value of the shape [${x.shape.join(", ")}].`,
      { kernel: matrix.shape, input: x.shape },
    );
  }
  const type = { dtype: "float32", shape: [...x.shape.slice(0, -1), columns] } as const;
  if (offset && x.shape.length === 2) return builder.op("Gemm", [x, matrix, offset], {}, type);
  const made = builder.op("MatMul", [x, matrix], {}, type);
  return offset ? builder.elementwise("Add", [made, offset], "float32") : made;
}

const embedding: LayerRule = {
  weights: () => [{ name: "embeddings" }],
  apply: (call) => {
    const { builder, config } = call;
    if (config.bool("mask_zero", false)) throw unsupported("an embedding that masks zeros");
    if (config.has("lora_rank")) throw unsupported("weights of low rank beside an embedding (LoRA)");
    const table = call.weight("embeddings");
    const index = builder.cast(builder.plain(call.input()), "int64");
    if (table.shape.length !== 2) throw malformed(`An embedding has the shape [${table.shape.join(", ")}].`);
    const shape = [...index.shape, size(table, 1)];
    return builder.op("Gather", [table, index], { axis: 0 }, { dtype: "float32", shape });
  },
};

/** The value in another shape behind the batch, of which one size may be -1. */
export function reshapeRows(call: LayerCall, given: Value, target: readonly number[]): Value {
  const value = call.builder.plain(given);
  const rest = value.shape.slice(1);
  const open = target.filter((each) => each < 0);
  if (open.length > 1 || target.some((each) => each < -1))
    throw malformed(`A target shape is [${target.join(", ")}].`);
  const left = quotient(
    rest,
    target.filter((each) => each >= 0),
  );
  if (open.length === 1 && left === undefined) {
    throw isConcrete(rest)
      ? malformed(`A value of the shape [${rest.join(", ")}] is to become [${target.join(", ")}].`)
      : unsupported("a reshape of sizes that are open");
  }
  const shape: SymbolicShape = [size(value, 0), ...target.map((each) => (each === -1 ? (left ?? 1) : each))];
  const own = shape.slice(1);
  if (isConcrete(rest) && isConcrete(own) && elementCount(rest) !== elementCount(own)) {
    throw malformed(`A value of the shape [${rest.join(", ")}] is to become [${own.join(", ")}].`);
  }
  return call.builder.reshape(value, shape);
}

const reshape: LayerRule = {
  apply: (call) => reshapeRows(call, call.input(), call.config.shape("target_shape")),
};

/** Keras brings channels that stand first to the end before it flattens. */
const flatten: LayerRule = {
  apply: (call) => {
    const { builder, config } = call;
    const value = builder.plain(call.input());
    const rank = value.shape.length;
    const turned =
      config.isChannelsFirst && rank > 2
        ? builder.permute(value, [0, ...Array.from({ length: rank - 2 }, (_, axis) => axis + 2), 1])
        : value;
    const rest = product(turned.shape.slice(1));
    return builder.reshape(turned, [size(value, 0), rest]);
  },
};

const permute: LayerRule = {
  apply: (call) => {
    const { builder } = call;
    const value = call.input();
    const rank = value.shape.length;
    const order = [0, ...(call.config.ints("dims") ?? [])];
    if (
      order.length !== rank ||
      new Set(order).size !== rank ||
      order.some((axis) => axis < 0 || axis >= rank)
    ) {
      throw malformed(`[${order.slice(1).join(", ")}] is no order of the axes 1 to ${rank - 1}.`, { order });
    }
    const shape = order.map((axis) => size(value, axis));
    const layout = layoutOfOrder(storedOrder(value.layout, rank).map((axis) => order.indexOf(axis)));
    return layout ? builder.relabel(value, shape, layout) : builder.permute(builder.plain(value), order);
  },
};

const repeatVector: LayerRule = {
  apply: (call) => {
    const { builder } = call;
    const count = call.config.int("n", 1);
    const row = addAxes(builder, builder.plain(call.input()), [1]);
    if (row.shape.length !== 3 || count < 1)
      throw malformed(`A vector of rank ${row.shape.length - 1} is repeated ${count} times.`);
    const shape = [size(row, 0), count, size(row, 2)];
    return builder.op("Tile", [row, builder.int64s([1, count, 1])], {}, { dtype: row.dtype, shape });
  },
};

/** What a layer is in evaluation that changes values in training only. */
const identity: LayerRule = { apply: (call) => call.input() };

/** Rules for core layers. */
export const coreRules: LayerRules = {
  Dense: dense,
  Embedding: embedding,
  Reshape: reshape,
  Flatten: flatten,
  Permute: permute,
  RepeatVector: repeatVector,
  Identity: identity,
  Dropout: identity,
  SpatialDropout1D: identity,
  SpatialDropout2D: identity,
  SpatialDropout3D: identity,
  GaussianDropout: identity,
  GaussianNoise: identity,
  AlphaDropout: identity,
  ActivityRegularization: identity,
  RandomFlip: identity,
  RandomRotation: identity,
  RandomZoom: identity,
  RandomTranslation: identity,
  RandomContrast: identity,
  RandomBrightness: identity,
  RandomShear: identity,
  RandomPerspective: identity,
  RandomHue: identity,
  RandomSaturation: identity,
  RandomSharpness: identity,
  RandomGrayscale: identity,
  RandomColorJitter: identity,
  RandomColorDegeneration: identity,
  RandomPosterization: identity,
  RandomInvert: identity,
  RandomErasing: identity,
  RandomGaussianBlur: identity,
};
