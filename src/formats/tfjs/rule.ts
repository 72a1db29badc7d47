/**
 * What a rule is: a small function that says in ONNX what one TensorFlow operator does. It gets the node's
 * inputs as values of the graph under construction, answers with the node's outputs, and throws
 * MODEL_UNSUPPORTED for uses of the operator that it does not cover.
 */
import { type Dimension, isConcrete } from "../../tensor/shape.js";
import type { TfNode } from "./artifact.js";
import type { Attributes } from "./attributes.js";
import type { GraphBuilder } from "./builder.js";
import { malformed } from "./json.js";
import { knownElements } from "./known.js";
import { unsupported } from "./unsupported.js";
import type { Value } from "./value.js";

/** Says in ONNX what one node does; answers with its outputs. */
export type Rule = (call: Call) => Value | readonly Value[];

/** Rules by the names of the operators. */
export type Rules = Readonly<Record<string, Rule>>;

/** One node with its inputs at hand. */
export class Call {
  /** The graph under construction. */
  readonly builder: GraphBuilder;
  readonly op: string;
  readonly name: string;
  readonly attributes: Attributes;
  readonly inputs: readonly Value[];

  constructor(builder: GraphBuilder, node: TfNode, inputs: readonly Value[]) {
    this.builder = builder;
    this.op = node.op;
    this.name = node.name;
    this.attributes = node.attributes;
    this.inputs = inputs;
  }

  /**
   * An input; negative numbers count from the end.
   * @throws PolyheadError MODEL_MALFORMED when the node has none there
   */
  input(index: number): Value {
    const found = this.inputs.at(index);
    if (found) return found;
    throw malformed(
      `Node ${JSON.stringify(this.name)} (${this.op}) has ${this.inputs.length} inputs; it needs more.`,
      {
        node: this.name,
        operator: this.op,
        inputs: this.inputs.length,
      },
    );
  }

  /** Numbers and names of an input's elements as far as they are known at import; undefined when they are not. */
  known(index: number): readonly Dimension[] | undefined {
    return knownElements(this.input(index));
  }

  /**
   * An input that must be constant, as numbers.
   * @throws PolyheadError MODEL_UNSUPPORTED when it is computed at run time
   */
  numbers(index: number, what: string): readonly number[] {
    const known = this.known(index);
    if (known && isConcrete(known)) return known;
    throw unsupported(`${what} computed at run time`);
  }

  /** An input that must be one constant number. */
  number(index: number, what: string): number {
    const [value] = this.numbers(index, what);
    if (value === undefined)
      throw malformed(`Node ${JSON.stringify(this.name)} (${this.op}): ${what} is empty.`);
    return value;
  }
}
