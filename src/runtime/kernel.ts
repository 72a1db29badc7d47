/**
 * Kernels: what is computed element by element over float32 tensors of equal shape, as data, so that each backend can
 * carry it out in its own way. Every operation rounds to float32, as ONNX's operators do. All elements that an element
 * depends on stand at its own place; there are no sums over elements.
 */

/** A number for each element. */
export type Expression =
  | { readonly kind: "operand"; readonly place: number }
  | { readonly kind: "number"; readonly place: number }
  | { readonly kind: "constant"; readonly value: number }
  | {
      readonly kind: "add" | "sub" | "mul" | "div";
      readonly of: readonly [Expression, Expression];
    }
  | { readonly kind: "sqrt"; readonly of: readonly [Expression] };

/** One pass over some tensors. */
export interface Kernel {
  /** Tensors that it reads or writes. */
  readonly operands: number;
  /** Numbers that it is given with each call. */
  readonly numbers: number;
  /** What operands become. All is read before anything is written. */
  readonly writes: readonly (readonly [operand: number, value: Expression])[];
}

/** An operand, by its place. */
export const operand = (place: number): Expression => ({ kind: "operand", place });
/** A number that comes with the call, by its place. */
export const number = (place: number): Expression => ({ kind: "number", place });
/** A number that never changes. */
export const constant = (value: number): Expression => ({ kind: "constant", value });
/** The sum. */
export const add = (a: Expression, b: Expression): Expression => ({ kind: "add", of: [a, b] });
/** The first without the second. */
export const sub = (a: Expression, b: Expression): Expression => ({ kind: "sub", of: [a, b] });
/** The product. */
export const mul = (a: Expression, b: Expression): Expression => ({ kind: "mul", of: [a, b] });
/** The first divided by the second. */
export const div = (a: Expression, b: Expression): Expression => ({ kind: "div", of: [a, b] });
/** The square root. */
export const sqrt = (a: Expression): Expression => ({ kind: "sqrt", of: [a] });

/** What a kernel does, said plainly: for tests, and for backends to be compared with. */
export function interpret(
  kernel: Kernel,
  operands: readonly Float32Array[],
  numbers: readonly number[],
): void {
  const length = operands[0]?.length ?? 0;
  for (let at = 0; at < length; at++) {
    const values = kernel.writes.map(([, value]) => valueAt(value, at, operands, numbers));
    kernel.writes.forEach(([place], each) => {
      operands[place]?.fill(values[each] ?? 0, at, at + 1);
    });
  }
}

function valueAt(
  expression: Expression,
  at: number,
  operands: readonly Float32Array[],
  numbers: readonly number[],
): number {
  const value = (of: Expression) => valueAt(of, at, operands, numbers);
  switch (expression.kind) {
    case "operand":
      return operands[expression.place]?.[at] ?? 0;
    case "number":
      return Math.fround(numbers[expression.place] ?? 0);
    case "constant":
      return Math.fround(expression.value);
    case "sqrt":
      return Math.fround(Math.sqrt(value(expression.of[0])));
  }
  const [left, right] = expression.of.map(value);
  const [a, b] = [left ?? 0, right ?? 0];
  switch (expression.kind) {
    case "add":
      return Math.fround(a + b);
    case "sub":
      return Math.fround(a - b);
    case "mul":
      return Math.fround(a * b);
    case "div":
      return Math.fround(a / b);
  }
}
