/**
 * Operators that work on each element by itself: arithmetic, comparison, logic, conversion. Values that
 * broadcast are brought to one layout; mixed dtypes are widened as TF.js does it (bool, int32, float32).
 */
import type { DType } from "../../../tensor/dtype.js";
import { addAxes } from "../axes.js";
import type { GraphBuilder } from "../builder.js";
import type { Call, Rule, Rules } from "../rule.js";
import { unsupported } from "../unsupported.js";
import type { Value } from "../value.js";
import { activate } from "./activation.js";

const WIDTHS: readonly DType[] = ["bool", "int32", "float32"];

/** The values in the narrowest dtype that holds all of them, but at least in `least`. */
export function widened(builder: GraphBuilder, values: readonly Value[], least: DType = "bool"): Value[] {
  const width = Math.max(WIDTHS.indexOf(least), ...values.map((value) => WIDTHS.indexOf(value.dtype)));
  const dtype = WIDTHS[width] ?? "float32";
  return values.map((value) => builder.cast(value, dtype));
}

/** A rule that gives the function its one input. */
function unary(compute: (builder: GraphBuilder, x: Value) => Value): Rule {
  return (call) => compute(call.builder, call.input(0));
}

/** A rule that gives the function its two inputs in one dtype. */
function binary(compute: (builder: GraphBuilder, x: Value, y: Value) => Value, least: DType = "bool"): Rule {
  return (call) => {
    const [x, y] = widened(call.builder, [call.input(0), call.input(1)], least);
    return compute(call.builder, x ?? call.input(0), y ?? call.input(1));
  };
}

/** An ONNX operator on real numbers. */
function real(opType: string): Rule {
  return unary((builder, x) => apply(builder, opType, builder.cast(x, "float32")));
}

/** An ONNX operator that changes nothing about whole numbers. */
function rounding(opType: string): Rule {
  return unary((builder, x) => (x.dtype === "float32" ? apply(builder, opType, x) : x));
}

/** An ONNX operator on any numbers. */
function numeric(opType: string): Rule {
  return unary((builder, x) => apply(builder, opType, x.dtype === "bool" ? builder.cast(x, "int32") : x));
}

function arithmetic(opType: string): Rule {
  return binary((builder, x, y) => builder.elementwise(opType, [x, y], x.dtype), "int32");
}

function comparison(opType: string): Rule {
  return binary((builder, x, y) => builder.elementwise(opType, [x, y], "bool"), "int32");
}

function logic(opType: string): Rule {
  return (call) => {
    const inputs = call.inputs.map((input) => call.builder.cast(input, "bool"));
    return call.builder.elementwise(opType, inputs, "bool");
  };
}

/** An operator that keeps dtype, shape and layout. */
function apply(builder: GraphBuilder, opType: string, x: Value): Value {
  return builder.unary(opType, x);
}

function add(builder: GraphBuilder, x: Value, y: Value): Value {
  return builder.elementwise("Add", [x, y], x.dtype);
}

function subtract(builder: GraphBuilder, x: Value, y: Value): Value {
  return builder.elementwise("Sub", [x, y], x.dtype);
}

function multiply(builder: GraphBuilder, x: Value, y: Value): Value {
  return builder.elementwise("Mul", [x, y], x.dtype);
}

function divide(builder: GraphBuilder, x: Value, y: Value): Value {
  return builder.elementwise("Div", [x, y], x.dtype);
}

function not(builder: GraphBuilder, x: Value): Value {
  return builder.op("Not", [x], {}, { dtype: "bool", shape: x.shape, layout: x.layout });
}

function test(builder: GraphBuilder, opType: string, x: Value): Value {
  const { shape, layout } = x;
  return builder.op(opType, [builder.cast(x, "float32")], {}, { dtype: "bool", shape, layout });
}

