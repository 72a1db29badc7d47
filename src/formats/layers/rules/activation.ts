/**
 * Activations: as the argument of a layer, as a layer of their own, and those with parameters. Keras 3 changed
 * what `hard_sigmoid` is; each model gets that of its writer.
 */
import { float } from "../../../onnx/model.js";
import type { GraphBuilder } from "../../tfjs/builder.js";
import { isRecord, malformed } from "../../tfjs/json.js";
import { activate } from "../../tfjs/rules/activation.js";
import { unsupported } from "../../tfjs/unsupported.js";
import { axisIndex, storedAxis, type Value } from "../../tfjs/value.js";
import { LayerConfig } from "../config.js";
import type { Dialect, LayerCall, LayerRule, LayerRules } from "../rule.js";

type Activation = (builder: GraphBuilder, x: Value, dialect: Dialect) => Value;

const number = (builder: GraphBuilder, value: number) => builder.scalar("float32", value);
const times = (builder: GraphBuilder, x: Value, y: Value) => builder.elementwise("Mul", [x, y], "float32");
const plus = (builder: GraphBuilder, x: Value, y: Value) => builder.elementwise("Add", [x, y], "float32");

function clip(builder: GraphBuilder, x: Value, least: number | undefined, most: number | undefined): Value {
  const limits = [least, most].map((limit) => (limit === undefined ? undefined : number(builder, limit)));
  return builder.op("Clip", [x, ...limits], {}, x);
}

/** x clipped, as a straight line between two levels. */
function hard(builder: GraphBuilder, x: Value, alpha: number, beta: number): Value {
  return builder.op("HardSigmoid", [x], { alpha: float(alpha), beta: float(beta) }, x);
}

/** 0.2 x + 0.5 up to Keras 2 and in TF.js, x / 6 + 0.5 from Keras 3 on, between 0 and 1. */
const hardSigmoid: Activation = (builder, x, dialect) =>
  dialect === "keras3" ? hard(builder, x, 1 / 6, 0.5) : hard(builder, x, 0.2, 0.5);

/** x / 2 (1 + erf(x / sqrt 2)). */
const gelu: Activation = (builder, x) => {
  const error = builder.unary("Erf", times(builder, x, number(builder, Math.SQRT1_2)));
  return times(builder, times(builder, x, plus(builder, error, number(builder, 1))), number(builder, 0.5));
};

/** x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))). */
const geluByTanh: Activation = (builder, x) => {
  const cube = times(builder, times(builder, x, x), x);
  const inner = plus(builder, x, times(builder, cube, number(builder, 0.044715)));
  const bend = builder.unary("Tanh", times(builder, inner, number(builder, Math.sqrt(2 / Math.PI))));
  return times(builder, times(builder, x, plus(builder, bend, number(builder, 1))), number(builder, 0.5));
};

/** Zero between -limit and limit; `soft` draws the rest towards zero by it. */
function shrink(builder: GraphBuilder, x: Value, limit: number, bias: number): Value {
  return builder.op("Shrink", [x], { lambd: float(limit), bias: float(bias) }, x);
}

function overAxis(opType: string, axis = -1): Activation {
  return (builder, x) => builder.op(opType, [x], { axis: storedAxis(x, axisIndex(axis, x.shape.length)) }, x);
}

const named =
  (kind: string): Activation =>
  (builder, x) =>
    activate(builder, kind, x);
const swish: Activation = (builder, x) => times(builder, x, builder.unary("Sigmoid", x));

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  linear: (_, x) => x,
  relu: named("relu"),
  relu6: named("relu6"),
  elu: named("elu"),
  selu: named("selu"),
  sigmoid: named("sigmoid"),
  tanh: named("tanh"),
  softplus: named("softplus"),
  softsign: named("softsign"),
  softmax: overAxis("Softmax"),
  log_softmax: overAxis("LogSoftmax"),
  log_sigmoid: (builder, x) => builder.unary("Neg", builder.unary("Softplus", builder.unary("Neg", x))),
  hard_sigmoid: hardSigmoid,
  swish,
  silu: swish,
  hard_silu: (builder, x) => times(builder, x, hard(builder, x, 1 / 6, 0.5)),
  hard_swish: (builder, x) => times(builder, x, hard(builder, x, 1 / 6, 0.5)),
  hard_tanh: (builder, x) => clip(builder, x, -1, 1),
  gelu,
  gelu_new: geluByTanh,
  mish: (builder, x) => times(builder, x, builder.unary("Tanh", builder.unary("Softplus", x))),
  exponential: (builder, x) => builder.unary("Exp", x),
  leaky_relu: (builder, x) => activate(builder, "leakyrelu", x, { alpha: 0.2 }),
  celu: (builder, x) => builder.op("Celu", [x], { alpha: float(1) }, x),
  hard_shrink: (builder, x) => shrink(builder, x, 0.5, 0),
  soft_shrink: (builder, x) => shrink(builder, x, 0.5, 0.5),
  tanh_shrink: (builder, x) => builder.elementwise("Sub", [x, builder.unary("Tanh", x)], "float32"),
  squareplus: (builder, x) => {
    const root = builder.unary("Sqrt", plus(builder, times(builder, x, x), number(builder, 4)));
    return times(builder, plus(builder, x, root), number(builder, 0.5));
  },
};

