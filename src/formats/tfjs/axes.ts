/** Taking axes of size one away and putting them in, without a transpose wherever the layout allows it. */

import { isConcrete } from "../../tensor/shape.js";
import type { GraphBuilder } from "./builder.js";
import { inStoredOrder, type Layout, layoutOfOrder, storedAxis, storedOrder, type Value } from "./value.js";

/** The layout that a value has once axes are taken away; undefined when none of ours fits. */
export function layoutWithout(value: Value, axes: ReadonlySet<number>): Layout | undefined {
  const kept = value.shape.flatMap((_, axis) => (axes.has(axis) ? [] : [axis]));
  const order = storedOrder(value.layout, value.shape.length).filter((axis) => !axes.has(axis));
  return layoutOfOrder(order.map((axis) => kept.indexOf(axis)));
}

/** The value without the given axes, whose size must be one. */
export function dropAxes(builder: GraphBuilder, value: Value, dropped: readonly number[]): Value {
  if (dropped.length === 0) return value;
  const axes = new Set(dropped);
  const layout = layoutWithout(value, axes);
  if (layout === undefined) return dropAxes(builder, builder.plain(value), dropped);
  const shape = value.shape.filter((_, axis) => !axes.has(axis));
  if (value.constant && isConcrete(shape)) return builder.reshape(builder.plain(value), shape);
  const stored = [...axes].map((axis) => storedAxis(value, axis)).sort((a, b) => a - b);
  const squeezed = builder.op(
    "Squeeze",
    [value, builder.int64s(stored)],
    {},
    { dtype: value.dtype, shape, layout },
  );
  return builder.withKnown(squeezed, value.known);
}

/** The value with axes of size one put in, so that they have the given places in the result. */
export function addAxes(builder: GraphBuilder, value: Value, added: readonly number[]): Value {
  if (added.length === 0) return value;
  const rank = value.shape.length + added.length;
  const axes = new Set(added);
  const rest = value.shape.values();
  const shape = Array.from({ length: rank }, (_, axis) => (axes.has(axis) ? 1 : (rest.next().value ?? 1)));
  if (value.layout === "channelsFirst" && (axes.has(0) || axes.has(rank - 1))) {
    return addAxes(builder, builder.plain(value), added);
  }
  if (value.constant && isConcrete(shape)) return builder.reshape(builder.plain(value), shape);
  const isAdded = inStoredOrder(
    value,
    shape.map((_, axis) => axes.has(axis)),
  );
  const stored = isAdded.flatMap((isNew, axis) => (isNew ? [axis] : []));
  const { dtype, layout } = value;
  const unsqueezed = builder.op("Unsqueeze", [value, builder.int64s(stored)], {}, { dtype, shape, layout });
  return builder.withKnown(unsqueezed, value.known);
}