/** The remainder that has the divisor's sign. */
function floorModulo(builder: GraphBuilder, x: Value, y: Value): Value {
  if (x.dtype === "int32") return builder.elementwise("Mod", [x, y], "int32");
  return subtract(builder, x, multiply(builder, floorDivide(builder, x, y), y));
}

function floorDivide(builder: GraphBuilder, x: Value, y: Value): Value {
  if (x.dtype === "int32") return divide(builder, subtract(builder, x, floorModulo(builder, x, y)), y);
  return apply(builder, "Floor", divide(builder, x, y));
}

function divideNoNan(builder: GraphBuilder, x: Value, y: Value): Value {
  const zero = builder.scalar(x.dtype, 0);
  const isZero = builder.elementwise("Equal", [y, zero], "bool");
  const divisor = builder.elementwise("Where", [isZero, builder.scalar(x.dtype, 1), y], x.dtype);
  return builder.elementwise("Where", [isZero, zero, divide(builder, x, divisor)], x.dtype);
}

function squaredDifference(builder: GraphBuilder, x: Value, y: Value): Value {
  const difference = subtract(builder, x, y);
  return multiply(builder, difference, difference);
}

/** The angle of the point (x, y), from the arc tangent of y / x and the signs of both. */
function angle(builder: GraphBuilder, y: Value, x: Value): Value {
  const constant = (value: number) => builder.scalar("float32", value);
  const choose = (condition: Value, yes: Value, no: Value) =>
    builder.elementwise("Where", [condition, yes, no], "float32");
  const below = builder.elementwise("Less", [y, constant(0)], "bool");
  const left = builder.elementwise("Less", [x, constant(0)], "bool");
  const upright = builder.elementwise("Equal", [x, constant(0)], "bool");
  const slope = divide(builder, y, choose(upright, constant(1), x));
  const turned = add(
    builder,
    apply(builder, "Atan", slope),
    choose(below, constant(-Math.PI), constant(Math.PI)),
  );
  const vertical = multiply(builder, apply(builder, "Sign", y), constant(Math.PI / 2));
  return choose(upright, vertical, choose(left, turned, apply(builder, "Atan", slope)));
}

function clip(call: Call): Value {
  const { builder } = call;
  const x = call.input(0);
  const limits = [1, 2].map((index) => builder.reshape(builder.cast(call.input(index), x.dtype), []));
  return builder.op("Clip", [x, ...limits], {}, x);
}

function select(call: Call): Value {
  const { builder } = call;
  const [yes, no] = widened(builder, [call.input(1), call.input(2)]);
  if (!yes || !no) throw unsupported("a choice between no values");
  let condition = builder.cast(call.input(0), "bool");
  const rank = yes.shape.length;
  if (call.op === "Select" && condition.shape.length === 1 && rank > 1) {
    condition = addAxes(
      builder,
      condition,
      Array.from({ length: rank - 1 }, (_, axis) => axis + 1),
    );
  }
  return builder.elementwise("Where", [condition, yes, no], yes.dtype);
}

function cast(call: Call): Value {
  const dtype = call.attributes.dtype("DstT");
  if (!dtype) throw unsupported("conversion to a dtype that TF.js does not have");
  return call.builder.cast(call.input(0), dtype);
}

function addAll(call: Call): Value {
  const { builder } = call;
  return widened(builder, call.inputs).reduce((left, right) => add(builder, left, right));
}

const one = (builder: GraphBuilder) => builder.scalar("float32", 1);
const clone: Rule = (call) => call.slot(0);
const activation =
  (kind: string): Rule =>
  (call) =>
    activate(call.builder, kind, call.input(0));

