/**
 * Writes nodes behind an existing graph: fresh names, constants that exist once, and the few operators whose form
 * depends on the operator set. Numbers among the operands become constants of the builder's dtype, so that rules
 * read like formulas. Written for operator sets from {@link LEAST_OPSET} on.
 */
import { PolyheadError } from "../../base/errors.js";
import { type AttributeValue, type Node, node, type Weight } from "../../onnx/model.js";
import { weight } from "../../onnx/weight.js";
import type { DType } from "../../tensor/dtype.js";
import { elementCount, type Shape } from "../../tensor/shape.js";
import { bytesOf, int64, type Tensor, tensor } from "../../tensor/tensor.js";

/** From here on operators have the form that the builder writes, with the help of its methods. */
export const LEAST_OPSET = 16;

/** From here on all reductions take their axes as an input. */
const AXES_ARE_INPUTS = 18;

/** Constants up to this size (bytes) are compared with those that exist. */
const SMALL = 1024;

/** A value by its name, or a number of the builder's dtype. */
export type Operand = string | number;

/** The dtypes that can be differentiated. */
export type FloatType = "float32" | "float64";

/** A float tensor from numbers. */
export function floats(dtype: FloatType, shape: Shape, values: Iterable<number>): Tensor {
  return tensor(dtype, shape, dtype === "float32" ? Float32Array.from(values) : Float64Array.from(values));
}

/** Nodes and constants to be added to a graph. */
export class Builder {
  readonly opset: number;
  readonly nodes: Node[] = [];
  readonly weights: Weight[] = [];
  readonly #prefix: string;
  readonly #constants = new Map<string, string>();
  #made = 0;

  /**
   * @param taken names that the graph has
   * @param prefix begins the names of new values; more letters are put before it where the graph has such names
   */
  constructor(opset: number, taken: Iterable<string>, prefix: string) {
    if (opset < LEAST_OPSET) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `Operator set ${opset} is too old to be extended; expected at least ${LEAST_OPSET}. Raise it first.`,
        { got: opset, expected: LEAST_OPSET },
      );
    }
    this.opset = opset;
    const names = [...taken];
    let free = `${prefix}/`;
    while (names.some((name) => name.startsWith(free))) free = `_${free}`;
    this.#prefix = free;
  }

  /** A name that nothing has yet. */
  name(hint: string): string {
    return `${this.#prefix}${hint}_${this.#made++}`;
  }

  /** Adds a node with one output. */
  op(
    opType: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, AttributeValue>> = {},
  ): string {
    const [output = ""] = this.ops(opType, inputs, 1, attributes);
    return output;
  }

  /** Adds a node with several outputs. */
  ops(
    opType: string,
    inputs: readonly string[],
    count: number,
    attributes: Readonly<Record<string, AttributeValue>> = {},
  ): string[] {
    const outputs = Array.from({ length: count }, () => this.name(opType));
    this.nodes.push(node(opType, inputs, outputs, attributes));
    return outputs;
  }

  /** A constant; small ones exist once. */
  constant(value: Tensor): string {
    const bytes = bytesOf(value);
    const key = bytes.length <= SMALL ? `${value.dtype} ${value.shape} ${bytes}` : undefined;
    const known = key === undefined ? undefined : this.#constants.get(key);
    if (known !== undefined) return known;
    const name = this.name("constant");
    this.weights.push(weight(name, value));
    if (key !== undefined) this.#constants.set(key, name);
    return name;
  }

  /** A list of whole numbers. */
  ints(values: readonly number[]): string {
    return this.constant(int64([values.length], values));
  }

  /** A number as a value of rank 0. */
  scalar(value: number, dtype: FloatType): string {
    return this.constant(floats(dtype, [], [value]));
  }

  /** A tensor of one number everywhere; made by the runtime, not stored. */
  filled(shape: Shape, value: number, dtype: FloatType): string {
    if (elementCount(shape) * 8 <= SMALL) {
      return this.constant(floats(dtype, shape, new Array<number>(elementCount(shape)).fill(value)));
    }
    return this.op("ConstantOfShape", [this.ints(shape)], { value: floats(dtype, [1], [value]) });
  }

  reshape(value: string, shape: Shape): string {
    return this.op("Reshape", [value, this.ints(shape)], shape.includes(0) ? { allowzero: 1 } : {});
  }

  transpose(value: string, perm: readonly number[]): string {
    return perm.every((axis, place) => axis === place) ? value : this.op("Transpose", [value], { perm });
  }

  expand(value: string, shape: Shape): string {
    return this.op("Expand", [value, this.ints(shape)]);
  }

  /** A reduction over `axes`, in the form that the operator set has. */
  reduce(
    opType: "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceProd",
    value: string,
    axes: readonly number[],
    keepdims: boolean,
  ): string {
    if (axes.length === 0) return value;
    const kept = { keepdims: keepdims ? 1 : 0 };
    return opType === "ReduceSum" || this.opset >= AXES_ARE_INPUTS
      ? this.op(opType, [value, this.ints(axes)], kept)
      : this.op(opType, [value], { axes, ...kept });
  }

  /** Zeros put around a value; `pads` has the begins of all axes, then the ends. Negative ones crop. */
  pad(value: string, pads: readonly number[]): string {
    return pads.every((each) => each === 0) ? value : this.op("Pad", [value, this.ints(pads)]);
  }

  /** Every `step`-th from `start` to `end` along one axis. */
  slice(value: string, axis: number, start: number, end: number, step = 1): string {
    return this.op("Slice", [value, ...[start, end, axis, step].map((each) => this.ints([each]))]);
  }

  /**
   * A value summed over the axes along which `to` was broadcast to `from`, and given the shape `to`: the transposed
   * of broadcasting.
   */
  sumTo(value: string, from: Shape, to: Shape): string {
    const added = from.length - to.length;
    const axes = from.flatMap((size, axis) => (size !== (axis < added ? 1 : to[axis - added]) ? [axis] : []));
    const summed = this.reduce("ReduceSum", value, axes, true);
    return added > 0 ? this.reshape(summed, to) : summed;
  }

  /** Casts, or not, where the dtype is already right. */
  cast(value: string, from: DType | undefined, to: FloatType): string {
    return from === to ? value : this.op("Cast", [value], { to: CODES[to] });
  }
}

/** ONNX's numbers of the dtypes that Cast takes. */
const CODES: Readonly<Record<FloatType, number>> = { float32: 1, float64: 11 };
