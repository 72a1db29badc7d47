/**
 * A value of the graph under construction. Rules think in TF.js' axes: `shape` is always what TF.js would
 * say. `layout` tells how the ONNX value of that name is stored: as it is, or with the last axis (the
 * channels) moved behind the first, as ONNX' convolutions want it. Layouts are what keeps transposes away
 * from convolutions: an operator that can work on either keeps the one it finds.
 */
import type { DType } from "../../tensor/dtype.js";
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";
import type { Tensor } from "../../tensor/tensor.js";
import { malformed } from "./json.js";

/** How a value is stored: with TF.js' axes, or with the last of them moved to the second place. */
export type Layout = "plain" | "channelsFirst";

/** A value of the graph under construction. */
export interface Value {
  /** Name within the builder; the final name is given when the graph is finished. */
  readonly id: string;
  readonly dtype: DType;
  /** Shape with TF.js' axes. */
  readonly shape: SymbolicShape;
  readonly layout: Layout;
  /** The elements, as stored, of a value that is a constant. */
  readonly constant?: Tensor;
  /** The elements, in TF.js' order, as far as import knows them; for small values such as shapes. */
  readonly known?: readonly Dimension[];
  /** See rules/batch-space.ts. */
  readonly spaceToBatch?: SpaceToBatch;
}

/** Values in a list, which loops over tensors fill and read (TensorList, TensorArray); undefined where none was put. */
export interface TensorList {
  readonly elements: readonly (Value | undefined)[];
}

/** What a node gives and takes. */
export type Slot = Value | TensorList;

/** Whether it is a list. */
export function isTensorList(slot: Slot): slot is TensorList {
  return "elements" in slot;
}

/** Remembers what SpaceToBatchND was applied to, so that a convolution within can be dilated instead. */
export interface SpaceToBatch {
  /** The padded image, and later what the dilated convolution makes of it. */
  readonly image: Value;
  readonly block: readonly number[];
}

/** TF.js' axis at each stored axis. */
export function storedOrder(layout: Layout, rank: number): number[] {
  const axes = Array.from({ length: rank }, (_, axis) => axis);
  if (layout === "plain" || rank < 3) return axes;
  return [0, rank - 1, ...axes.slice(1, rank - 1)];
}

/** The layout that has TF.js' axes in this order, if one has. */
export function layoutOfOrder(order: readonly number[]): Layout | undefined {
  const layouts: Layout[] = ["plain", "channelsFirst"];
  return layouts.find((layout) => storedOrder(layout, order.length).every((axis, at) => axis === order[at]));
}

/** The shape as stored. */
export function storedShape(value: Value): SymbolicShape {
  return storedOrder(value.layout, value.shape.length).map((axis) => size(value, axis));
}

/** Where an axis of TF.js' is stored. */
export function storedAxis(value: Value, axis: number): number {
  return storedOrder(value.layout, value.shape.length).indexOf(axis);
}

/** Items that stand for TF.js' axes, in the order in which the axes are stored. */
export function inStoredOrder<T>(value: Pick<Value, "layout">, items: readonly T[]): T[] {
  return storedOrder(value.layout, items.length).flatMap((axis) => items.slice(axis, axis + 1));
}

/**
 * An axis, which may count from the end, as an index.
 * @throws PolyheadError MODEL_MALFORMED when there is no such axis
 */
export function axisIndex(axis: number, rank: number): number {
  const index = axis < 0 ? axis + rank : axis;
  if (Number.isInteger(index) && index >= 0 && index < rank) return index;
  throw malformed(`There is no axis ${axis} in a value of rank ${rank}.`, { axis, rank });
}

/**
 * One size of a value.
 * @throws PolyheadError MODEL_MALFORMED when the value has no such axis
 */
export function size(value: Pick<Value, "shape">, axis: number): Dimension {
  const found = value.shape[axisIndex(axis, value.shape.length)];
  if (found === undefined) throw malformed(`A value of rank ${value.shape.length} has no axis ${axis}.`);
  return found;
}
