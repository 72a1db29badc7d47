/**
 * Batches for models that were exported for one row. From the inputs on, each value is followed to where it has
 * its batch (see batch-rules.ts); constants that say 1 for the batch are rewritten on the way. Where an operator
 * mixes rows the way ends: what comes before takes any batch, what comes after stays at one row. The changed model
 * computes the same for one row; that it does so for several is to be proved by running it (`proveBatch`).
 */
import { isConcrete, type Shape } from "../tensor/shape.js";
import { axesOf, type BatchView, type Carried, carryBatch } from "./batch-rules.js";
import { withGraph } from "./extract.js";
import { GraphIndex, reads } from "./graph.js";
import {
  canonicalDomain,
  copyOf,
  declaredType,
  type Model,
  type Node,
  node,
  opsetVersion,
  subgraphs,
  type ValueInfo,
  type ValueType,
  valueInfo,
  type Weight,
} from "./model.js";
import { SMALL_VALUES } from "./shape-rules/small-values.js";
import { type Item, type Known, NodeView, type Scope } from "./shape-rules/view.js";
import { inferValues } from "./shapes.js";

/** What rules for numbers do not ask for. */
const NO_SCOPE: Scope = { unknown: () => "?", outputsOf: () => [] };
/** Name of the dimension that becomes open. */
export const BATCH = "batch";

/** An output that still takes one row only, and why. */
export interface FixedOutput {
  readonly output: string;
  /** The node where rows could not be followed any further. */
  readonly node: string;
  readonly opType: string;
}

/** A model whose batch has been opened as far as its graph allows. */
export interface DynamicBatch {
  readonly model: Model;
  /** Types of its values: those with a batch at their first axis begin with `batch`. */
  readonly types: ReadonlyMap<string, ValueType>;
  /** One sentence for each thing that was done or could not be done. */
  readonly notes: readonly string[];
  readonly fixed: readonly FixedOutput[];
}

/** What is known of a model for any number of rows, from names of dimensions that it had before. */
export interface BatchHints {
  /** The axis of the batch in a value that is a constant spread over all rows. */
  readonly spread: (value: string) => number | undefined;
  /** Elements of values that are computed from shapes and are the same for any number of rows. */
  readonly constants: ReadonlyMap<string, readonly number[]>;
}

const NO_HINTS: BatchHints = { spread: () => undefined, constants: new Map() };

/** Operators that give numbers about shapes when they are given such, and nothing else. */
const SHAPE_ARITHMETIC = new Set(
  "Add Cast Concat Div Equal Floor Gather Identity Max Min Mul ReduceProd Reshape Slice Squeeze Sub Unsqueeze Where".split(
    " ",
  ),
);
/** Operators whose second input (for Resize the fourth too) may be computed from shapes: rules write it anew. */
const TAKES_SHAPE = new Set(["Reshape", "Expand", "Resize"]);

/**
 * The model with the batch of its inputs opened: of all that begin with a dimension of 1 and have more than that. A
 * model without such an input, or with one whose batch is open already, is returned as it is.
 * @param types of all its values, see `inferTypes`
 */
export function dynamicBatch(
  model: Model,
  types: ReadonlyMap<string, ValueType>,
  hints = NO_HINTS,
): DynamicBatch {
  const index = new GraphIndex(model.graph);
  const opened = index.inputs.filter(isSingle);
  const isOpen = index.inputs.some((info) => typeof declaredType(info)?.shape?.[0] === "string");
  if (isOpen || opened.length === 0) return { model, types, notes: [], fixed: [] };
  const followed = new Follower(model, index, types, opened, hints);
  const outputs = index.outputNames;
  const fixed = outputs.flatMap((output) => {
    const cause = followed.causeAt(output);
    return cause ? [{ output, node: cause.name || (cause.output[0] ?? ""), opType: cause.opType }] : [];
  });
  const newTypes = new Map(types);
  for (const [name, axis] of followed.axes) {
    const type = types.get(name);
    if (type?.shape)
      newTypes.set(name, { ...type, shape: type.shape.with(axis, batchName(type.shape[axis])) });
  }
  const retyped = (info: ValueInfo): ValueInfo => {
    const [type, axis] = [newTypes.get(info.name), followed.axes.get(info.name)];
    return type && axis !== undefined ? valueInfo(info.name, type.dtype, type.shape) : info;
  };
  const main = copyOf(model.graph, {
    node: followed.nodes,
    initializer: [...model.graph.initializer, ...followed.weights],
    input: model.graph.input.map(retyped),
    output: model.graph.output.map(retyped),
    valueInfo: model.graph.valueInfo.map(retyped),
  });
  const list = opened.map(({ name }) => JSON.stringify(name)).join(", ");
  return {
    model: withGraph(model, main),
    types: newTypes,
    notes: [
      `The batch of ${list}, fixed at 1 by the exporter, was opened.`,
      ...fixed.map(
        ({ output, node, opType }) =>
          `The output ${JSON.stringify(output)} still takes one row at a time, because of ${opType} ${JSON.stringify(node)}.`,
      ),
    ],
    fixed,
  };
}

