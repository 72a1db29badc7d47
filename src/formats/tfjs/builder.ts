/**
 * Builds the ONNX graph. Rules ask it for operators, constants and changes of layout; it remembers what it
 * made, so that no value is transposed twice, and at the end gives every value its final name, drops what
 * nobody reads and stores the constants that are used.
 */
import {
  type AttributeValue,
  type Graph,
  graph,
  type Node,
  node,
  type ValueInfo,
  valueInfo,
  type Weight,
} from "../../onnx/model.js";
import { dtypeCode, weight } from "../../onnx/weight.js";
import type { DType } from "../../tensor/dtype.js";
import { type Dimension, isConcrete, type SymbolicShape, sameShape } from "../../tensor/shape.js";
import { int64, type Tensor } from "../../tensor/tensor.js";
import { castTensor, numberTensor, permuteTensor, reshapeTensor } from "./constant.js";
import { broadcastShapes } from "./dimension.js";
import { malformed } from "./json.js";
import { combineKnown } from "./known.js";
import { unsupported } from "./unsupported.js";
import { type Layout, storedOrder, storedShape, type Value } from "./value.js";

/** Type of a result; the layout is plain when left out. */
export interface ResultType {
  readonly dtype: DType;
  /** With TF.js' axes. */
  readonly shape: SymbolicShape;
  readonly layout?: Layout;
}

/** A public output of the graph. */
export interface NamedValue {
  readonly name: string;
  readonly value: Value;
}

/** The graph under construction. */
export class GraphBuilder {
  /** Public inputs, by id. */
  readonly #inputs = new Map<string, ValueInfo>();
  readonly #nodes: Node[] = [];
  readonly #constants = new Map<string, Tensor>();
  /** Preferred final names, by id. */
  readonly #names = new Map<string, string>();
  readonly #permuted = new Map<string, Value>();
  readonly #int64s = new Map<string, Value>();
  /** For each named dimension, a value and a stored axis where it can be read. */
  readonly #dimensions = new Map<string, { value: Value; axis: number }>();
  readonly #scalars = new Map<string, Value>();
  #scope = "";
  #count = 0;
  /** Bytes of constants that may still be made from constants. */
  #foldBudget: number;

  /** @param foldBudget bytes that folded constants may take; what would take more is computed at run time */
  constructor(foldBudget: number) {
    this.#foldBudget = foldBudget;
  }

  /** Sets the TensorFlow node after which the values made from now on are named. */
  enter(scope: string): void {
    this.#scope = scope;
  }

