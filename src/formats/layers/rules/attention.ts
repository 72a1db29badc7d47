/** Attention of several heads over the rows of sequences, without masks. */

import { isConcrete } from "../../../tensor/shape.js";
import { float32 } from "../../../tensor/tensor.js";
import { malformed } from "../../tfjs/json.js";
import { unsupported } from "../../tfjs/unsupported.js";
import { size, type Value } from "../../tfjs/value.js";
import type { LayerConfig } from "../config.js";
import type { LayerCall, LayerRule, LayerRules, WeightSpec } from "../rule.js";

/** The four projections: their name among the weights, in TF.js, and as parts of the layer in Keras 3. */
const PROJECTIONS = [
  { name: "query", part: "query_dense" },
  { name: "key", part: "key_dense" },
  { name: "value", part: "value_dense" },
  { name: "attention_output", part: "output_dense", alias: "attentionOutput" },
] as const;

function weightsOf(config: LayerConfig): WeightSpec[] {
  const kinds = config.bool("use_bias", true) ? ["kernel", "bias"] : ["kernel"];
  return PROJECTIONS.flatMap((projection) =>
    kinds.map((kind, index) => ({
      name: `${projection.name}/${kind}`,
      aliases: "alias" in projection ? [`${projection.alias}/${kind}`] : [],
      part: { name: projection.part, index },
    })),
  );
}

function refuseMasks(call: LayerCall): void {
  const used = [
    ...Object.keys(call.named).filter((name) => name.endsWith("mask")),
    ...["use_causal_mask", "attention_mask", "query_mask", "value_mask", "key_mask"].filter((name) => {
      const value = call.options[name];
      return value !== undefined && value !== null && value !== false;
    }),
  ];
  if (used.length > 0) throw unsupported(`attention with ${used.join(", ")}`);
  if (call.options.return_attention_scores === true) throw unsupported("attention that returns its scores");
}

/** [batch, length, features] times [features, heads, size] plus [heads, size], as [batch, heads, length, size]. */
function projected(call: LayerCall, x: Value, name: string): Value {
  const { builder } = call;
  const kernel = call.weight(`${name}/kernel`);
  const offset = call.optionalWeight(`${name}/bias`);
  const [features, heads, width] = kernel.shape;
  if (
    !isConcrete(kernel.shape) ||
    typeof heads !== "number" ||
    typeof width !== "number" ||
    size(x, -1) !== features
  ) {
    throw malformed(
      `The kernel ${name} of the shape [${kernel.shape.join(", ")}] is applied to a value of the shape [${x.shape.join(", ")}].`,
      { kernel: kernel.shape, input: x.shape },
    );
  }
  const matrix = builder.reshape(kernel, [Number(features), heads * width]);
  const type = { dtype: "float32", shape: [size(x, 0), size(x, 1), heads * width] } as const;
  const made = builder.op("MatMul", [x, matrix], {}, type);
  const moved = offset
    ? builder.elementwise("Add", [made, builder.reshape(offset, [heads * width])], "float32")
    : made;
  const apart = builder.op(
    "Reshape",
    [moved, builder.int64s([0, 0, heads, width])],
    {},
    {
      dtype: "float32",
      shape: [size(x, 0), size(x, 1), heads, width],
    },
  );
  return builder.permute(apart, [0, 2, 1, 3]);
}

const multiHeadAttention: LayerRule = {
  weights: weightsOf,
  apply: (call) => {
    const { builder, config } = call;
    refuseMasks(call);
    const real = (value: Value) => builder.plain(builder.cast(value, "float32"));
    const query = real(call.inputs[0] ?? call.named.query ?? call.input(0));
    const value = real(call.inputs[1] ?? call.named.value ?? call.input(1));
    const key = real(call.inputs[2] ?? call.named.key ?? value);
    if ([query, value, key].some((each) => each.shape.length !== 3))
      throw unsupported("attention over values of more than three axes");
    const axes = config.ints("attention_axes") ?? [1];
    if (axes.length !== 1 || axes[0] !== 1) throw unsupported(`attention along the axes ${axes.join(", ")}`);

    const [q, k, v] = [
      projected(call, query, "query"),
      projected(call, key, "key"),
      projected(call, value, "value"),
    ];
    const width = config.int("key_dim", 1);
    const scaled = builder.elementwise(
      "Mul",
      [q, builder.constant(float32([], [1 / Math.sqrt(width)]))],
      "float32",
    );
    const shape = [size(q, 0), size(q, 1), size(q, 2), size(k, 2)];
    const scores = builder.op(
      "MatMul",
      [scaled, builder.permute(k, [0, 1, 3, 2])],
      {},
      { dtype: "float32", shape },
    );
    const weights = builder.op("Softmax", [scores], { axis: 3 }, scores);
    const mixed = builder.op(
      "MatMul",
      [weights, v],
      {},
      {
        dtype: "float32",
        shape: [size(q, 0), size(q, 1), size(q, 2), size(v, 3)],
      },
    );
    return joined(call, builder.permute(mixed, [0, 2, 1, 3]));
  },
};

/** [batch, length, heads, size] times [heads, size, features] plus [features]. */
function joined(call: LayerCall, x: Value): Value {
  const { builder } = call;
  const kernel = call.weight("attention_output/kernel");
  const offset = call.optionalWeight("attention_output/bias");
  const [heads, width, features] = kernel.shape;
  if (
    typeof heads !== "number" ||
    typeof width !== "number" ||
    typeof features !== "number" ||
    kernel.shape.length !== 3
  )
    throw unsupported("attention whose result has more than three axes");
  const flat = builder.op(
    "Reshape",
    [x, builder.int64s([0, 0, heads * width])],
    {},
    {
      dtype: "float32",
      shape: [size(x, 0), size(x, 1), heads * width],
    },
  );
  const matrix = builder.reshape(kernel, [heads * width, features]);
  const type = { dtype: "float32", shape: [size(x, 0), size(x, 1), features] } as const;
  const made = builder.op("MatMul", [flat, matrix], {}, type);
  return offset ? builder.elementwise("Add", [made, offset], "float32") : made;
}

/** Dot-product attention without weights of its own but for an optional scale: softmax(query key') value. */
const attention: LayerRule = {
  weights: (config) => (config.bool("use_scale", false) ? [{ name: "scale" }] : []),
  apply: (call) => {
    const { builder, config } = call;
    refuseMasks(call);
    if (config.text("score_mode", "dot") !== "dot")
      throw unsupported(`attention by ${config.text("score_mode", "dot")}`);
    if (config.bool("causal", false)) throw unsupported("causal attention");
    const [query, value] = [builder.plain(call.real(0)), builder.plain(call.real(1))];
    const key = call.inputs.length > 2 ? builder.plain(call.real(2)) : value;
    if ([query, value, key].some((each) => each.shape.length !== 3))
      throw unsupported("attention over values of more than three axes");
    const shape = [size(query, 0), size(query, 1), size(key, 1)];
    const product = builder.op(
      "MatMul",
      [query, builder.permute(key, [0, 2, 1])],
      {},
      { dtype: "float32", shape },
    );
    const scale = call.optionalWeight("scale");
    const scores = scale ? builder.elementwise("Mul", [product, scale], "float32") : product;
    const weights = builder.op("Softmax", [scores], { axis: 2 }, scores);
    const result = [size(query, 0), size(query, 1), size(value, 2)];
    return builder.op("MatMul", [weights, value], {}, { dtype: "float32", shape: result });
  },
};

/** Rules for attention. */
export const attentionRules: LayerRules = {
  MultiHeadAttention: multiHeadAttention,
  Attention: attention,
};
