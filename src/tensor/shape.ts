/**
 * Shapes: lists of dimensions. A concrete shape has numbers only; a symbolic one may name a dimension that
 * is known at run time only (`"batch"`).
 */

/** A shape whose every dimension is known. */
export type Shape = readonly number[];

/** A dimension: its size, or the name of one that is only known at run time. */
export type Dimension = number | string;

/** A shape that may have named dimensions. */
export type SymbolicShape = readonly Dimension[];

/** Number of elements of a shape; 1 for a scalar. */
export function elementCount(shape: Shape): number {
  let count = 1;
  for (const dimension of shape) count *= dimension;
  return count;
}

/** Whether every dimension is a number. */
export function isConcrete(shape: SymbolicShape): shape is Shape {
  return shape.every((dimension) => typeof dimension === "number");
}

/** Whether two shapes are the same, names included. */
export function sameShape(a: SymbolicShape, b: SymbolicShape): boolean {
  return a.length === b.length && a.every((dimension, axis) => dimension === b[axis]);
}

/** A shape as people write it: `[1, 3, height, 224]`. */
export function formatShape(shape: SymbolicShape): string {
  return `[${shape.join(", ")}]`;
}
