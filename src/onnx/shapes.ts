/**
 * Dtype and shape of every value of a model without running it. Each operator has a small rule (`shape-rules/`);
 * small integer tensors are followed element by element, so that shapes computed in the graph are known too, and
 * named dimensions keep their names through them. What no rule knows is taken from what the file declares, and
 * stays unknown else. Nodes that contradict themselves make unknown results; the runtime refuses them.
 */
import { type Dimension, elementCount, isConcrete, type SymbolicShape } from "../tensor/shape.js";
import { constantOf } from "./constant.js";
import { GraphIndex, namesFromOutside } from "./graph.js";
import {
  canonicalDomain,
  DEFAULT_OPSET,
  declaredType,
  functionFinder,
  type Graph,
  type Model,
  type ModelFunction,
  type Node,
  opsetVersion,
  type ValueInfo,
  type ValueType,
  type Weight,
} from "./model.js";
import { isSize, MAX_RANK } from "./shape-rules/sizes.js";
import { MAX_ITEMS, SMALL_VALUES, weightItems } from "./shape-rules/small-values.js";
import { ruleOf } from "./shape-rules/table.js";
import { type Item, type Known, NodeView, type Scope } from "./shape-rules/view.js";
import { weightDtype, weightShape } from "./weight.js";

/** Functions may call functions, and branches hold branches; no sane model goes deeper. */
const MAX_DEPTH = 64;
/** Nodes looked at in all, bodies of functions once per call; what comes after is unknown. */
const MAX_NODES = 2_000_000;
/** An unknown dimension while it is inferred: each has its own number, so that equal ones can be told. */
const UNKNOWN = /\?\d+/;

/**
 * Dtypes and shapes of all values of the main graph, inputs and weights included; values of unknown dtype are
 * absent. A named dimension of an input goes by its name wherever it survives, `4*N` where it was multiplied, and
 * one that is not known is `?`.
 * @param seen is told of every value of known dtype, those in bodies of branches, loops and functions included
 * @throws PolyheadError MODEL_MALFORMED when the graph is none, or a weight has no dtype or shape
 */
export function inferTypes(
  model: Model,
  seen?: (name: string, type: ValueType) => void,
): Map<string, ValueType> {
  return inferValues(model, seen).types;
}

/** What {@link inferTypes} gives, and the elements of small values that are the same whatever the inputs are. */
export function inferValues(
  model: Model,
  seen?: (name: string, type: ValueType) => void,
): {
  types: Map<string, ValueType>;
  constants: ReadonlyMap<string, readonly number[]>;
} {
  const known = new Map<string, Known>();
  new Inference(model, seen).graph(new GraphIndex(model.graph), known, []);
  const types = new Map<string, ValueType>();
  const constants = new Map<string, readonly number[]>();
  for (const [name, { dtype, shape, items }] of known) {
    if (dtype) types.set(name, { dtype, shape: shape?.map(shown) });
    if (items?.every((item) => typeof item === "number")) constants.set(name, items);
  }
  return { types, constants };
}

function shown(size: Dimension): Dimension {
  return typeof size === "string" && UNKNOWN.test(size) ? "?" : size;
}

/** One run over a model; recursion follows subgraphs and functions. */
class Inference {
  readonly #model: Model;
  readonly #seen: ((name: string, type: ValueType) => void) | undefined;
  readonly #find: (node: Node) => ModelFunction | undefined;
  readonly #unknowns = new Map<string, string>();
  #unknownCount = 0;
  #nodesLeft = MAX_NODES;
  #depth = 0;

  constructor(model: Model, seen?: (name: string, type: ValueType) => void) {
    this.#model = model;
    this.#seen = seen;
    this.#find = functionFinder(model);
  }

