/**
 * Arithmetic on dimensions, of which some are names. A product of names and a number is written `4*N`, so that
 * a reshape that folds the batch into another axis can unfold it again. Everything else (sums, rounded
 * quotients) has no form here; whoever needs it takes an unknown.
 */
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";

/** A product may hold this many names; longer ones are given up. */
const MAX_NAMES = 8;
/** More axes than any sane tensor has; guards arrays that a file's numbers would size. */
export const MAX_RANK = 64;
const FACTOR = /^(\d{1,15}|[A-Za-z_?][\w.?]*)$/;

interface Monomial {
  readonly coefficient: number;
  readonly names: readonly string[];
}

/** The product of dimensions, 1 for none; undefined when it grows out of bounds. */
export function product(sizes: Iterable<Dimension>): Dimension | undefined {
  let coefficient = 1;
  const names: string[] = [];
  for (const size of sizes) {
    const factor = parse(size);
    coefficient *= factor.coefficient;
    names.push(...factor.names);
    if (names.length > MAX_NAMES) return undefined;
  }
  return Number.isSafeInteger(coefficient) && coefficient >= 0 ? format({ coefficient, names }) : undefined;
}

/** `whole / part` where it is exact whatever the names stand for; undefined else. */
export function quotient(whole: Dimension, part: Dimension): Dimension | undefined {
  const above = parse(whole);
  const below = parse(part);
  if (below.coefficient === 0 || above.coefficient % below.coefficient !== 0) return undefined;
  const names = [...above.names];
  for (const name of below.names) {
    const at = names.indexOf(name);
    if (at < 0) return undefined;
    names.splice(at, 1);
  }
  return format({ coefficient: above.coefficient / below.coefficient, names });
}

/** Whether the number can be a dimension. */
export function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

/** An axis counted from the front; undefined when there is none of that number. */
export function frontAxis(axis: number, rank: number): number | undefined {
  const front = axis < 0 ? axis + rank : axis;
  return Number.isInteger(front) && front >= 0 && front < rank ? front : undefined;
}

/** Axes counted from the front; undefined when one does not exist or comes twice. */
export function frontAxes(axes: readonly number[], rank: number): number[] | undefined {
  const front = axes.map((axis) => frontAxis(axis, rank)).filter((axis) => axis !== undefined);
  return front.length === axes.length && new Set(front).size === axes.length ? front : undefined;
}

/** The shape with one axis replaced. */
export function withAxis(shape: SymbolicShape, axis: number, size: Dimension): SymbolicShape {
  return shape.map((old, place) => (place === axis ? size : old));
}

function parse(size: Dimension): Monomial {
  if (typeof size === "number") return { coefficient: size, names: [] };
  const factors = size.split("*");
  if (factors.length > MAX_NAMES + 1 || !factors.every((factor) => FACTOR.test(factor)))
    return { coefficient: 1, names: [size] };
  const isNumber = (factor: string) => /^\d/.test(factor);
  return {
    coefficient: factors.filter(isNumber).reduce((total, factor) => total * Number(factor), 1),
    names: factors.filter((factor) => !isNumber(factor)),
  };
}

function format({ coefficient, names }: Monomial): Dimension {
  if (names.length === 0 || coefficient === 0) return coefficient;
  const sorted = [...names].sort();
  return (coefficient === 1 ? sorted : [coefficient, ...sorted]).join("*");
}

/** The dimension as a number, with 1 in place of every name. */
export function atOne(size: Dimension): number {
  return parse(size).coefficient;
}
