/** Operators that work element by element, and those whose result is shaped like their first input. */
import { canonicalDomain } from "../model.js";
import { dtypeOfCode } from "../weight.js";
import { broadcast } from "./broadcasting.js";
import { withAxis } from "./sizes.js";
import type { Known, NodeView, Rule } from "./view.js";

/** The first output is like the first input. */
export const likeFirst: Rule = (view) => [{ dtype: view.dtype(), shape: view.shape() }];

/** The first output is like the input at `place`. */
export const like =
  (place: number): Rule =>
  (view) => [{ dtype: view.dtype(place), shape: view.shape(place) }];

/** All inputs broadcast; the result has the dtype of the first. */
export const broadcasts: Rule = (view) => [{ dtype: view.dtype(), shape: broadcastInputs(view) }];

const compares: Rule = (view) => [{ dtype: "bool", shape: broadcastInputs(view) }];
const tests: Rule = (view) => [{ dtype: "bool", shape: view.shape() }];

function broadcastInputs(view: NodeView): Known["shape"] {
  // Before operator set 7 the second input was fitted to the first.
  if (view.opset < 7 && canonicalDomain(view.node.domain) === "") return view.shape();
  const shapes = view.shapes();
  return shapes && broadcast(view, shapes);
}

const where: Rule = (view) => {
  const shapes = view.shapes();
  return [{ dtype: view.dtype(1) ?? view.dtype(2), shape: shapes && broadcast(view, shapes) }];
};

const cast: Rule = (view) => [{ dtype: dtypeOfCode(view.int("to", 0)), shape: view.shape() }];
const castLike: Rule = (view) => [{ dtype: view.dtype(1), shape: view.shape() }];

const dropout: Rule = (view) => [
  { dtype: view.dtype(), shape: view.shape() },
  { dtype: view.opset < 10 ? view.dtype() : "bool", shape: view.shape() },
];

const batchNormalization: Rule = (view) => {
  const channels: Known = { dtype: view.dtype(3), shape: view.shape(3) };
  return [{ dtype: view.dtype(), shape: view.shape() }, channels, channels, channels, channels];
};

const layerNormalization: Rule = (view) => {
  const shape = view.shape();
  const from = shape && view.axis(-1, shape.length);
  const statistics: Known = {
    dtype: dtypeOfCode(view.int("stash_type", 1)),
    shape: from === undefined ? undefined : shape?.map((size, axis) => (axis < from ? size : 1)),
  };
  return [{ dtype: view.dtype(), shape }, statistics, statistics];
};

/** Inputs 0 and 1 are added, normalised; the fourth output is their sum. */
const skipLayerNormalization: Rule = (view) => {
  const same: Known = { dtype: view.dtype(), shape: view.shape() };
  return [same, undefined, undefined, same];
};

const randomLike: Rule = (view) => [
  { dtype: dtypeOfCode(view.int("dtype", 0)) ?? view.dtype(), shape: view.shape() },
];
const random: Rule = (view) => [
  { dtype: dtypeOfCode(view.int("dtype", 1)), shape: view.ints("shape") ?? undefined },
];

const quantize: Rule = (view) => [
  {
    dtype: view.has(2) ? view.dtype(2) : (dtypeOfCode(view.int("output_dtype", 0)) ?? "uint8"),
    shape: view.shape(),
  },
];
const dequantize: Rule = (view) => [{ dtype: view.dtype(1), shape: view.shape() }];
const dynamicQuantize: Rule = (view) => [
  { dtype: "uint8", shape: view.shape() },
  { dtype: "float32", shape: [] },
  { dtype: "uint8", shape: [] },
];
const quantizedBinary: Rule = (view) => {
  const a = view.shape(0);
  const b = view.shape(3);
  return [{ dtype: view.dtype(), shape: a && b && broadcast(view, [a, b]) }];
};
const quantizedConcat: Rule = (view) => {
  const shapes = Array.from({ length: Math.ceil((view.inputCount - 2) / 3) }, (_, at) =>
    view.shape(2 + 3 * at),
  ).filter((shape) => shape !== undefined);
  const [first] = shapes;
  const axis = first && view.axis(1, first.length);
  if (!first || axis === undefined) return [{ dtype: view.dtype(1) }];
  const sizes = shapes.map((shape) => shape[axis]);
  const isKnown =
    shapes.length * 3 + 2 === view.inputCount && sizes.every((size) => typeof size === "number");
  const size = isKnown ? sizes.reduce((sum, each) => sum + each, 0) : view.unknown();
  return [{ dtype: view.dtype(1), shape: withAxis(first, axis, size) }];
};

const LIKE_FIRST = [
  ..."Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh CumProd CumSum Elu Erf Exp Floor".split(
    " ",
  ),
  ..."Gelu GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization LRN LeakyRelu Log".split(
    " ",
  ),
  ..."LogSoftmax LpNormalization MeanVarianceNormalization Mish Neg Not PRelu Reciprocal Relu Round Selu".split(
    " ",
  ),
  ..."Scatter ScatterElements ScatterND TensorScatter Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign".split(
    " ",
  ),
  ..."Sqrt Swish Tan Tanh ThresholdedRelu Trilu RMSNormalization ReverseSequence BiasGelu FastGelu QuickGelu".split(
    " ",
  ),
  ..."QLinearSigmoid QLinearLeakyRelu QLinearSoftmax Scaler Normalizer Imputer RotaryEmbedding".split(" "),
];
const BROADCASTS =
  "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Max Mean Min Mod Mul Or Pow Sub Sum Xor".split(" ");
const COMPARES = "Equal Greater GreaterOrEqual Less LessOrEqual".split(" ");

/** Rules of this file by operator. */
export const ELEMENTWISE: Readonly<Record<string, Rule>> = {
  ...Object.fromEntries(LIKE_FIRST.map((opType) => [opType, likeFirst])),
  ...Object.fromEntries(BROADCASTS.map((opType) => [opType, broadcasts])),
  ...Object.fromEntries(COMPARES.map((opType) => [opType, compares])),
  IsInf: tests,
  IsNaN: tests,
  Where: where,
  Cast: cast,
  CastLike: castLike,
  Dropout: dropout,
  BatchNormalization: batchNormalization,
  LayerNormalization: layerNormalization,
  SkipLayerNormalization: skipLayerNormalization,
  Bernoulli: randomLike,
  EyeLike: randomLike,
  RandomNormalLike: randomLike,
  RandomUniformLike: randomLike,
  RandomNormal: random,
  RandomUniform: random,
  QuantizeLinear: quantize,
  DequantizeLinear: dequantize,
  DynamicQuantizeLinear: dynamicQuantize,
  QLinearAdd: quantizedBinary,
  QLinearMul: quantizedBinary,
  QLinearConcat: quantizedConcat,
};
