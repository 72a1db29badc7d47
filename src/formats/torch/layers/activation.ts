/** Activations. Formulas are those of PyTorch's documentation; constants of `SELU` are its own. */
import { type AttributeValue, float } from "../../../onnx/model.js";
import type { Value } from "../builder.js";
import type { Layer } from "../layer.js";
import type { Call, Rule } from "../rule.js";

/** An ONNX operator that does just this, with attributes taken from the layer. */
function operator(
  opType: string,
  attributes: (layer: Layer) => Readonly<Record<string, AttributeValue>> = () => ({}),
): Rule {
  return elementwise((call) => call.op(opType, [call.input], attributes(call.layer)));
}

function elementwise(apply: (call: Call) => Value): Rule {
  return { keeps: "shape", apply };
}

/** A softmax over the axis `dim`, which older files may leave open. */
function overAxis(apply: (call: Call, axis: number) => Value): Rule {
  return elementwise((call) => {
    const implicit = call.rank === 1 || call.rank === 3 ? 0 : 1;
    if (call.layer.setting("dim") === undefined)
      call.note(
        `${call.layer.label} names no axis; PyTorch's own choice of old, axis ${implicit}, was taken.`,
      );
    return apply(call, call.axis("dim", implicit));
  });
}

function clip(call: Call, low: number | undefined, high: number | undefined): Value {
  const bound = (number: number | undefined) =>
    number === undefined ? undefined : call.floats([], [number]);
  return call.op("Clip", [call.input, bound(low), bound(high)]);
}

function gelu(call: Call): Value {
  const { input, layer } = call;
  const isTanh = layer.word("approximate", ["none", "tanh"], "none") === "tanh";
  const inner = isTanh
    ? call.op("Tanh", [
        call.withNumber(
          "Mul",
          call.op("Add", [
            input,
            call.withNumber("Mul", call.op("Mul", [call.op("Mul", [input, input]), input]), 0.044715),
          ]),
          Math.sqrt(2 / Math.PI),
        ),
      ])
    : call.op("Erf", [call.withNumber("Div", input, Math.SQRT2)]);
  const gate = call.withNumber("Add", inner, 1);
  return call.withNumber("Mul", call.op("Mul", [input, gate]), 0.5);
}

/** log(1 + exp(beta x)) / beta, and x itself where beta x is above the threshold. */
function softplus(call: Call): Value {
  const beta = call.layer.number("beta", 1);
  const threshold = call.layer.number("threshold", 20);
  const scaled = beta === 1 ? call.input : call.withNumber("Mul", call.input, beta);
  const soft = call.op("Softplus", [scaled]);
  const curve = beta === 1 ? soft : call.withNumber("Div", soft, beta);
  const isLinear = call.withNumber("Greater", scaled, threshold);
  return call.op("Where", [isLinear, call.input, curve]);
}

/** One slope for all channels, or one for each. */
const PRELU: Rule = {
  keeps: "shape",
  expects: (layer) => {
    const [channels = 1] = layer.tensor("weight", 1).shape;
    return channels > 1 ? { channels } : {};
  },
  apply(call) {
    const weight = call.layer.tensor("weight", 1);
    const [count = 1] = weight.shape;
    if (count > 1) call.requireSize(1, count);
    const shape = count > 1 ? [count, ...Array(Math.max(0, call.rank - 2)).fill(1)] : [1];
    return call.op("PRelu", [call.input, call.weight("weight", weight, shape)]);
  },
};

function threshold(call: Call): Value {
  const value = call.floats([], [call.layer.number("value", 0)]);
  const isAbove = call.withNumber("Greater", call.input, call.layer.number("threshold", 0));
  return call.op("Where", [isAbove, call.input, value]);
}

function glu(call: Call): Value {
  const axis = call.axis("dim", -1);
  const size = call.knownSize(axis, "halves an axis");
  if (size % 2 !== 0) throw call.layer.unsupported(`halves an axis of ${size}`);
  const shape = call.shape.with(axis, size / 2);
  const part = (from: number, to: number) =>
    call.op("Slice", [call.input, call.ints([from]), call.ints([to]), call.ints([axis])], {}, shape);
  const gate = call.op("Sigmoid", [part(size / 2, size)], {}, shape);
  return call.op("Mul", [part(0, size / 2), gate], {}, shape);
}

/** x where |x| > lambd, less `lambd` towards zero if it is soft, and 0 else. */
function shrink(isSoft: boolean): Rule {
  return operator("Shrink", (layer) => {
    const lambd = layer.number("lambd", 0.5);
    return { lambd: float(lambd), bias: float(isSoft ? lambd : 0) };
  });
}

const SOFTMAX_2D = elementwise((call) => call.op("Softmax", [call.input], { axis: -3 }));

/** Rules by the names of the layers. */
export const ACTIVATION_RULES: readonly (readonly [kind: string, rule: Rule])[] = [
  ["ReLU", operator("Relu")],
  ["ReLU6", elementwise((call) => clip(call, 0, 6))],
  ["LeakyReLU", operator("LeakyRelu", (layer) => ({ alpha: float(layer.number("negative_slope", 0.01)) }))],
  [
    "RReLU",
    operator("LeakyRelu", (layer) => ({
      alpha: float((layer.number("lower", 1 / 8) + layer.number("upper", 1 / 3)) / 2),
    })),
  ],
  ["PReLU", PRELU],
  ["ELU", operator("Elu", (layer) => ({ alpha: float(layer.number("alpha", 1)) }))],
  ["CELU", operator("Celu", (layer) => ({ alpha: float(layer.number("alpha", 1)) }))],
  [
    "SELU",
    operator("Selu", () => ({
      alpha: float(1.6732632423543772),
      gamma: float(1.0507009873554805),
    })),
  ],
  ["GELU", elementwise(gelu)],
  ["SiLU", elementwise((call) => call.op("Mul", [call.input, call.op("Sigmoid", [call.input])]))],
  [
    "Mish",
    elementwise((call) => call.op("Mul", [call.input, call.op("Tanh", [call.op("Softplus", [call.input])])])),
  ],
  ["Hardswish", operator("HardSwish")],
  ["Hardsigmoid", operator("HardSigmoid", () => ({ alpha: float(1 / 6), beta: float(0.5) }))],
  [
    "Hardtanh",
    elementwise((call) => clip(call, call.layer.number("min_val", -1), call.layer.number("max_val", 1))),
  ],
  ["Hardshrink", shrink(false)],
  ["Softshrink", shrink(true)],
  ["Tanhshrink", elementwise((call) => call.op("Sub", [call.input, call.op("Tanh", [call.input])]))],
  ["Threshold", elementwise(threshold)],
  ["Sigmoid", operator("Sigmoid")],
  [
    "LogSigmoid",
    elementwise((call) => call.op("Neg", [call.op("Softplus", [call.op("Neg", [call.input])])])),
  ],
  ["Tanh", operator("Tanh")],
  ["Softplus", elementwise(softplus)],
  ["Softsign", operator("Softsign")],
  ["Softmax", overAxis((call, axis) => call.op("Softmax", [call.input], { axis }))],
  ["LogSoftmax", overAxis((call, axis) => call.op("LogSoftmax", [call.input], { axis }))],
  ["Softmin", overAxis((call, axis) => call.op("Softmax", [call.op("Neg", [call.input])], { axis }))],
  ["Softmax2d", SOFTMAX_2D],
  ["GLU", { apply: glu }],
];
