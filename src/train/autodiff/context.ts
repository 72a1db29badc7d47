/**
 * What a gradient rule sees: a node of the forward graph with the shapes of its values, and the means to write the
 * formula of its gradient. The formula's operands are names of values or plain numbers.
 */
import { PolyheadError } from "../../base/errors.js";
import type { AttributeValue, Node, ValueType } from "../../onnx/model.js";
import { NodeReader } from "../../onnx/node-reader.js";
import { elementCount, isConcrete, type Shape } from "../../tensor/shape.js";
import { type Builder, type FloatType, floats, type Operand } from "./builder.js";

/** The gradient of the loss with respect to one input of a node, written when somebody wants it. */
export type Gradient = () => string;

/**
 * The gradients with respect to a node's inputs, in order, from the gradient `dy` with respect to its first output.
 * Inputs without a place, and those that are undefined there, do not influence the output in a differentiable way.
 */
export type Rule = (c: Context, dy: string) => readonly (Gradient | undefined)[];

/** What one differentiation knows of the forward graph. */
export interface Forward {
  readonly types: ReadonlyMap<string, ValueType>;
  /** Elements of small values that do not depend on the graph's inputs. */
  readonly constants: ReadonlyMap<string, readonly number[]>;
  /** The gradient with respect to a value, as far as it has been written; undefined when it has none. */
  gradientOf(value: string): string | undefined;
  /** The name of an output of a forward node that may have been left out so far. */
  optionalOutput(node: Node, place: number): string;
}

/** A forward node in the hands of its rule. */
export class Context extends NodeReader {
  readonly builder: Builder;
  readonly #forward: Forward;

  constructor(node: Node, builder: Builder, forward: Forward) {
    super(node);
    this.builder = builder;
    this.#forward = forward;
  }

  /** Version of the standard operator set. */
  get opset(): number {
    return this.builder.opset;
  }

  /** Name of an input. */
  x(place = 0): string {
    return this.node.input[place] ?? "";
  }

  /** Name of an output. */
  y(place = 0): string {
    return this.node.output[place] ?? "";
  }

  /** Name of an output that the forward node may not have had before. */
  optional(place: number): string {
    return this.#forward.optionalOutput(this.node, place);
  }

  /** Gradient with respect to an output; zeros when nothing depends on it. */
  dy(place: number): string {
    return this.#forward.gradientOf(this.y(place)) ?? this.filled(this.outputShape(place), 0);
  }

  /** Shape of an input. */
  shape(place = 0): Shape {
    return this.#shapeOf(this.x(place));
  }

  /** Shape of an output. */
  outputShape(place = 0): Shape {
    return this.#shapeOf(this.y(place));
  }

  /** Dtype that the node computes in. */
  get dtype(): FloatType {
    return this.#dtypeOf(this.y());
  }

  /** Dtype of an input. */
  inputType(place: number): FloatType {
    return this.#dtypeOf(this.x(place));
  }

