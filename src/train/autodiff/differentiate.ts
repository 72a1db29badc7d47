/**
 * Reverse-mode differentiation of an ONNX graph: from a scalar value, the loss, to as many others as are asked for.
 * Walks the graph backwards; each node's rule turns the gradient of its result into those of its inputs, and what
 * comes to a value from several readers is added. Only nodes on a path from an asked-for value to the loss take
 * part. The result is an ordinary graph that computes forward and backward. Shapes must be known before the graph
 * runs; see `bindShapes`.
 */
import { PolyheadError } from "../../base/errors.js";
import { withGraph } from "../../onnx/extract.js";
import { freeNames, GraphIndex, reads } from "../../onnx/graph.js";
import { inlined } from "../../onnx/inline.js";
import {
  copyOf,
  type Model,
  type Node,
  opsetVersion,
  subgraphs,
  type ValueType,
  valueInfo,
} from "../../onnx/model.js";
import { inferValues } from "../../onnx/shapes.js";
import { Builder, LEAST_OPSET } from "./builder.js";
import { Context, type Forward, label } from "./context.js";
import { ruleOf } from "./rules.js";

/** What to differentiate. */
export interface DifferentiateOptions {
  /** The loss: a float value of one element. */
  readonly of: string;
  /** Initializers, inputs or other float values of the main graph. */
  readonly withRespectTo: readonly string[];
}

/** A model that also computes gradients. */
export interface Differentiated {
  /** The model with further outputs: the loss and all gradients. */
  readonly model: Model;
  /** Output with the gradient, by the value it belongs to; values that do not influence the loss are absent. */
  readonly gradients: ReadonlyMap<string, string>;
}

/**
 * Adds the gradients of a loss to a model. Outputs are the loss and the gradients, each with the shape and dtype of
 * its value; what only other outputs needed is gone.
 * @throws PolyheadError MODEL_UNSUPPORTED with all operators on the way that have no rule, or for shapes that are
 *   not known
 * @throws PolyheadError INVALID_ARGUMENT for a loss that is no float of one element; NOT_FOUND for unknown names
 */
export function differentiate(given: Model, { of, withRespectTo }: DifferentiateOptions): Differentiated {
  const model = inlined(given);
  const index = new GraphIndex(model.graph);
  const { types, constants } = inferValues(model);
  requireLoss(of, types.get(of));
  for (const name of withRespectTo) requireFloat(name, types.get(name));

  const needed = index.ancestors([of]);
  const path = pathFrom(new Set(withRespectTo), needed, types);
  refuseUnknown(path.nodes, path.values);

  const opset = opsetVersion(model) ?? LEAST_OPSET;
  const taken = [...types.keys(), ...model.graph.node.flatMap(({ output }) => output)];
  const builder = new Builder(opset, taken, "gradient");
  const forward = new ForwardGraph(builder, types, constants);
  forward.give(of, builder.filled((types.get(of)?.shape ?? []).map(Number), 1, floatType(types.get(of))));
  for (const node of [...path.nodes].reverse()) {
    const rule = ruleOf(node);
    if (typeof rule === "string" || !node.output.some((name) => forward.gradientOf(name) !== undefined))
      continue;
    const context = new Context(node, builder, forward);
    rule(context, context.dy(0)).forEach((make, place) => {
      const input = node.input[place] ?? "";
      if (make && path.values.has(input)) forward.give(input, make());
    });
  }
  const gradients = new Map<string, string>();
  for (const name of withRespectTo) {
    const gradient = forward.gradientOf(name);
    if (gradient !== undefined) gradients.set(name, gradient);
  }
  return { model: assembled(model, forward, builder, of, gradients, types), gradients };
}

/** Values that depend on the given ones in a differentiable way, and the nodes between. */
function pathFrom(
  start: ReadonlySet<string>,
  nodes: readonly Node[],
  types: ReadonlyMap<string, ValueType>,
): { nodes: Node[]; values: Set<string> } {
  const values = new Set(start);
  const onPath = nodes.filter((node) => {
    if (!reads(node).some((name) => values.has(name))) return false;
    const floats = node.output.filter((name) => name !== "" && isFloat(types.get(name)));
    for (const name of floats) values.add(name);
    return floats.length > 0;
  });
  return { nodes: onPath, values };
}