  /** Proposes a value's final name; the first proposal holds. */
  name(value: Value, name: string): void {
    if (!this.#names.has(value.id)) this.#names.set(value.id, name);
  }

  /** A public input. */
  input(name: string, dtype: DType, shape: SymbolicShape): Value {
    const id = this.#newId();
    this.#inputs.set(id, valueInfo(name, dtype, shape));
    return this.#remember({ id, dtype, shape, layout: "plain" });
  }

  /** A constant. */
  constant(tensor: Tensor): Value {
    const id = this.#newId();
    this.#constants.set(id, tensor);
    return { id, dtype: tensor.dtype, shape: tensor.shape, layout: "plain", constant: tensor };
  }

  /** A constant without axes. */
  scalar(dtype: DType, value: number): Value {
    const key = `${dtype} ${Object.is(value, -0) ? "-0" : value}`;
    const found = this.#scalars.get(key) ?? this.constant(numberTensor(dtype, [], [value]));
    this.#scalars.set(key, found);
    return found;
  }

  /** The value with elements that import knows; a constant when they are all numbers. */
  withKnown(value: Value, known: readonly Dimension[] | undefined): Value {
    if (!known || value.constant || value.layout !== "plain") return value;
    const { shape, dtype } = value;
    if (isConcrete(known) && isConcrete(shape)) return this.constant(numberTensor(dtype, shape, known));
    return { ...value, known };
  }

  /** A list of int64, as ONNX takes axes, shapes and the like. */
  int64s(values: readonly number[]): Value {
    const key = values.join();
    const found = this.#int64s.get(key) ?? this.constant(int64([values.length], values));
    this.name(found, `int64_${values.length > 8 ? this.#int64s.size : values.join("_")}`);
    this.#int64s.set(key, found);
    return found;
  }

  /** Applies an ONNX operator with one output to values as they are stored; undefined leaves an input out. */
  op(
    opType: string,
    inputs: readonly (Value | undefined)[],
    attributes: Readonly<Record<string, AttributeValue>>,
    result: ResultType,
  ): Value {
    const [value] = this.ops(opType, inputs, attributes, [result]);
    if (!value) throw malformed(`${opType} has no output.`);
    return value;
  }

  /** Applies an ONNX operator with any number of outputs to values as they are stored. */
  ops(
    opType: string,
    inputs: readonly (Value | undefined)[],
    attributes: Readonly<Record<string, AttributeValue>>,
    results: readonly ResultType[],
  ): Value[] {
    const values = results.map(({ dtype, shape, layout = "plain" }) => {
      const id = this.#newId();
      this.#names.set(`${id}?`, `${this.#scope}/${opType}`);
      return { id, dtype, shape, layout };
    });
    const ids = inputs.map((input) => input?.id ?? "");
    while (ids.at(-1) === "") ids.pop();
    this.#nodes.push(
      node(
        opType,
        ids,
        values.map(({ id }) => id),
        attributes,
      ),
    );
    return values.map((value) => this.#remember(value));
  }

  /** Applies an elementwise operator to values that broadcast; all are brought to one layout. */
  elementwise(
    opType: string,
    inputs: readonly Value[],
    dtype: DType,
    attributes: Readonly<Record<string, AttributeValue>> = {},
  ): Value {
    const { values, shape, layout } = this.align(inputs);
    const known = layout === "plain" ? combineKnown(opType, values, dtype) : undefined;
    return this.withKnown(this.op(opType, values, attributes, { dtype, shape, layout }), known);
  }

  /** The values in one layout and, where that needs it, of one rank; and what they broadcast to. */
  align(inputs: readonly Value[]): { values: Value[]; shape: SymbolicShape; layout: Layout } {
    const shape = broadcastShapes(...inputs.map((input) => input.shape));
    if (!shape) {
      const shapes = inputs.map((input) => `[${input.shape.join(", ")}]`).join(" and ");
      throw malformed(`The shapes ${shapes} do not broadcast.`, {
        shapes: inputs.map((input) => input.shape),
      });
    }
    const rank = shape.length;
    const channelsFirst = inputs.some(
      (input) => input.layout === "channelsFirst" && input.shape.length === rank,
    );
    if (!channelsFirst) return { values: inputs.map((input) => this.plain(input)), shape, layout: "plain" };
    const values = inputs.map((input) => {
      if (input.shape.length === 0) return input;
      const missing = rank - input.shape.length;
      const full =
        missing === 0 ? input : this.reshape(this.plain(input), [...Array(missing).fill(1), ...input.shape]);
      return this.channelsFirst(full);
    });
    return { values, shape, layout: "channelsFirst" };
  }

  /** The value with its axes stored as TF.js has them. */
  plain(value: Value): Value {
    if (value.layout === "plain") return value;
    const order = storedOrder("channelsFirst", value.shape.length);
    const back = order.map((_, axis) => order.indexOf(axis));
    return this.permute(this.relabel(value, storedShape(value), "plain"), back);
  }

  /** The value with its channels stored behind its first axis; values below rank 3 stay as they are. */
  channelsFirst(value: Value): Value {
    if (value.layout === "channelsFirst" || value.shape.length < 3) return value;
    const permuted = this.permute(value, storedOrder("channelsFirst", value.shape.length));
    return this.relabel(permuted, value.shape, "channelsFirst");
  }

  /** The value in the given layout. */
  inLayout(value: Value, layout: Layout): Value {
    return layout === "plain" ? this.plain(value) : this.channelsFirst(value);
  }

  /** The same stored value understood in another way. */
  relabel(value: Value, shape: SymbolicShape, layout: Layout): Value {
    const { id, dtype, constant } = value;
    return { id, dtype, shape, layout, ...(constant && { constant }) };
  }

  /** A plain value with its axes in another order: axis i of the result is axis `order[i]` of the argument. */
  permute(value: Value, order: readonly number[]): Value {
    if (order.every((axis, at) => axis === at)) return value;
    const key = `${value.id}|${order.join()}`;
    const found = this.#permuted.get(key);
    if (found) return found;

    const shape = order.flatMap((axis) => value.shape.slice(axis, axis + 1));
    const moving = order.filter((axis) => value.shape[axis] !== 1);
    let result: Value;
    if (value.constant && this.#canFold(value.constant))
      result = this.#derivedConstant(value, permuteTensor(value.constant, order));
    else if (moving.every((axis, at) => at === 0 || axis > (moving[at - 1] ?? 0)))
      result = this.reshape(value, shape);
    else result = this.op("Transpose", [value], { perm: [...order] }, { dtype: value.dtype, shape });

    this.#permuted.set(key, result);
    const back = order.map((_, axis) => order.indexOf(axis));
    this.#permuted.set(`${result.id}|${back.join()}`, value);
    return result;
  }

  /** A plain value in another shape of as many elements. */
  reshape(value: Value, shape: SymbolicShape): Value {
    if (sameShape(value.shape, shape)) return value;
    if (value.constant && isConcrete(shape) && this.#canFold(value.constant))
      return this.#derivedConstant(value, reshapeTensor(value.constant, shape));
    const reshaped = this.op(
      "Reshape",
      [value, this.#reshapeTarget(value, shape)],
      {},
      { dtype: value.dtype, shape },
    );
    return this.withKnown(reshaped, value.known);
  }

  /** The value in another dtype. */
  cast(value: Value, dtype: DType): Value {
    if (value.dtype === dtype) return value;
    if (value.dtype === "string" || dtype === "string") throw unsupported("strings as numbers");
    if (value.constant && this.#canFold(value.constant)) {
      const cast = this.#derivedConstant(value, castTensor(value.constant, dtype));
      return this.relabel(cast, value.shape, value.layout);
    }
    const cast = this.op(
      "Cast",
      [value],
      { to: dtypeCode(dtype) },
      { dtype, shape: value.shape, layout: value.layout },
    );
    return this.withKnown(cast, dtype === "bool" ? undefined : value.known);
  }

  /** Applies an operator to each element of one value; dtype, shape and layout stay. */
  unary(opType: string, value: Value, attributes: Readonly<Record<string, AttributeValue>> = {}): Value {
    return this.elementwise(opType, [value], value.dtype, attributes);
  }

  /** A shape as an int64 list that can be given to Reshape, Expand and the like. */
  shapeList(shape: SymbolicShape): Value {
    if (isConcrete(shape)) return this.int64s(shape);
    const parts = shape.map((dimension) =>
      typeof dimension === "number" ? this.int64s([dimension]) : this.#readDimension(dimension),
    );
    return this.op("Concat", parts, { axis: 0 }, { dtype: "int64", shape: [shape.length] });
  }

  /** The finished graph. */
  finish(name: string, outputs: readonly NamedValue[]): Graph {
    const inputs = [...this.#inputs.values()];
    const final = new Map([...this.#inputs].map(([id, input]) => [id, input.name]));
    const taken = new Set([...inputs, ...outputs].map((each) => each.name));
    const published = outputs.map(({ name: wanted, value }) => {
      const needsCopy = value.layout !== "plain" || value.constant || final.has(value.id);
      const own = needsCopy ? this.#copy(this.plain(value)) : value;
      final.set(own.id, wanted);
      return valueInfo(wanted, own.dtype, own.shape);
    });
    const nodes = this.#neededNodes(new Set([...final.keys()]));
    const unique = (wanted: string) => {
      let free = wanted;
      for (let copy = 1; taken.has(free); copy++) free = `${wanted}_${copy}`;
      taken.add(free);
      return free;
    };
    const finalName = (id: string) => {
      const known = id === "" ? "" : final.get(id);
      if (known !== undefined) return known;
      const made = unique(this.#names.get(id) ?? this.#names.get(`${id}?`) ?? "constant");
      final.set(id, made);
      return made;
    };
    const weights: Weight[] = [];
    for (const each of nodes) {
      each.output = each.output.map(finalName);
      each.name = each.output[0] ?? "";
    }
    for (const each of nodes) {
      each.input = each.input.map((id) => {
        const stored = final.has(id) ? undefined : this.#constants.get(id);
        const known = finalName(id);
        if (stored) weights.push(weight(known, stored));
        return known;
      });
    }
    return graph(name, { nodes, inputs, outputs: published, weights });
  }

  #copy(value: Value): Value {
    return this.op("Identity", [value], {}, value);
  }

  /** Nodes on the way to the given ids, in order. */
  #neededNodes(needed: Set<string>): Node[] {
    const kept: Node[] = [];
    for (const each of this.#nodes.toReversed()) {
      if (!each.output.some((id) => needed.has(id))) continue;
      for (const id of each.input) needed.add(id);
      kept.push(each);
    }
    return kept.reverse();
  }

  #newId(): string {
    return `%${this.#count++}`;
  }

  /** Whether another constant of this size may be made; if so, its bytes count as used. */
  #canFold(tensor: Tensor): boolean {
    const bytes = ArrayBuffer.isView(tensor.data) ? tensor.data.byteLength : 16 * tensor.data.length;
    if (bytes > this.#foldBudget) return false;
    this.#foldBudget -= bytes;
    return true;
  }

  #derivedConstant(from: Value, tensor: Tensor): Value {
    const made = this.constant(tensor);
    const name = this.#names.get(from.id);
    if (name !== undefined) this.name(made, name);
    return made;
  }

  /** Notes where named dimensions can be read. */
  #remember(value: Value): Value {
    for (const [axis, dimension] of storedShape(value).entries()) {
      if (typeof dimension === "string" && !this.#dimensions.has(dimension)) {
        this.#dimensions.set(dimension, { value, axis });
      }
    }
    return value;
  }

  #readDimension(name: string): Value {
    const known = this.#dimensions.get(name);
    if (known) {
      const { value, axis } = known;
      return this.op("Shape", [value], { start: axis, end: axis + 1 }, { dtype: "int64", shape: [1] });
    }
    const parts = name
      .split("*")
      .map((part) =>
        /^\d+$/.test(part)
          ? this.int64s([Number(part)])
          : this.#dimensions.has(part)
            ? this.#readDimension(part)
            : undefined,
      );
    return parts.reduce<Value>(
      (left, right) => {
        if (!right) throw unsupported(`a size that is known at run time only (${name})`);
        return this.op("Mul", [left, right], {}, { dtype: "int64", shape: [1] });
      },
      this.int64s([1]),
    );
  }

  /** ONNX' Reshape copies a size where the target says 0 and works one out where it says -1. */
  #reshapeTarget(value: Value, shape: SymbolicShape): Value {
    const hasZero = [...shape, ...value.shape].includes(0);
    const copied: Dimension[] = shape.map((dimension, axis) =>
      typeof dimension === "string" && dimension === value.shape[axis] ? 0 : dimension,
    );
    const open = copied.filter((dimension) => typeof dimension === "string").length;
    if (open <= 1 && !hasZero)
      return this.int64s(copied.map((dimension) => (typeof dimension === "string" ? -1 : dimension)));
    return this.shapeList(shape);
  }
}