/** Names that stand in files beside those of the table. */
const ALIASES: Readonly<Record<string, string>> = {
  hardsigmoid: "hard_sigmoid",
  logsoftmax: "log_softmax",
  lrelu: "leaky_relu",
};

/** Applies the activation that a layer names as its argument. */
export function applyActivation(call: LayerCall, x: Value, field = "activation"): Value {
  return activation(call, call.config.raw[field], x);
}

function activation(call: LayerCall, given: unknown, x: Value): Value {
  const name = nameOf(given);
  if (name !== undefined) {
    const snake = name.replace(/([a-z])([A-Z])/g, "$1_$2").toLowerCase();
    const key = Object.hasOwn(ALIASES, snake) ? (ALIASES[snake] ?? snake) : snake;
    const apply = Object.hasOwn(ACTIVATIONS, key) ? ACTIVATIONS[key] : undefined;
    if (!apply) throw unsupported(`the activation ${JSON.stringify(name)}`);
    return apply(call.builder, call.builder.cast(x, "float32"), call.dialect);
  }
  if (isRecord(given) && typeof given.class_name === "string") {
    const shape = Object.hasOwn(PARAMETRIC, given.class_name) ? PARAMETRIC[given.class_name] : undefined;
    const config = new LayerConfig(call.layer.name, isRecord(given.config) ? given.config : {});
    if (shape) return shape(call, config, call.builder.cast(x, "float32"));
    throw unsupported(`the activation ${JSON.stringify(given.class_name)}`);
  }
  throw malformed(`An activation is ${JSON.stringify(given)?.slice(0, 80)}.`, { got: given });
}

/** A name, or a function that Keras 3 serialised by its name. */
function nameOf(given: unknown): string | undefined {
  if (given === undefined || given === null) return "linear";
  if (typeof given === "string") return given;
  if (!isRecord(given) || typeof given.class_name !== "string") return undefined;
  if (given.class_name === "function" && typeof given.config === "string") return given.config;
  const isPlain = !Object.hasOwn(PARAMETRIC, given.class_name);
  return isPlain && !(typeof given.registered_name === "string" && given.registered_name.includes(">"))
    ? given.class_name
    : undefined;
}

type Parametric = (call: LayerCall, config: LayerConfig, x: Value) => Value;

/** f(x) = most for x >= most, x for threshold <= x < most, slope (x - threshold) below. */
const relu: Parametric = ({ builder }, config, x) => {
  const most = config.has("max_value") ? config.number("max_value", 0) : undefined;
  const slope = config.number("negative_slope", 0);
  const threshold = config.number("threshold", 0);
  if (slope === 0 && threshold === 0) {
    if (most === undefined) return activate(builder, "relu", x);
    return most === 6 ? activate(builder, "relu6", x) : clip(builder, x, 0, most);
  }
  const isAbove = builder.elementwise("GreaterOrEqual", [x, number(builder, threshold)], "bool");
  const above = most === undefined ? x : clip(builder, x, undefined, most);
  const below = times(builder, plus(builder, x, number(builder, -threshold)), number(builder, slope));
  return builder.elementwise("Where", [isAbove, above, below], "float32");
};

const leakyRelu: Parametric = ({ builder }, config, x) =>
  activate(builder, "leakyrelu", x, { alpha: config.number("negative_slope", config.number("alpha", 0.3)) });

const elu: Parametric = ({ builder }, config, x) =>
  builder.op("Elu", [x], { alpha: float(config.number("alpha", 1)) }, x);

/** x above theta, else zero. */
const thresholdedRelu: Parametric = ({ builder }, config, x) =>
  builder.op("ThresholdedRelu", [x], { alpha: float(config.number("theta", 1)) }, x);

const softmax: Parametric = ({ builder }, config, x) => {
  const axes = config.ints("axis") ?? [-1];
  const [axis = -1, ...more] = axes;
  if (more.length > 0) throw unsupported("a softmax over several axes");
  return overAxis("Softmax", axis)(builder, x, "keras2");
};

const PARAMETRIC: Readonly<Record<string, Parametric>> = {
  ReLU: relu,
  LeakyReLU: leakyRelu,
  ELU: elu,
  ThresholdedReLU: thresholdedRelu,
  Softmax: softmax,
};

/** Slopes below zero that were learnt, one an element, or shared along some axes. */
const prelu: LayerRule = {
  weights: () => [{ name: "alpha" }],
  apply: (call) => {
    const { builder } = call;
    const x = call.real();
    const slope = call.weight("alpha");
    if (slope.shape.length !== x.shape.length - 1) {
      throw malformed(
        `Slopes of the shape [${slope.shape.join(", ")}] do not fit a value of rank ${x.shape.length}.`,
      );
    }
    return builder.elementwise("PRelu", [x, slope], "float32");
  },
};

/** Rules for activations. */
export const activationRules: LayerRules = {
  Activation: { apply: (call) => applyActivation(call, call.input()) },
  PReLU: prelu,
  ...Object.fromEntries(
    Object.entries(PARAMETRIC).map(([name, shape]): [string, LayerRule] => [
      name,
      { apply: (call) => shape(call, call.config, call.real()) },
    ]),
  ),
};