/** Whether a value of these types begins with the opened batch, so that it can be a tap of any number of rows. */
export function isBatched(type: ValueType | undefined): boolean {
  return type?.shape?.[0] === BATCH;
}

function isSingle(info: ValueInfo): boolean {
  const shape = declaredType(info)?.shape;
  return shape !== undefined && shape.length > 1 && shape[0] === 1;
}

function batchName(size: number | string | undefined): string {
  return size === 1 ? BATCH : `${size}*${BATCH}`;
}

/** Follows the batch through a graph, once. */
class Follower {
  /** Where values have their batch. */
  readonly axes = new Map<string, number>();
  /** The graph's nodes, rewritten where needed. */
  readonly nodes: Node[] = [];
  /** New constants. */
  readonly weights: Weight[] = [];
  readonly #index: GraphIndex;
  readonly #types: ReadonlyMap<string, ValueType>;
  readonly #opset: number;
  readonly #hints: BatchHints;
  readonly #outputs: ReadonlySet<string>;
  /** Elements of small constants, and of what is computed from sizes at one row. */
  readonly #numbers: ReadonlyMap<string, readonly number[]>;
  /** Values at one row, with the node to blame. */
  readonly #fixed = new Map<string, Node>();
  /** Numbers about shapes, which change with the batch, with the node that first asked for one. */
  readonly #shapes = new Map<string, Node>();
  /** Elements of numbers about shapes, the batch by its name: those that are all numbers never change. */
  readonly #items = new Map<string, readonly Item[]>();

  constructor(
    model: Model,
    index: GraphIndex,
    types: ReadonlyMap<string, ValueType>,
    opened: readonly ValueInfo[],
    hints: BatchHints,
  ) {
    this.#index = index;
    this.#types = types;
    this.#opset = opsetVersion(model) ?? 0;
    this.#hints = hints;
    this.#outputs = new Set(index.outputNames);
    this.#numbers = inferValues(model).constants;
    for (const { name } of opened) this.axes.set(name, 0);
    for (const each of index.order) this.#follow(each);
  }

