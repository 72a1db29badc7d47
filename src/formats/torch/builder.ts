/** The ONNX graph of a head under construction: float32 values with the shapes that are known of them. */
import { PolyheadError } from "../../base/errors.js";
import {
  type AttributeValue,
  graph,
  type Model,
  model,
  type Node,
  node,
  valueInfo,
} from "../../onnx/model.js";
import { weight } from "../../onnx/weight.js";
import { elementCount, type SymbolicShape } from "../../tensor/shape.js";
import { float32, int64, type Tensor } from "../../tensor/tensor.js";
import type { StoredTensor } from "./tensor.js";

/** A value of the graph. An open size has a name, or is `?` where nothing names it. */
export interface Value {
  readonly name: string;
  readonly shape: SymbolicShape;
}

/** The name of the model's input and output, after PyTorch's own. */
const [INPUT, OUTPUT] = ["input", "output"];

/** Tensors of a file may overlap; its weights as float32 may take so many times its bytes, or this many. */
const MOST_GROWTH = 8;
const SMALL = 2 ** 26;

/** Builds a graph of one input and one output. */
export class GraphBuilder {
  readonly input: Value;
  readonly #nodes: Node[] = [];
  /** Makers of the weights' elements, which are read when the graph is finished. */
  readonly #weights = new Map<string, () => Tensor>();
  /** Weights by their tensors and shapes. */
  readonly #stored = new Map<StoredTensor, Map<string, Value>>();
  #bytes = 0;
  readonly #taken = new Set([INPUT, OUTPUT]);
  #scope = "";

  constructor(shape: SymbolicShape) {
    this.input = { name: INPUT, shape };
  }

  /** Sets the layer after which the values made from now on are named. */
  enter(scope: string): void {
    this.#scope = scope;
  }

  /** Applies an operator of one output; undefined leaves an optional input out. */
  op(
    opType: string,
    inputs: readonly (Value | undefined)[],
    shape: SymbolicShape,
    attributes: Readonly<Record<string, AttributeValue>> = {},
  ): Value {
    const name = this.#free(opType);
    const names = inputs.map((input) => input?.name ?? "");
    while (names.at(-1) === "") names.pop();
    this.#nodes.push(node(opType, names, [name], attributes));
    return { name, shape };
  }

  /** A tensor of the file as a weight, in a shape of as many elements; once, however many layers share it. */
  stored(name: string, tensor: StoredTensor, shape: readonly number[]): Value {
    const forms = this.#stored.get(tensor) ?? new Map<string, Value>();
    this.#stored.set(tensor, forms);
    const known = forms.get(shape.join());
    if (known) return known;
    this.#bytes += 4 * elementCount(shape);
    const made = this.#weight(name, shape, () => ({ ...tensor.readFloat32(), shape }));
    forms.set(shape.join(), made);
    return made;
  }

  /** Float32 numbers. */
  floats(shape: readonly number[], values: ArrayLike<number>): Value {
    return this.#weight("constant", shape, () => float32(shape, values));
  }

  /** A list of whole numbers, as ONNX takes axes, shapes and the like. */
  ints(values: readonly number[]): Value {
    return this.#weight("constant", [values.length], () => int64([values.length], values));
  }

  /**
   * The finished model.
   * @throws PolyheadError LIMIT_EXCEEDED when its weights are much more than the file
   */
  finish(output: Value, fileBytes: number): Model {
    const limit = Math.max(SMALL, MOST_GROWTH * fileBytes);
    if (this.#bytes > limit)
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `The model's weights would take ${this.#bytes} bytes as float32, out of a file of ${fileBytes}; the limit for it is ${limit}.`,
        { got: this.#bytes, limit },
      );
    const last = this.#nodes.at(-1);
    if (last?.output[0] === output.name && output.name !== INPUT) {
      last.output = [OUTPUT];
      last.name = OUTPUT;
    } else this.#nodes.push(node("Identity", [output.name], [OUTPUT]));
    return model(
      graph("torch", {
        nodes: this.#nodes,
        inputs: [valueInfo(INPUT, "float32", this.input.shape)],
        outputs: [valueInfo(OUTPUT, "float32", output.shape)],
        weights: [...this.#weights].map(([name, read]) => weight(name, read())),
      }),
    );
  }

  #weight(name: string, shape: readonly number[], read: () => Tensor): Value {
    const free = this.#free(name);
    this.#weights.set(free, read);
    return { name: free, shape };
  }

  #free(kind: string): string {
    const wanted = this.#scope === "" ? kind : `${this.#scope}.${kind}`;
    let free = wanted;
    for (let copy = 1; this.#taken.has(free); copy++) free = `${wanted}_${copy}`;
    this.#taken.add(free);
    return free;
  }
}
