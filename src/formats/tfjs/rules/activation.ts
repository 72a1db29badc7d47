/** Activations, which stand alone in a graph or are fused into convolutions and products of matrices. */
import { float } from "../../../onnx/model.js";
import { elementCount, isConcrete } from "../../../tensor/shape.js";
import type { GraphBuilder } from "../builder.js";
import { unsupported } from "../unsupported.js";
import type { Value } from "../value.js";

/** Up to so many elements a row, accuracy is worth more than speed. */
const SHORT_ROW = 64;

/** Activations that ONNX has under another name only. */
const ONNX_NAMES: Readonly<Record<string, string>> = {
  elu: "Elu",
  selu: "Selu",
  sigmoid: "Sigmoid",
  tanh: "Tanh",
  softplus: "Softplus",
  softsign: "Softsign",
};

/**
 * Applies an activation by its name in lower case, as TF.js writes them.
 * @param options `alpha` is the slope below zero of leakyrelu, `slope` the tensor of slopes of prelu
 * @throws PolyheadError MODEL_UNSUPPORTED for other names
 */
export function activate(
  builder: GraphBuilder,
  kind: string,
  x: Value,
  options: { readonly alpha?: number; readonly slope?: Value | undefined } = {},
): Value {
  if (kind === "linear") return x;
  if (kind === "relu") return builder.op("Relu", [x], {}, x);
  if (kind === "relu6")
    return builder.op("Clip", [x, builder.scalar(x.dtype, 0), builder.scalar(x.dtype, 6)], {}, x);

  const input = builder.cast(x, "float32");
  if (kind === "leakyrelu")
    return builder.op("LeakyRelu", [input], { alpha: float(options.alpha ?? 0.2) }, input);
  if (kind === "prelu" && options.slope)
    return builder.elementwise("PRelu", [input, options.slope], "float32");
  if (kind === "sigmoid" && isShort(input)) return exactSigmoid(builder, input);
  const opType = Object.hasOwn(ONNX_NAMES, kind) ? ONNX_NAMES[kind] : undefined;
  if (opType === undefined) throw unsupported(`activation ${kind}`);
  return builder.op(opType, [input], {}, input);
}

/** Whether a value has few elements, as the probabilities at the end of a network have. */
function isShort(value: Value): boolean {
  const row = value.shape.slice(1);
  return isConcrete(row) && elementCount(row) <= SHORT_ROW;
}

/**
 * 1 / (1 + exp(-x)). ONNX Runtime's Sigmoid is an approximation with an absolute error of about 1e-8, which is
 * much for a probability near zero.
 */
function exactSigmoid(builder: GraphBuilder, x: Value): Value {
  const power = builder.unary("Exp", builder.unary("Neg", x));
  return builder.unary(
    "Reciprocal",
    builder.elementwise("Add", [power, builder.scalar("float32", 1)], "float32"),
  );
}
