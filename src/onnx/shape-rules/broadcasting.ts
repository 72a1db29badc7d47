/** NumPy's broadcasting on shapes that may have names. */
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";
import type { NodeView } from "./view.js";

/** The shape that the given ones broadcast to; undefined when they cannot. */
export function broadcast(
  view: Pick<NodeView, "unknown">,
  shapes: readonly SymbolicShape[],
): SymbolicShape | undefined {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length));
  const result: Dimension[] = [];
  for (let axis = 0; axis < rank; axis++) {
    let size: Dimension | undefined = 1;
    for (const shape of shapes) {
      const own = shape[axis - rank + shape.length] ?? 1;
      size = size === undefined ? undefined : broadcastDimension(view, size, own);
    }
    if (size === undefined) return undefined;
    result.push(size);
  }
  return result;
}

function broadcastDimension(
  view: Pick<NodeView, "unknown">,
  a: Dimension,
  b: Dimension,
): Dimension | undefined {
  if (a === b || b === 1) return a;
  if (a === 1) return b;
  if (typeof a === "number") return typeof b === "number" ? undefined : a;
  return typeof b === "number" ? b : view.unknown(`broadcast ${a} ${b}`);
}
