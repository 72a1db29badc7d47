/** Functions of one value, element by element: the gradient is dy times the derivative. */
import type { Context, Rule } from "../context.js";

/** A rule from the derivative at x, where y is the function's value. */
const derivative =
  (of: (c: Context, x: string, y: string) => string | number): Rule =>
  (c, dy) => [() => c.mul(dy, of(c, c.x(), c.y()))];

/** Constant almost everywhere: nothing flows back. */
const step: Rule = () => [];

/** dy where x lies strictly between two bounds. */
const between = (c: Context, x: string, low: number, high: number): string =>
  c.mul(c.where("Greater", x, low), c.where("Less", x, high));

/** x s(ax): s + a x s (1 - s), s the logistic function. */
const sigmoidLinear = (c: Context, x: string, alpha: number): string => {
  const s = c.op("Sigmoid", [alpha === 1 ? x : c.mul(x, alpha)]);
  return c.add(s, c.mul(c.mul(c.mul(x, alpha), s), c.sub(1, s)));
};

/** x P(x), P the normal distribution: P(x) + x p(x). */
const normalLinear = (c: Context, x: string): string => {
  const distribution = c.mul(c.add(c.op("Erf", [c.mul(x, Math.SQRT1_2)]), 1), 0.5);
  const density = c.mul(c.op("Exp", [c.mul(c.square(x), -0.5)]), 1 / Math.sqrt(2 * Math.PI));
  return c.add(distribution, c.mul(x, density));
};

/** 0.5 x (1 + t), t = tanh(k (x + 0.044715 x^3)): 0.5 (1 + t) + 0.5 x (1 - t^2) k (1 + 3 0.044715 x^2). */
const tanhLinear = (c: Context, x: string): string => {
  const k = Math.sqrt(2 / Math.PI);
  const square = c.square(x);
  const t = c.op("Tanh", [c.mul(c.mul(x, c.add(c.mul(square, 0.044715), 1)), k)]);
  const inner = c.mul(c.add(c.mul(square, 3 * 0.044715), 1), k);
  const outer = c.mul(c.mul(x, c.sub(1, c.square(t))), inner);
  return c.mul(c.add(c.add(t, 1), outer), 0.5);
};

/** A function of the sum of an input and an optional bias for its last axis. */
const withBias =
  (of: (c: Context, x: string) => string): Rule =>
  (c, dy) => {
    const gradient = () => c.mul(dy, of(c, c.has(1) ? c.add(c.x(), c.x(1)) : c.x()));
    return [gradient, () => c.builder.sumTo(gradient(), c.outputShape(), c.shape(1))];
  };

/** Rules of the standard operator set. */
export const ELEMENTWISE: Readonly<Record<string, Rule>> = {
  Abs: derivative((c, x) => c.op("Sign", [x])),
  Acos: derivative((c, x) => c.div(-1, c.op("Sqrt", [c.sub(1, c.square(x))]))),
  Acosh: derivative((c, x) => c.div(1, c.op("Sqrt", [c.sub(c.square(x), 1)]))),
  Asin: derivative((c, x) => c.div(1, c.op("Sqrt", [c.sub(1, c.square(x))]))),
  Asinh: derivative((c, x) => c.div(1, c.op("Sqrt", [c.add(c.square(x), 1)]))),
  Atan: derivative((c, x) => c.div(1, c.add(c.square(x), 1))),
  Atanh: derivative((c, x) => c.div(1, c.sub(1, c.square(x)))),
  Cast: (c, dy) => [() => c.builder.cast(dy, c.dtype, c.inputType(0))],
  Ceil: step,
  Celu: derivative((c, x, y) =>
    c.select(c.op("Greater", [x, 0]), 1, c.add(c.div(y, c.float("alpha", 1)), 1)),
  ),
  Cos: derivative((c, x) => c.neg(c.op("Sin", [x]))),
  Cosh: derivative((c, x) => c.op("Sinh", [x])),
  Elu: derivative((c, x, y) => c.select(c.op("Greater", [x, 0]), 1, c.add(y, c.float("alpha", 1)))),
  Erf: derivative((c, x) => c.mul(c.op("Exp", [c.neg(c.square(x))]), 2 / Math.sqrt(Math.PI))),
  Exp: (c, dy) => [() => c.mul(dy, c.y())],
  Floor: step,
  Gelu: derivative((c, x) => (c.text("approximate", "none") === "tanh" ? tanhLinear : normalLinear)(c, x)),
  HardSigmoid: derivative((c, _, y) => c.mul(between(c, y, 0, 1), c.float("alpha", 0.2))),
  // h(x) + x h'(x) with h = clip(x / 6 + 1 / 2, 0, 1)
  HardSwish: derivative((c, x) => {
    const h = c.op("Clip", [c.add(c.mul(x, 1 / 6), 0.5), 0, 1]);
    return c.add(h, c.mul(c.mul(x, between(c, h, 0, 1)), 1 / 6));
  }),
  Hardmax: step,
  Identity: (_, dy) => [() => dy],
  LeakyRelu: derivative((c, x) => c.select(c.op("Greater", [x, 0]), 1, c.float("alpha", 0.01))),
  Log: (c, dy) => [() => c.div(dy, c.x())],
  // x t, t = tanh(softplus(x)): t + x (1 - t^2) s(x)
  Mish: derivative((c, x) => {
    const t = c.op("Tanh", [c.op("Softplus", [x])]);
    return c.add(t, c.mul(c.mul(x, c.sub(1, c.square(t))), c.op("Sigmoid", [x])));
  }),
  Neg: (c, dy) => [() => c.neg(dy)],
  Reciprocal: derivative((c, _, y) => c.neg(c.square(y))),
  // Sign would say the same, but the runtime computes it on one thread.
  Relu: derivative((c, _, y) => c.where("Greater", y, 0)),
  Round: step,
  Selu: derivative((c, x, y) => {
    const [alpha, gamma] = [c.float("alpha", 1.6732631921768188), c.float("gamma", 1.0507010221481323)];
    return c.select(c.op("Greater", [x, 0]), gamma, c.add(y, alpha * gamma));
  }),
  Shrink: derivative((c, x) => c.where("Greater", c.op("Abs", [x]), c.float("lambd", 0.5))),
  Sigmoid: derivative((c, _, y) => c.mul(y, c.sub(1, y))),
  Sign: step,
  Sin: derivative((c, x) => c.op("Cos", [x])),
  Sinh: derivative((c, x) => c.op("Cosh", [x])),
  Softplus: derivative((c, x) => c.op("Sigmoid", [x])),
  Softsign: derivative((c, x) => c.div(1, c.square(c.add(c.op("Abs", [x]), 1)))),
  Sqrt: (c, dy) => [() => c.div(c.mul(dy, 0.5), c.y())],
  Swish: derivative((c, x) => sigmoidLinear(c, x, c.float("alpha", 1))),
  Tan: derivative((c, _, y) => c.add(c.square(y), 1)),
  Tanh: derivative((c, _, y) => c.sub(1, c.square(y))),
  ThresholdedRelu: derivative((c, x) => c.where("Greater", x, c.float("alpha", 1))),
};

/** Rules of the operators that ONNX Runtime adds (`com.microsoft`). */
export const CONTRIBUTED: Readonly<Record<string, Rule>> = {
  BiasGelu: withBias(normalLinear),
  FastGelu: withBias(tanhLinear),
  Gelu: derivative((c, x) => normalLinear(c, x)),
  QuickGelu: derivative((c, x) => sigmoidLinear(c, x, c.float("alpha", 1.702))),
};