  /**
   * Elements of an input that says how, not what.
   * @throws PolyheadError MODEL_UNSUPPORTED when they depend on the graph's inputs
   */
  numbers(place: number): readonly number[] {
    const found = this.constant(place);
    if (found) return found;
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `${label(this.node)} cannot be differentiated: its input ${place} (${JSON.stringify(this.x(place))}) is computed from the model's inputs; expected a constant.`,
      { node: this.node.name, opType: this.node.opType, input: this.x(place) },
    );
  }

  /** Elements of a small input that does not depend on the graph's inputs. */
  constant(place: number): readonly number[] | undefined {
    return this.#forward.constants.get(this.x(place));
  }

  /** The attribute `axis`, counted from the front. */
  axis(fallback: number, rank = this.shape().length): number {
    const axis = this.int("axis", fallback);
    return axis < 0 ? axis + rank : axis;
  }

  op(
    opType: string,
    inputs: readonly Operand[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
  ): string {
    return this.builder.op(
      opType,
      inputs.map((each) => this.value(each)),
      attributes,
    );
  }

  /** A number as a value. */
  value(operand: Operand): string {
    return typeof operand === "number" ? this.builder.scalar(operand, this.dtype) : operand;
  }

  add(a: Operand, b: Operand): string {
    return this.op("Add", [a, b]);
  }

  sub(a: Operand, b: Operand): string {
    return this.op("Sub", [a, b]);
  }

  mul(a: Operand, b: Operand): string {
    return this.op("Mul", [a, b]);
  }

  div(a: Operand, b: Operand): string {
    return this.op("Div", [a, b]);
  }

  neg(a: string): string {
    return this.op("Neg", [a]);
  }

  square(a: string): string {
    return this.mul(a, a);
  }

  /** 1 where a comparison holds, 0 elsewhere. */
  where(
    comparison: "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "Equal",
    a: Operand,
    b: Operand,
  ): string {
    return this.builder.cast(this.op(comparison, [a, b]), "bool", this.dtype);
  }

  /** `a` where a comparison of x with y holds, `b` elsewhere. */
  select(condition: string, a: Operand, b: Operand): string {
    return this.op("Where", [condition, a, b]);
  }

  sum(value: string, axes: readonly number[], keepdims = true): string {
    return this.builder.reduce("ReduceSum", value, axes, keepdims);
  }

  mean(value: string, axes: readonly number[], keepdims = true): string {
    return this.builder.reduce("ReduceMean", value, axes, keepdims);
  }

  filled(shape: Shape, value: number): string {
    return this.builder.filled(shape, value, this.dtype);
  }

  floats(shape: Shape, values: Iterable<number>): string {
    return this.builder.constant(floats(this.dtype, shape, values));
  }

  /**
   * A value of shape `shape` multiplied along one axis by a constant matrix: entry (i, j) of `matrix` says how much
   * of j goes into i. Used for everything that is linear along an axis, or rather for its transposed.
   */
  alongAxis(value: string, shape: Shape, axis: number, matrix: readonly (readonly number[])[]): string {
    const [rows, columns] = [matrix.length, shape[axis] ?? 1];
    const before = elementCount(shape.slice(0, axis));
    const after = elementCount(shape.slice(axis + 1));
    const to = [...shape.slice(0, axis), rows, ...shape.slice(axis + 1)];
    if (after === 1) {
      const turned = Array.from({ length: columns }, (_, j) => matrix.map((row) => row[j] ?? 0));
      const product = this.op("MatMul", [
        this.builder.reshape(value, [before, columns]),
        this.floats([columns, rows], turned.flat()),
      ]);
      return this.builder.reshape(product, to);
    }
    const product = this.op("MatMul", [
      this.floats([rows, columns], matrix.flat()),
      this.builder.reshape(value, [before, columns, after]),
    ]);
    return this.builder.reshape(product, to);
  }

  #shapeOf(name: string): Shape {
    const shape = this.#forward.types.get(name)?.shape;
    if (shape && isConcrete(shape)) return shape;
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `${label(this.node)} cannot be differentiated: the shape of ${JSON.stringify(name)} is ${shape ? `[${shape.join(", ")}]` : "unknown"}; expected one that is known before the model runs. Bind the shapes of the model's inputs.`,
      { node: this.node.name, opType: this.node.opType, value: name },
    );
  }

  #dtypeOf(name: string): FloatType {
    return this.#forward.types.get(name)?.dtype === "float64" ? "float64" : "float32";
  }
}

/** A rule for operators whose inputs are broadcast against each other: gradients are summed to the inputs' shapes. */
export function broadcasting(rule: Rule): Rule {
  return (c, dy) =>
    rule(c, dy).map(
      (make, place) => make && (() => c.builder.sumTo(make(), c.outputShape(), c.shape(place))),
    );
}

/** A node as messages name it. */
export function label(of: Node): string {
  const domain = of.domain === "" || of.domain === "ai.onnx" ? "" : `${of.domain}.`;
  return `${domain}${of.opType} ${JSON.stringify(of.name || (of.output[0] ?? ""))}`;
}
