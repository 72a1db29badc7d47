/**
 * How a rule says in ONNX what a layer does in evaluation mode, and what it lets us know of its input. A rule is a
 * small function in the file of its family in layers/; layers/table.ts lists them.
 */
import type { AttributeValue } from "../../onnx/model.js";
import { type Dimension, formatShape, type SymbolicShape } from "../../tensor/shape.js";
import type { GraphBuilder, Value } from "./builder.js";
import { type Layer, OpenSize, SizeMismatch } from "./layer.js";
import type { StoredTensor } from "./tensor.js";

/** What a layer says about the shape of its input; axis 0 is the batch, axis 1 the channels. */
export interface Expectation {
  readonly rank?: number;
  readonly channels?: number;
  /** Size of the last axis. */
  readonly last?: number;
  /** All axes but the batch. */
  readonly trailing?: readonly number[];
}

/** What becomes of one kind of layer. */
export interface Rule {
  /** Makes the layer's output. */
  apply(call: Call): Value;
  /** What the layer says about its input; nothing when left out. */
  expects?(layer: Layer): Expectation;
  /** What the output has in common with the input: the shape, or its rank and channels. By default neither. */
  readonly keeps?: "shape" | "channels";
}

/** One use of a rule. */
export class Call {
  readonly layer: Layer;
  readonly input: Value;
  readonly #builder: GraphBuilder;
  readonly #notes: string[];

  constructor(builder: GraphBuilder, layer: Layer, input: Value, notes: string[]) {
    this.layer = layer;
    this.input = input;
    this.#builder = builder;
    this.#notes = notes;
  }

  /** Shape of the input. */
  get shape(): SymbolicShape {
    return this.input.shape;
  }

  /** Number of axes of the input. */
  get rank(): number {
    return this.input.shape.length;
  }

  /** Applies an operator; the result has the input's shape when none is given. */
  op(
    opType: string,
    inputs: readonly (Value | undefined)[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
    shape: SymbolicShape = this.shape,
  ): Value {
    return this.#builder.op(opType, inputs, shape, attributes);
  }

  /** Applies an elementwise operator between a value and a number. */
  withNumber(opType: string, value: Value, number: number): Value {
    return this.op(opType, [value, this.floats([], [number])], {}, value.shape);
  }

  /** A tensor of the layer as a weight, in another shape of as many elements if one is given. */
  weight(name: string, tensor: StoredTensor, shape: readonly number[] = tensor.shape): Value {
    return this.#builder.stored(name, tensor, shape);
  }

  /** A tensor of one axis, or nothing where the layer has none, in a shape that broadcasts from the channels on. */
  channelWeight(name: string, rank = this.rank): Value | undefined {
    if (!this.layer.has(name)) return undefined;
    const tensor = this.layer.tensor(name, 1);
    return this.weight(name, tensor, [...tensor.shape, ...Array(rank - 2).fill(1)]);
  }

  /** Float32 numbers. */
  floats(shape: readonly number[], values: ArrayLike<number>): Value {
    return this.#builder.floats(shape, values);
  }

  /** A list of whole numbers. */
  ints(values: readonly number[]): Value {
    return this.#builder.ints(values);
  }

  /** A remark for the user. */
  note(text: string): void {
    if (!this.#notes.includes(text)) this.#notes.push(text);
  }

  /** Holds an axis to a size. @throws SizeMismatch, OpenSize */
  requireSize(axis: number, size: number): void {
    const got = this.shape.at(axis);
    if (typeof got === "number" && got !== size)
      throw new SizeMismatch(this.layer, axis < 0 ? this.rank + axis : axis, size, got);
    if (typeof got === "string")
      throw new OpenSize(this.layer, `takes ${size} values on an axis whose size is open`);
  }

  /** Holds the input to a number of axes. @throws PolyheadError MODEL_MALFORMED */
  requireRank(...ranks: readonly number[]): void {
    if (ranks.includes(this.rank)) return;
    throw this.layer.wrong("input", `one of ${ranks.join(" or ")} axes`, formatShape(this.shape));
  }

  /** The size of an axis that must be known. @throws OpenSize */
  knownSize(axis: number, why: string): number {
    const size = this.shape.at(axis);
    if (typeof size === "number") return size;
    throw new OpenSize(this.layer, why);
  }

  /** An axis counted from the front. @throws PolyheadError MODEL_MALFORMED */
  axis(name: string, otherwise: number): number {
    const given = this.layer.int(name, otherwise);
    const axis = given < 0 ? this.rank + given : given;
    if (axis >= 0 && axis < this.rank) return axis;
    throw this.layer.wrong(name, `an axis of an input of ${this.rank}`, given);
  }
}

/** An open size that nothing names. */
export const OPEN: Dimension = "?";

/** A size after arithmetic; open where it was open, unless nothing changes. */
export function sizeAfter(size: Dimension, change: (size: number) => number, same = false): Dimension {
  if (typeof size === "number") return change(size);
  return same ? size : OPEN;
}