/** Rules for elementwise operators. */
export const elementwiseRules: Rules = {
  Identity: clone,
  Enter: clone,
  NextIteration: clone,
  LoopCond: clone,
  StopGradient: clone,
  PreventGradient: clone,
  Snapshot: clone,
  FakeQuantWithMinMaxVars: clone,
  PlaceholderWithDefault: clone,
  EnsureShape: clone,
  IdentityN: (call) => call.inputs,
  Cast: cast,

  Abs: numeric("Abs"),
  Neg: numeric("Neg"),
  Sign: numeric("Sign"),
  Ceil: rounding("Ceil"),
  Floor: rounding("Floor"),
  Round: rounding("Round"),
  Rint: rounding("Round"),
  Acos: real("Acos"),
  Acosh: real("Acosh"),
  Asin: real("Asin"),
  Asinh: real("Asinh"),
  Atan: real("Atan"),
  Atanh: real("Atanh"),
  Cos: real("Cos"),
  Cosh: real("Cosh"),
  Sin: real("Sin"),
  Sinh: real("Sinh"),
  Tan: real("Tan"),
  Erf: real("Erf"),
  Exp: real("Exp"),
  Log: real("Log"),
  Sqrt: real("Sqrt"),
  Reciprocal: real("Reciprocal"),
  Inv: real("Reciprocal"),
  Expm1: unary((builder, x) =>
    subtract(builder, apply(builder, "Exp", builder.cast(x, "float32")), one(builder)),
  ),
  Log1p: unary((builder, x) => apply(builder, "Log", add(builder, builder.cast(x, "float32"), one(builder)))),
  Rsqrt: unary((builder, x) =>
    apply(builder, "Reciprocal", apply(builder, "Sqrt", builder.cast(x, "float32"))),
  ),
  Square: unary((builder, x) => multiply(builder, x, x)),
  IsNan: unary((builder, x) => test(builder, "IsNaN", x)),
  IsInf: unary((builder, x) => test(builder, "IsInf", x)),
  IsFinite: unary((builder, x) =>
    not(builder, builder.elementwise("Or", [test(builder, "IsNaN", x), test(builder, "IsInf", x)], "bool")),
  ),
  ClipByValue: clip,

  Relu: activation("relu"),
  Relu6: activation("relu6"),
  Elu: activation("elu"),
  Selu: activation("selu"),
  Sigmoid: activation("sigmoid"),
  Tanh: activation("tanh"),
  Softplus: activation("softplus"),
  Softsign: activation("softsign"),
  LeakyRelu: (call) =>
    activate(call.builder, "leakyrelu", call.input(0), { alpha: call.attributes.float("alpha", 0.2) }),
  Prelu: (call) => activate(call.builder, "prelu", call.input(0), { slope: call.input(1) }),

  Add: arithmetic("Add"),
  AddV2: arithmetic("Add"),
  Sub: arithmetic("Sub"),
  Mul: arithmetic("Mul"),
  Maximum: arithmetic("Max"),
  Minimum: arithmetic("Min"),
  Pow: arithmetic("Pow"),
  AddN: addAll,
  Div: binary((builder, x, y) => (x.dtype === "int32" ? floorDivide : divide)(builder, x, y), "int32"),
  RealDiv: binary((builder, x, y) => (x.dtype === "int32" ? floorDivide : divide)(builder, x, y), "int32"),
  DivNoNan: binary(divideNoNan, "float32"),
  FloorDiv: binary(floorDivide, "int32"),
  FloorMod: binary(floorModulo, "int32"),
  Mod: binary(floorModulo, "int32"),
  SquaredDifference: binary(squaredDifference, "int32"),
  Atan2: binary(angle, "float32"),

  Equal: comparison("Equal"),
  Less: comparison("Less"),
  LessEqual: comparison("LessOrEqual"),
  Greater: comparison("Greater"),
  GreaterEqual: comparison("GreaterOrEqual"),
  NotEqual: binary((builder, x, y) => not(builder, builder.elementwise("Equal", [x, y], "bool")), "int32"),
  LogicalAnd: logic("And"),
  LogicalOr: logic("Or"),
  LogicalXor: logic("Xor"),
  LogicalNot: unary((builder, x) => not(builder, builder.cast(x, "bool"))),
  Select: select,
  SelectV2: select,
};
