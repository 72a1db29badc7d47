/** Operators whose inputs are broadcast against each other; {@link broadcasting} sums gradients to the inputs' shapes. */
import { broadcasting, type Context, type Gradient, type Rule } from "../context.js";

/** The largest or smallest of several: where some are equal, they share the gradient, as in PyTorch. */
const extremum: Rule = (c, dy) => {
  const isOne = c.node.input.map((_, place) => () => c.where("Equal", c.x(place), c.y()));
  if (isOne.length === 1) return [() => dy];
  return isOne.map(
    (mask) => () =>
      c.div(
        c.mul(dy, mask()),
        c.op(
          "Sum",
          isOne.map((each) => each()),
        ),
      ),
  );
};

/** a^b: b a^(b - 1) and y log a, the latter 0 where a is not positive. */
const power: Rule = (c, dy) => {
  const exponent = c.constant(1);
  const b = () => c.builder.cast(c.x(1), undefined, c.dtype);
  return [
    exponent?.length === 1 && exponent[0] === 2
      ? () => c.mul(dy, c.mul(c.x(), 2))
      : () => c.mul(dy, c.mul(b(), c.op("Pow", [c.x(), c.sub(b(), 1)]))),
    () => {
      const isPositive = c.op("Greater", [c.x(), 0]);
      const log = c.op("Log", [c.select(isPositive, c.x(), 1)]);
      return c.mul(dy, c.mul(c.y(), log));
    },
  ];
};

/** Passes where x lies strictly between the bounds; a bound takes what lies beyond it. */
const clip: Rule = (c, dy) => {
  const bound = (place: number, beyond: "Less" | "Greater") => () => {
    const share = c.mul(dy, c.where(beyond, c.x(), c.x(place)));
    return c.builder.sumTo(share, c.shape(), c.shape(place));
  };
  const inside = () => {
    const tests = [
      ...(c.has(1) ? [c.op("Greater", [c.y(), c.x(1)])] : []),
      ...(c.has(2) ? [c.op("Less", [c.y(), c.x(2)])] : []),
    ];
    const [first, second] = tests;
    if (first === undefined) return dy;
    const both = second === undefined ? first : c.op("And", [first, second]);
    return c.mul(dy, c.builder.cast(both, "bool", c.dtype));
  };
  return [inside, bound(1, "Less"), bound(2, "Greater")];
};

const where: Rule = (c, dy) => [undefined, () => c.select(c.x(), dy, 0), () => c.select(c.x(), 0, dy)];

/** max(x, 0) + slope min(x, 0). */
const parametricRelu: Rule = (c, dy) => {
  const isPositive = () => c.op("Greater", [c.x(), 0]);
  return [() => c.select(isPositive(), dy, c.mul(dy, c.x(1))), () => c.mul(dy, c.op("Min", [c.x(), 0]))];
};

const each = (c: Context, make: Gradient): Gradient[] => c.node.input.map(() => make);

/** Rules of the standard operator set. */
export const ARITHMETIC: Readonly<Record<string, Rule>> = {
  Add: broadcasting((_, dy) => [() => dy, () => dy]),
  Clip: clip,
  Div: broadcasting((c, dy) => [() => c.div(dy, c.x(1)), () => c.neg(c.div(c.mul(dy, c.y()), c.x(1)))]),
  Max: broadcasting(extremum),
  Mean: broadcasting((c, dy) => each(c, () => c.mul(dy, 1 / c.node.input.length))),
  Min: broadcasting(extremum),
  Mul: broadcasting((c, dy) => [() => c.mul(dy, c.x(1)), () => c.mul(dy, c.x(0))]),
  PRelu: broadcasting(parametricRelu),
  Pow: broadcasting(power),
  Sub: broadcasting((c, dy) => [() => dy, () => c.neg(dy)]),
  Sum: broadcasting((c, dy) => each(c, () => dy)),
  Where: broadcasting(where),
};