  /** Why a value is not a batch of rows; undefined when it is, or is the same for all rows. */
  causeAt(name: string): Node | undefined {
    const axis = this.axes.get(name);
    const isRows = axis === undefined || (axis === 0 && this.#shapeOf(name)?.[0] === 1);
    return (
      this.#fixed.get(name) ??
      this.#shapes.get(name) ??
      (isRows ? undefined : this.#index.producers.get(name))
    );
  }

  #follow(each: Node): void {
    const outputs = each.output.filter((name) => name !== "");
    if (outputs.every((name) => this.#hints.constants.has(name))) {
      this.nodes.push(each);
      return;
    }
    const read = reads(each);
    const blamed = read.map((name) => this.#fixed.get(name)).find((cause) => cause !== undefined);
    const hasBatch = read.some((name) => this.axes.has(name));
    const ofShapes = read.filter((name) => this.#shapes.has(name));
    const isPlain = canonicalDomain(each.domain) === "" && subgraphs(each).length === 0;
    const asksShape = isPlain && (each.opType === "Shape" || each.opType === "Size");
    const isSpread = isPlain && each.opType === "Expand" && !hasBatch;
    const spread = isSpread ? this.#hints.spread(outputs[0] ?? "") : undefined;
    const carried =
      isPlain && !blamed && hasBatch
        ? this.#carry(each, ofShapes)
        : isPlain
          ? this.#restored(each)
          : undefined;
    this.nodes.push(...(carried?.nodes ?? [each]));
    this.weights.push(...(carried?.weights ?? []));
    if (carried) for (const name of outputs) this.axes.set(name, carried.axis);
    else if (blamed) for (const name of outputs) this.#fixed.set(name, blamed);
    else if (asksShape && hasBatch) this.#measure(each, each);
    else if (asksShape)
      return; // how many numbers a shape has is the same for all rows
    else if (spread !== undefined) for (const name of outputs) this.axes.set(name, spread);
    else if (isPlain && !hasBatch && this.#measure(each, this.#shapes.get(ofShapes[0] ?? ""))) return;
    else if (hasBatch || ofShapes.length > 0) for (const name of outputs) this.#fixed.set(name, each);
  }

  /** Follows numbers about shapes; false when the node makes something else of them. */
  #measure(each: Node, cause: Node | undefined): boolean {
    const inputs = each.input.map((name): Known => {
      const axis = this.axes.get(name);
      const { dtype, shape } = this.#types.get(name) ?? {};
      return {
        dtype,
        shape: axis === undefined ? shape : shape?.with(axis, batchName(shape[axis])),
        items: this.#items.get(name) ?? this.#constantOf(name),
      };
    });
    const rule = Object.hasOwn(SMALL_VALUES, each.opType) ? SMALL_VALUES[each.opType] : undefined;
    const made = rule?.(new NodeView(each, this.#opset, inputs, NO_SCOPE)) ?? [];
    const isSettled = each.output.every((_, place) => made[place]?.every((item) => typeof item === "number"));
    if (cause && !isSettled && each !== cause && !SHAPE_ARITHMETIC.has(each.opType)) return false;
    each.output.forEach((name, place) => {
      const items = made[place];
      if (cause && items) this.#items.set(name, items);
      if (cause && !isSettled) this.#shapes.set(name, cause);
    });
    return cause !== undefined;
  }

  #carry(each: Node, ofShapes: readonly string[]) {
    const isAllowed = ofShapes.every((name) => each.input.indexOf(name) > 0 && TAKES_SHAPE.has(each.opType));
    return isAllowed ? carryBatch(this.#view(each)) : undefined;
  }

  /** A batch of one that was squeezed away and put back, as frameworks do around a function of one image. */
  #restored(each: Node): Carried | undefined {
    const squeeze = this.#index.producers.get(each.input[0] ?? "");
    if (each.opType !== "Unsqueeze" || squeeze?.opType !== "Squeeze") return undefined;
    const source = squeeze.input[0] ?? "";
    const [axis, rank] = [this.axes.get(source), this.#shapeOf(source)?.length];
    if (axis === undefined || rank === undefined) return undefined;
    const [gone, back] = [squeeze, each].map((of) => axesOf(this.#view(of), rank));
    if (!gone || !back || gone.length !== back.length || !gone.every((one) => back.includes(one)))
      return undefined;
    return { axis, nodes: [node("Identity", [source], [each.output[0] ?? ""])] };
  }

  #view(of: Node): BatchView {
    return {
      node: of,
      opset: this.#opset,
      shape: (input) => this.#shapeOf(of.input[input] ?? ""),
      made: (output) => this.#shapeOf(of.output[output] ?? ""),
      axis: (input) => this.axes.get(of.input[input] ?? ""),
      constant: (input) => this.#constantOf(of.input[input] ?? ""),
      isRead: (output) => {
        const name = of.output[output] ?? "";
        return this.#outputs.has(name) || this.#index.consumers.has(name);
      },
    };
  }

  #shapeOf(name: string): Shape | undefined {
    const shape = this.#types.get(name)?.shape;
    return shape && isConcrete(shape) ? shape : undefined;
  }

  /** Elements of a value that is the same for any number of rows. */
  #constantOf(name: string): readonly number[] | undefined {
    const changes = this.axes.has(name) || this.#fixed.has(name) || this.#shapes.has(name);
    return this.#hints.constants.get(name) ?? (changes ? undefined : this.#numbers.get(name));
  }
}
