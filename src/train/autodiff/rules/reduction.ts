/** Reductions: dy, with the reduced axes back in place, times what each element had to do with the result. */
import type { Shape } from "../../../tensor/shape.js";
import type { Context, Rule } from "../context.js";

/** The axes that a reduction takes, from the front; they are an attribute or an input. */
function axesOf(c: Context): number[] {
  const rank = c.shape().length;
  const given = c.ints("axes") ?? (c.has(1) ? c.numbers(1) : []);
  if (given.length > 0) return given.map((axis) => (axis < 0 ? axis + rank : axis));
  return c.int("noop_with_empty_axes", 0) !== 0 ? [] : c.shape().map((_, axis) => axis);
}

/** The shape that the result has when reduced axes stay as ones. */
function keptShape(c: Context, axes: readonly number[]): Shape {
  return c.shape().map((size, axis) => (axes.includes(axis) ? 1 : size));
}

/** What a rule is made from: y and dy with reduced axes as ones. */
interface Parts {
  readonly axes: readonly number[];
  readonly y: string;
  readonly dy: string;
}

const reduction =
  (of: (c: Context, parts: Parts) => string): Rule =>
  (c, dy) => [
    () => {
      const axes = axesOf(c);
      const kept = (value: string) =>
        c.outputShape().length === c.shape().length ? value : c.builder.reshape(value, keptShape(c, axes));
      return of(c, { axes, y: kept(c.y()), dy: kept(dy) });
    },
  ];

/** Several equal ones share. */
const extremum = reduction((c, { axes, y, dy }) => {
  const isIt = c.where("Equal", c.x(), y);
  return c.mul(isIt, c.div(dy, c.sum(isIt, axes)));
});

/** The product of the others: y / x, where no element or another one is 0. */
const product = reduction((c, { axes, dy }) => {
  const isZero = c.op("Equal", [c.x(), 0]);
  const zeros = c.sum(c.builder.cast(isZero, "bool", c.dtype), axes);
  const others = c.select(isZero, 1, c.x());
  const all = c.builder.reduce("ReduceProd", others, axes, true);
  const forZero = c.mul(all, c.where("Equal", zeros, 1));
  const forOthers = c.mul(c.div(all, others), c.where("Equal", zeros, 0));
  return c.mul(dy, c.select(isZero, forZero, forOthers));
});

/** x / y; the norm of nothing but zeros has no direction. */
const euclidean = reduction((c, { y, dy }) => {
  const isZero = c.op("Equal", [y, 0]);
  return c.mul(c.x(), c.select(isZero, 0, c.div(dy, c.select(isZero, 1, y))));
});

/** A sum up to each place flows back as a sum from each place on. */
const cumulativeSum: Rule = (c, dy) => [
  () => c.op("CumSum", [dy, c.x(1)], { exclusive: c.int("exclusive", 0), reverse: 1 - c.int("reverse", 0) }),
];

/** Rules of the standard operator set. */
export const REDUCTION: Readonly<Record<string, Rule>> = {
  CumSum: cumulativeSum,
  ReduceL1: reduction((c, { dy }) => c.mul(c.op("Sign", [c.x()]), dy)),
  ReduceL2: euclidean,
  ReduceLogSum: reduction((c, { y, dy }) => c.builder.expand(c.div(dy, c.op("Exp", [y])), c.shape())),
  ReduceLogSumExp: reduction((c, { y, dy }) => c.mul(dy, c.op("Exp", [c.sub(c.x(), y)]))),
  ReduceMax: extremum,
  ReduceMean: reduction((c, { axes, dy }) => {
    const count = axes.reduce((product, axis) => product * (c.shape()[axis] ?? 1), 1);
    return c.builder.expand(c.mul(dy, 1 / count), c.shape());
  }),
  ReduceMin: extremum,
  ReduceProd: product,
  ReduceSum: reduction((c, { dy }) => c.builder.expand(dy, c.shape())),
  ReduceSumSquare: reduction((c, { dy }) => c.mul(c.mul(c.x(), 2), dy)),
};