function refuseUnknown(nodes: readonly Node[], values: ReadonlySet<string>): void {
  const refused = nodes.flatMap((node) => {
    const inner = subgraphs(node).flatMap(freeNames);
    const rule = inner.some((name) => values.has(name)) ? "its subgraph reads what is trained" : ruleOf(node);
    return typeof rule === "string" ? [{ node, reason: rule }] : [];
  });
  if (refused.length === 0) return;
  const list = refused.map(({ node, reason }) => `${label(node)} (${reason})`);
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The model cannot be differentiated: ${list.length} of its nodes between what is trained and the loss have no gradient: ${list.join(", ")}. Train only what comes after them.`,
    { nodes: refused.map(({ node, reason }) => ({ name: node.name, opType: node.opType, reason })) },
  );
}

/** Collects gradients while the backward part is written. */
class ForwardGraph implements Forward {
  readonly types: ReadonlyMap<string, ValueType>;
  readonly constants: ReadonlyMap<string, readonly number[]>;
  /** Forward nodes with outputs that a rule asked for. */
  readonly extended = new Map<Node, Node>();
  readonly #builder: Builder;
  readonly #shares = new Map<string, string[]>();

  constructor(
    builder: Builder,
    types: ReadonlyMap<string, ValueType>,
    constants: ReadonlyMap<string, readonly number[]>,
  ) {
    this.#builder = builder;
    this.types = types;
    this.constants = constants;
  }

  /** Adds a share of a value's gradient. */
  give(value: string, gradient: string): void {
    this.#shares.set(value, [...(this.#shares.get(value) ?? []), gradient]);
  }

  gradientOf(value: string): string | undefined {
    const shares = this.#shares.get(value);
    const [first, ...others] = shares ?? [];
    if (first === undefined || others.length === 0) return first;
    // All readers stand behind in the graph, so that nothing comes to a value after its gradient was asked for.
    const sum = others.reduce((all, share) => this.#builder.op("Add", [all, share]), first);
    this.#shares.set(value, [sum]);
    return sum;
  }

  optionalOutput(node: Node, place: number): string {
    const current = this.extended.get(node) ?? node;
    const existing = current.output[place] ?? "";
    if (existing !== "") return existing;
    const name = this.#builder.name(`${node.opType}_${place}`);
    const output = Array.from({ length: Math.max(current.output.length, place + 1) }, (_, at) =>
      at === place ? name : (current.output[at] ?? ""),
    );
    this.extended.set(node, copyOf(current, { output }));
    return name;
  }
}

/** The whole graph, without what neither loss nor gradients need. */
function assembled(
  model: Model,
  forward: ForwardGraph,
  builder: Builder,
  of: string,
  gradients: ReadonlyMap<string, string>,
  types: ReadonlyMap<string, ValueType>,
): Model {
  const outputs = [
    valueInfo(of, floatType(types.get(of)), types.get(of)?.shape),
    ...[...gradients].flatMap(([value, gradient]) => {
      const type = types.get(value);
      return type ? [valueInfo(gradient, type.dtype, type.shape)] : [];
    }),
  ];
  const main = copyOf(model.graph, {
    node: [...model.graph.node.map((node) => forward.extended.get(node) ?? node), ...builder.nodes],
    initializer: [...model.graph.initializer, ...builder.weights],
    output: unique(outputs),
    valueInfo: [],
  });
  const index = new GraphIndex(main);
  const nodes = index.ancestors(outputs.map(({ name }) => name));
  const read = new Set([...nodes.flatMap(reads), ...outputs.map(({ name }) => name)]);
  const pruned = copyOf(main, {
    node: nodes,
    input: main.input.filter(({ name }) => read.has(name)),
    initializer: main.initializer.filter(({ name }) => read.has(name)),
  });
  return withGraph(model, pruned);
}

/** Two values may have one gradient: a and b in a + b. */
function unique<T extends { readonly name: string }>(list: readonly T[]): T[] {
  return [...new Map(list.map((each) => [each.name, each])).values()];
}

function isFloat(type: ValueType | undefined): boolean {
  return (
    type !== undefined && (type.dtype === "float32" || type.dtype === "float64" || type.dtype === "float16")
  );
}

function floatType(type: ValueType | undefined): "float32" | "float64" {
  return type?.dtype === "float64" ? "float64" : "float32";
}

function requireLoss(name: string, type: ValueType | undefined): void {
  requireFloat(name, type);
  const shape = type?.shape;
  if (shape?.every((size) => size === 1)) return;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `The loss ${JSON.stringify(name)} has the shape ${shape ? `[${shape.join(", ")}]` : "unknown"}; expected one element.`,
    { value: name, got: shape, expected: [] },
  );
}

function requireFloat(name: string, type: ValueType | undefined): void {
  if (!type) {
    throw new PolyheadError("NOT_FOUND", `The graph has no value ${JSON.stringify(name)} of known dtype.`, {
      value: name,
    });
  }
  if (type.dtype === "float32" || type.dtype === "float64") return;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `${JSON.stringify(name)} is ${type.dtype}; only float32 and float64 values can be differentiated. Cast the model to float32 first.`,
    { value: name, got: type.dtype, expected: ["float32", "float64"] },
  );
}