  /** Adds what is known of a graph's inputs, weights and values to `known`. */
  graph(index: GraphIndex, known: Map<string, Known>, inputs: readonly (Known | undefined)[]): void {
    index.inputs.forEach((info, place) => {
      known.set(info.name, this.#completed(inputs[place], info));
    });
    for (const [name, weight] of index.weights) known.set(name, this.#weight(weight));
    for (const { values, dims } of index.graph.sparseInitializer) {
      if (values) known.set(values.name, { dtype: weightDtype(values), shape: dims.map(Number) });
    }
    const declared = new Map(
      [...index.graph.valueInfo, ...index.graph.output].map((info) => [info.name, info]),
    );
    for (const node of index.order) this.#node(node, this.#model, known, declared);
  }

  #node(
    node: Node,
    opsets: Pick<Model, "opsetImport">,
    known: Map<string, Known>,
    declared: ReadonlyMap<string, ValueInfo>,
  ): void {
    const results = this.#nodesLeft-- > 0 ? this.#results(node, opsets, known) : [];
    node.output.forEach((name, place) => {
      if (name === "") return;
      const made = this.#completed(results[place], declared.get(name));
      known.set(name, made);
      if (made.dtype) this.#seen?.(name, { dtype: made.dtype, shape: made.shape });
    });
  }

  #results(
    node: Node,
    opsets: Pick<Model, "opsetImport">,
    known: ReadonlyMap<string, Known>,
  ): readonly (Known | undefined)[] {
    const domain = canonicalDomain(node.domain);
    const inputs = node.input.map((name) => (name === "" ? undefined : known.get(name)));
    if (domain === "" && node.opType === "Constant") {
      const constant = constantOf(node);
      if (constant) return [this.#weight(constant)];
    }
    const called = this.#find(node);
    if (called) return this.#call(called, node, inputs);
    const rule = ruleOf(domain, node.opType);
    const isOpen = node.attribute.some(({ refAttrName }) => refAttrName !== "");
    if (!rule || isOpen) return [];
    const scope: Scope = {
      unknown: (key) => this.#unknown(key),
      outputsOf: (graph, given) => this.#body(graph, known, given),
    };
    const view = new NodeView(node, opsetVersion(opsets, domain) ?? DEFAULT_OPSET, inputs, scope);
    const items =
      domain === "" && Object.hasOwn(SMALL_VALUES, node.opType) && SMALL_VALUES[node.opType]?.(view);
    const results = rule(view).map((result) => result && this.#checked(result));
    return items ? results.map((result, place) => withItems(result, items[place])) : results;
  }

  /** What a function returns is what its body does with the call's inputs and attributes in place. */
  #call(
    called: ModelFunction,
    node: Node,
    inputs: readonly (Known | undefined)[],
  ): readonly (Known | undefined)[] {
    if (this.#depth >= MAX_DEPTH) return [];
    this.#depth++;
    const known = new Map<string, Known>();
    called.input.forEach((name, place) => {
      known.set(name, inputs[place] ?? {});
    });
    const given = new Map([...called.attributeProto, ...node.attribute].map((each) => [each.name, each]));
    const declared = new Map(called.valueInfo.map((info) => [info.name, info]));
    for (const inner of called.node) {
      const attribute = inner.attribute.flatMap((each) => {
        if (each.refAttrName === "") return [each];
        const value = given.get(each.refAttrName);
        return value ? [{ ...value, name: each.name }] : [];
      });
      this.#node({ ...inner, attribute }, called, known, declared);
    }
    this.#depth--;
    return called.output.map((name) => known.get(name));
  }

  #body(
    graph: Graph,
    outer: ReadonlyMap<string, Known>,
    inputs: readonly Known[],
  ): readonly (Known | undefined)[] {
    if (this.#depth >= MAX_DEPTH) return [];
    this.#depth++;
    const known = namesFromOutside(graph, outer);
    this.graph(new GraphIndex(graph, new Set(known.keys())), known, inputs);
    this.#depth--;
    return graph.output.map(({ name }) => known.get(name));
  }

  #weight(weight: Weight): Known {
    return { dtype: weightDtype(weight), shape: weightShape(weight), items: weightItems(weight) };
  }

  /** What was inferred, with its gaps filled from what is declared. */
  #completed(inferred: Known | undefined, info: ValueInfo | undefined): Known {
    const declared = info && declaredType(info);
    if (!declared) return inferred ?? {};
    const named = declared.shape?.map((size) => (typeof size === "string" ? shown(size) : size));
    const { shape } = this.#checked({ shape: named });
    return { ...inferred, dtype: inferred?.dtype ?? declared.dtype, shape: filled(inferred?.shape, shape) };
  }

  /** A shape whose dimensions can be ones; the others become unknown, each for itself. */
  #checked(known: Known): Known {
    const { shape } = known;
    if (!shape) return known;
    if (shape.length > MAX_RANK) return { dtype: known.dtype };
    const sizes = shape.map((size) =>
      (typeof size === "string" && size !== "?") || isSize(size) ? size : this.#unknown(),
    );
    return { ...known, shape: sizes };
  }

  #unknown(key?: string): string {
    const same = key === undefined ? undefined : this.#unknowns.get(key);
    if (same !== undefined) return same;
    const made = `?${++this.#unknownCount}`;
    if (key !== undefined) this.#unknowns.set(key, made);
    return made;
  }
}

function filled(
  inferred: SymbolicShape | undefined,
  declared: SymbolicShape | undefined,
): SymbolicShape | undefined {
  if (!inferred) return declared;
  if (declared?.length !== inferred.length) return inferred;
  return inferred.map((size, axis) => {
    const other = declared[axis] ?? size;
    const isGap = shown(size) === "?" && shown(other) !== "?";
    return isGap ? other : size;
  });
}

/** The value with its elements, when it is small and has as many. */
function withItems(known: Known | undefined, items: readonly Item[] | undefined): Known | undefined {
  if (!known?.shape || !items || items.length > MAX_ITEMS || !isConcrete(known.shape)) return known;
  return elementCount(known.shape) === items.length ? { ...known, items } : known;
}
