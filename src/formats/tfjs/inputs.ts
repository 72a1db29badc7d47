/** Shapes of a model's inputs, where the caller states them in place of the file. */
import { PolyheadError } from "../../base/errors.js";
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";

/** Shapes of inputs by name, or that of the only input; -1 or a name for an open size. */
export type InputShapes = SymbolicShape | Readonly<Record<string, SymbolicShape>>;

/**
 * What is stated about an input.
 * @param count number of inputs of the model
 * @throws PolyheadError INVALID_ARGUMENT when one shape is given to several inputs
 */
export function statedShape(
  shapes: InputShapes | undefined,
  name: string,
  count: number,
): SymbolicShape | undefined {
  if (shapes === undefined) return undefined;
  if (!isOne(shapes)) return Object.hasOwn(shapes, name) ? shapes[name] : undefined;
  if (count === 1) return shapes;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `One shape is stated, and the model has ${count} inputs; state shapes by name (inputShapes).`,
    { inputs: count },
  );
}

/**
 * Refuses a shape that no input can have.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function checkInputShape(shape: SymbolicShape, name: string): void {
  const isSize = (size: Dimension) =>
    typeof size === "string" ? size !== "" : Number.isInteger(size) && size >= -1 && size < 2 ** 31;
  if (shape.every(isSize)) return;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `The shape [${shape.join(", ")}] of the input ${JSON.stringify(name)} is none; expected sizes, -1 or names.`,
    { input: name, shape },
  );
}

function isOne(shapes: InputShapes): shapes is SymbolicShape {
  return Array.isArray(shapes);
}
