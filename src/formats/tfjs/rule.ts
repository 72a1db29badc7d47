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
import { isTensorList, type Slot, type TensorList, type Value } from "./value.js";

/** Says in ONNX what one node does; answers with its outputs. */
export type Rule = (call: Call) => Slot | readonly Slot[];

/** Rules by the names of the operators. */
export type Rules = Readonly<Record<string, Rule>>;

/** One node with its inputs at hand. */
export class Call {
  /** The graph under construction. */
  readonly builder: GraphBuilder;
  readonly op: string;
  readonly name: string;
  readonly attributes: Attributes;
  readonly #slots: readonly Slot[];

  constructor(builder: GraphBuilder, node: TfNode, slots: readonly Slot[]) {
    this.builder = builder;
    this.op = node.op;
    this.name = node.name;
    this.attributes = node.attributes;
    this.#slots = slots;
  }

  /**
   * All inputs.
   * @throws PolyheadError MODEL_MALFORMED when one is a list
   */
  get inputs(): readonly Value[] {
    return this.#slots.map((_, index) => this.input(index));
  }

  /**
   * An input; negative numbers count from the end.
   * @throws PolyheadError MODEL_MALFORMED when the node has none there, or a list
   */
  input(index: number): Value {
    const slot = this.slot(index);
    if (!isTensorList(slot)) return slot;
    throw malformed(`Node ${JSON.stringify(this.name)} (${this.op}) reads a list as a tensor.`);
  }

  /**
   * An input that is a list.
   * @throws PolyheadError MODEL_MALFORMED when the node has none there, or a tensor
   */
  list(index: number): TensorList {
    const slot = this.slot(index);
    if (isTensorList(slot)) return slot;
    throw malformed(`Node ${JSON.stringify(this.name)} (${this.op}) reads a tensor as a list.`);
  }

  /**
   * An input, whether tensor or list; negative numbers count from the end.
   * @throws PolyheadError MODEL_MALFORMED when the node has none there
   */
  slot(index: number): Slot {
    const found = this.#slots.at(index);
    if (found) return found;
    const { length: inputs } = this.#slots;
    throw malformed(`Node ${JSON.stringify(this.name)} (${this.op}) has ${inputs} inputs; it needs more.`, {
      node: this.name,
      operator: this.op,
      inputs,
    });
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
