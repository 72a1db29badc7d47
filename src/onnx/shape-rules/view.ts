/**
 * What a rule sees of a node: its attributes, and of each input what is known. Rules are small functions from
 * this view to what is known of the outputs; a rule that cannot say something leaves it undefined, whether the
 * reason is missing knowledge or a node that contradicts itself. Rules never throw.
 */
import type { DType } from "../../tensor/dtype.js";
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";
import { findAttribute, type Graph, type Node, type Weight } from "../model.js";
import { NodeReader } from "../node-reader.js";
import { frontAxis } from "./sizes.js";

/** One element of a small tensor: a number, a dimension that goes by a name, or not known. Booleans are 0 and 1. */
export type Item = Dimension | undefined;

/** What is known of a value. */
export interface Known {
  readonly dtype?: DType | undefined;
  readonly shape?: SymbolicShape | undefined;
  /** The elements of a small tensor in row-major order, where at least their number is known. */
  readonly items?: readonly Item[] | undefined;
}

/** What is known of the outputs of a node, in order; missing ones are not known. */
export type Rule = (view: NodeView) => readonly (Known | undefined)[];

/** What one inference shares between its nodes. */
export interface Scope {
  /** A dimension of its own; the same one for the same key. */
  unknown(key?: string): string;
  /** What is known of the outputs of a subgraph of the node, given what is known of its formal inputs. */
  outputsOf(graph: Graph, inputs: readonly Known[]): readonly (Known | undefined)[];
}

/** A node together with what is known of its inputs. */
export class NodeView extends NodeReader {
  /** Version of the operator set that the node's operator belongs to. */
  readonly opset: number;
  readonly scope: Scope;
  readonly #inputs: readonly (Known | undefined)[];

  constructor(node: Node, opset: number, inputs: readonly (Known | undefined)[], scope: Scope) {
    super(node);
    this.opset = opset;
    this.scope = scope;
    this.#inputs = inputs;
  }

  /** Number of inputs, those left out included. */
  get inputCount(): number {
    return this.node.input.length;
  }

  /** Number of outputs, those left out included. */
  get outputCount(): number {
    return this.node.output.length;
  }

  /** Dtype of an input. */
  dtype(place = 0): DType | undefined {
    return this.#inputs[place]?.dtype;
  }

  /** Shape of an input. */
  shape(place = 0): SymbolicShape | undefined {
    return this.#inputs[place]?.shape;
  }

  /** Elements of an input that is small and known in part. */
  items(place: number): readonly Item[] | undefined {
    return this.#inputs[place]?.items;
  }

  /** Elements of an input when each of them is a number. */
  numbers(place: number): readonly number[] | undefined {
    const items = this.items(place);
    return items?.every((item) => typeof item === "number") ? items : undefined;
  }

  /** Shapes of all inputs; undefined when one is not known. */
  shapes(): readonly SymbolicShape[] | undefined {
    const shapes = this.node.input.map((_, place) => this.shape(place)).filter((each) => each !== undefined);
    return shapes.length === this.inputCount ? shapes : undefined;
  }

  /** A TENSOR attribute. */
  tensor(name: string): Weight | undefined {
    return findAttribute(this.node, name)?.t;
  }

  /** A FLOATS attribute. */
  floats(name: string): readonly number[] | undefined {
    return findAttribute(this.node, name)?.floats;
  }

  /**
   * A list that older operator sets have as an attribute and newer ones as an input: `none` when the node has
   * neither, undefined when it is an input that is not known.
   */
  list(attribute: string, place: number): readonly number[] | "none" | undefined {
    return this.ints(attribute) ?? (this.has(place) ? this.numbers(place) : "none");
  }

  /** The attribute `axis`, counted from the front. */
  axis(fallback: number, rank: number): number | undefined {
    return frontAxis(this.int("axis", fallback), rank);
  }

  /** A dimension that nothing is known of; the same one for the same key. */
  unknown(key?: string): string {
    return this.scope.unknown(key);
  }

  /** As many unknown dimensions. */
  unknowns(count: number): string[] {
    return Array.from({ length: count }, () => this.unknown());
  }
}
