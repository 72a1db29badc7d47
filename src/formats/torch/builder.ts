/** The ONNX graph of a head under construction: float32 values with the shapes that are known of them. */
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
import type { SymbolicShape } from "../../tensor/shape.js";
import { float32, int64, type Tensor } from "../../tensor/tensor.js";

/** A value of the graph. An open size has a name, or is `?` where nothing names it. */
export interface Value {
  readonly name: string;
  readonly shape: SymbolicShape;
}

/** The name of the model's input and output, after PyTorch's own. */
const [INPUT, OUTPUT] = ["input", "output"];

/** Builds a graph of one input and one output. */
export class GraphBuilder {
  readonly input: Value;
  readonly #nodes: Node[] = [];
  /** Makers of the weights' elements, which are read when the graph is finished. */
  readonly #weights = new Map<string, () => Tensor>();
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

  /** A weight, whose elements are asked for at the end. */
  weight(name: string, shape: readonly number[], read: () => Tensor): Value {
    const free = this.#free(name);
    this.#weights.set(free, read);
    return { name: free, shape };
  }

  /** Float32 numbers. */
  floats(shape: readonly number[], values: ArrayLike<number>): Value {
    return this.weight("constant", shape, () => float32(shape, values));
  }

  /** A list of whole numbers, as ONNX takes axes, shapes and the like. */
  ints(values: readonly number[]): Value {
    return this.weight("constant", [values.length], () => int64([values.length], values));
  }

  /** The finished model. */
  finish(output: Value): Model {
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

  #free(kind: string): string {
    const wanted = this.#scope === "" ? kind : `${this.#scope}.${kind}`;
    let free = wanted;
    for (let copy = 1; this.#taken.has(free); copy++) free = `${wanted}_${copy}`;
    this.#taken.add(free);
    return free;
  }
}
