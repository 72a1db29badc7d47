/** Products of matrices: for y = a b the gradients are dy b^T and a^T dy. */
import { elementCount, type Shape } from "../../../tensor/shape.js";
import type { Context, Rule } from "../context.js";

/** The last two axes exchanged. */
function turned(c: Context, value: string, rank: number): string {
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  return c.builder.transpose(value, [...axes.slice(0, -2), rank - 1, rank - 2]);
}

/** Vectors are matrices of one row (on the left) or one column (on the right); the product loses that axis again. */
const matMul: Rule = (c, dy) => {
  const [a, b] = [c.shape(0), c.shape(1)];
  const left: Shape = a.length === 1 ? [1, ...a] : a;
  const right: Shape = b.length === 1 ? [...b, 1] : b;
  const batch = c
    .outputShape()
    .slice(0, c.outputShape().length - (a.length > 1 ? 1 : 0) - (b.length > 1 ? 1 : 0));
  const [rows = 1, inner = 1] = left.slice(-2);
  const columns = right.at(-1) ?? 1;
  const as = (value: string, from: Shape, to: Shape) => (from === to ? value : c.builder.reshape(value, to));
  const x = () => as(c.x(0), a, left);
  const w = () => as(c.x(1), b, right);
  const g = () => (a.length > 1 && b.length > 1 ? dy : c.builder.reshape(dy, [...batch, rows, columns]));
  return [
    () => {
      const product = c.op("MatMul", [g(), turned(c, w(), right.length)]);
      return as(c.builder.sumTo(product, [...batch, rows, inner], left), left, a);
    },
    () => {
      // One matrix for the whole batch: rows of all of it make one product, where summing many would take memory.
      if (right.length === 2) {
        const count = elementCount([...batch, rows]);
        const flatX = c.builder.reshape(x(), [count, inner]);
        const flatG = c.builder.reshape(g(), [count, columns]);
        return as(c.op("Gemm", [flatX, flatG], { transA: 1 }), right, b);
      }
      const product = c.op("MatMul", [turned(c, x(), left.length), g()]);
      return as(c.builder.sumTo(product, [...batch, inner, columns], right), right, b);
    },
  ];
};

/** alpha a b + beta c, where a and b may be given turned. */
const gemm: Rule = (c, dy) => {
  const [transA, transB] = [c.int("transA", 0), c.int("transB", 0)];
  const alpha = { alpha: { float: c.float("alpha", 1) } };
  const beta = c.float("beta", 1);
  return [
    () =>
      transA === 0
        ? c.op("Gemm", [dy, c.x(1)], { transB: 1 - transB, ...alpha })
        : c.op("Gemm", [c.x(1), dy], { transA: transB, transB: 1, ...alpha }),
    () =>
      transB === 0
        ? c.op("Gemm", [c.x(0), dy], { transA: 1 - transA, ...alpha })
        : c.op("Gemm", [dy, c.x(0)], { transA: 1, transB: transA, ...alpha }),
    () => c.builder.sumTo(beta === 1 ? dy : c.mul(dy, beta), c.outputShape(), c.shape(2)),
  ];
};

/**
 * A sum of products over the letters that the result lacks. The gradient with respect to one operand is such a sum
 * over dy and the other operands; letters that only the operand has are those along which it was summed alone.
 */
const einsum: Rule = (c, dy) => {
  const [terms, result] = equationOf(c.text("equation", ""));
  return terms.map((wanted, place) => () => {
    const others = terms.flatMap((term, other) => (other === place ? [] : [[term, c.x(other)] as const]));
    const known = new Set([result, ...others.map(([term]) => term)].join(""));
    const missing = [...wanted].filter((letter) => !known.has(letter));
    const ones = missing.map((letter) => {
      const size = c.shape(place)[wanted.indexOf(letter)] ?? 1;
      return [letter, c.filled([size], 1)] as const;
    });
    const operands = [[result, dy] as const, ...others, ...ones];
    const equation = `${operands.map(([term]) => term).join(",")}->${wanted}`;
    return c.op(
      "Einsum",
      operands.map(([, value]) => value),
      { equation },
    );
  });
};

/** The terms and the result of an equation; without a result, it has the letters that occur once, in their order. */
function equationOf(equation: string): [terms: string[], result: string] {
  const [left = "", right] = equation.replaceAll(" ", "").split("->");
  const letters = left.replaceAll(",", "");
  const once = [...letters].filter((letter) => letters.indexOf(letter) === letters.lastIndexOf(letter));
  return [left.split(","), right ?? once.sort().join("")];
}

/** Why an equation has no gradient here: letters for any number of axes, and diagonals. */
export function refusesEinsum(equation: string): string | undefined {
  const [terms, result] = equationOf(equation);
  if (equation.includes(".")) return "its equation has an ellipsis";
  const hasDiagonal = [...terms, result].some((term) => new Set(term).size < term.length);
  return hasDiagonal ? "its equation has a diagonal" : undefined;
}

/** Rules of the standard operator set. */
export const LINEAR: Readonly<Record<string, Rule>> = { Einsum: einsum, Gemm: gemm, MatMul: matMul };
