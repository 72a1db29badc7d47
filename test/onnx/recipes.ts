/**
 * Random small graphs as recipes: plain data from which a model can be written in many ways that compute the same.
 * The tests of identity and of what is built on it know from the recipe what must be equal and what must not.
 */

import { create } from "@bufbuild/protobuf";
import fc from "fast-check";
import {
  FunctionProtoSchema,
  OperatorSetIdProtoSchema,
  TensorProtoSchema,
} from "../../src/onnx/generated/onnx_pb.js";
import {
  attribute,
  float,
  graph,
  type Model,
  model,
  type Node,
  node,
  valueInfo,
  type Weight,
} from "../../src/onnx/model.js";
import { dtypeCode, weight } from "../../src/onnx/weight.js";
import { float32 } from "../../src/tensor/tensor.js";

/** Operators of the recipes: how many values they read, and the attribute that they have. */
const OPERATORS = {
  Add: { reads: 2 },
  Sub: { reads: 2 },
  Mul: { reads: 2 },
  MatMul: { reads: 2 },
  Relu: { reads: 1 },
  Tanh: { reads: 1 },
  LeakyRelu: { reads: 1, attribute: { name: "alpha", values: [0.01, 0.25, 0.5], standard: 0.01 } },
  Elu: { reads: 1, attribute: { name: "alpha", values: [1, 0.5], standard: 1 } },
  Softmax: { reads: 1, attribute: { name: "axis", values: [-1, 0], standard: -1 } },
} as const satisfies Record<
  string,
  { reads: number; attribute?: { name: string; values: readonly number[]; standard: number } }
>;

/** An operator of the recipes. */
export type OpType = keyof typeof OPERATORS;

/** One node: what it does to values by number. Value 0 and 1 are the inputs, weights follow, then nodes. */
export interface RecipeNode {
  readonly opType: OpType;
  readonly reads: readonly number[];
  /** The value of its attribute, where the operator has one. */
  readonly attribute: number | undefined;
}

/** A graph over values of shape [2, 2]. */
export interface Recipe {
  /** Four numbers each. */
  readonly weights: readonly (readonly number[])[];
  readonly nodes: readonly RecipeNode[];
}

/** Number of inputs of every recipe. */
export const INPUTS = 2;

/** The number of the value that a node makes. */
export function madeBy(recipe: Recipe, nodeAt: number): number {
  return INPUTS + recipe.weights.length + nodeAt;
}

/** Attribute of an operator, if it has one. */
export function attributeOf(opType: OpType) {
  const operator = OPERATORS[opType];
  return "attribute" in operator ? operator.attribute : undefined;
}

const numbers = fc.array(fc.integer({ min: -8, max: 8 }), { minLength: 4, maxLength: 4 });

/** Any recipe. */
export const recipes: fc.Arbitrary<Recipe> = fc
  .tuple(
    fc.array(numbers, { minLength: 1, maxLength: 3 }),
    fc.array(
      fc.record({
        opType: fc.constantFrom(...(Object.keys(OPERATORS) as OpType[])),
        picks: fc.tuple(fc.nat(1000), fc.nat(1000)),
        attribute: fc.nat(10),
      }),
      { minLength: 2, maxLength: 10, size: "max" },
    ),
  )
  .map(([weights, drafts]) => ({
    weights,
    nodes: drafts.map(({ opType, picks, attribute: pick }, at) => {
      const known = INPUTS + weights.length + at;
      const values = attributeOf(opType)?.values;
      return {
        opType,
        reads: picks.slice(0, OPERATORS[opType].reads).map((place) => place % known),
        attribute: values?.[pick % values.length],
      };
    }),
  }));

/** The values that depend on one of the given values, these among them. */
export function downstream(recipe: Recipe, from: readonly number[]): Set<number> {
  const found = new Set(from);
  recipe.nodes.forEach(({ reads }, at) => {
    if (reads.some((value) => found.has(value))) found.add(madeBy(recipe, at));
  });
  return found;
}

/** Ways to write a recipe that do not change what it computes. */
export interface Style {
  readonly prefix: string;
  /** Picks the next node among those that can run; gives the node order. */
  readonly order: readonly number[];
  readonly documented: boolean;
  /** Attributes at their default: written or left out. */
  readonly defaults: boolean;
  /** Weights: stored raw, as a list of numbers, or as Constant nodes. */
  readonly weights: "raw" | "list" | "constant";
  /** Identity nodes between a value and who reads it. */
  readonly detours: boolean;
  /** Whether every node is a call of a function of the model. */
  readonly calls: boolean;
  /** All operators in use are the same in these. */
  readonly opset: number;
}

/** Any style. */
export const styles: fc.Arbitrary<Style> = fc.record({
  prefix: fc.constantFrom("", "layer/", "\u00e4", "0"),
  order: fc.array(fc.nat(1000), { minLength: 10, maxLength: 10 }),
  documented: fc.boolean(),
  defaults: fc.boolean(),
  weights: fc.constantFrom("raw", "list", "constant"),
  detours: fc.boolean(),
  calls: fc.boolean(),
  opset: fc.constantFrom(16, 17, 18, 21),
});

/** The plain style. */
export const PLAIN: Style = {
  prefix: "",
  order: [],
  documented: false,
  defaults: false,
  weights: "raw",
  detours: false,
  calls: false,
  opset: 17,
};

/** The name of a value in a style. */
export function nameOf(style: Style, value: number): string {
  return `${style.prefix}v${value}`;
}

/** The recipe as a model that gives the values of the given nodes (of all when left out). */
export function written(recipe: Recipe, style: Style = PLAIN, outputs?: readonly number[]): Model {
  const name = (value: number) => nameOf(style, value);
  const nodes: Node[] = [];
  const functions = new Map<string, ReturnType<typeof asFunction>>();
  const [constants, initializers] = writeWeights(recipe, style);
  nodes.push(...constants);
  for (const at of inOrder(recipe, style)) {
    const recipeNode = recipe.nodes[at];
    if (!recipeNode) continue;
    const inputs = recipeNode.reads.map((value, place) => {
      if (!style.detours) return name(value);
      const detour = `${name(value)}/to${at}/${place}`;
      nodes.push(node("Identity", [name(value)], [detour]));
      return detour;
    });
    const made = writeNode(recipeNode, inputs, name(madeBy(recipe, at)), style);
    if (style.calls) {
      functions.set(recipeNode.opType, asFunction(made));
      made.domain = "own";
    }
    nodes.push(made);
  }
  const asked = outputs ?? recipe.nodes.map((_, at) => madeBy(recipe, at));
  const info = (value: number) => valueInfo(name(value), "float32", [2, 2]);
  const whole = model(
    graph(style.documented ? "documented" : "g", {
      nodes,
      inputs: Array.from({ length: INPUTS }, (_, at) => info(at)),
      outputs: asked.map(info),
      weights: initializers,
    }),
    style.opset,
  );
  if (style.documented) {
    whole.docString = "A model.";
    whole.producerVersion = "7";
    whole.graph.docString = "A graph.";
    for (const each of nodes) Object.assign(each, { docString: "A node.", name: `node ${each.output[0]}` });
  }
  if (style.calls) {
    whole.functions = [...functions.values()];
    whole.opsetImport.push(create(OperatorSetIdProtoSchema, { domain: "own", version: 1n }));
  }
  return whole;
}

function inOrder(recipe: Recipe, { order }: Style): number[] {
  const first = INPUTS + recipe.weights.length;
  const left = recipe.nodes.map((_, at) => at);
  const done: number[] = [];
  for (const pick of [...order, ...Array<number>(left.length).fill(0)]) {
    const ready = left.filter((at) =>
      recipe.nodes[at]?.reads.every((value) => value < first || done.includes(value - first)),
    );
    const next = ready[pick % Math.max(1, ready.length)];
    if (next === undefined) break;
    left.splice(left.indexOf(next), 1);
    done.push(next);
  }
  return done;
}

function writeNode(of: RecipeNode, inputs: readonly string[], output: string, { defaults }: Style): Node {
  const made = node(of.opType, inputs, [output]);
  const known = attributeOf(of.opType);
  if (known && of.attribute !== undefined && (defaults || of.attribute !== known.standard)) {
    made.attribute.push(attribute(known.name, known.name === "axis" ? of.attribute : float(of.attribute)));
  }
  return made;
}

/** A function that does what the node does; its attribute, if the operator has one, is the caller's. */
function asFunction(of: Node) {
  const opType = of.opType as OpType;
  const known = attributeOf(opType);
  const inner = node(
    opType,
    of.input.map((_, place) => `a${place}`),
    ["b"],
  );
  const parameter =
    known && attribute(known.name, known.name === "axis" ? known.standard : float(known.standard));
  if (parameter)
    inner.attribute.push(
      Object.assign(attribute(parameter.name, 0), { type: parameter.type, refAttrName: parameter.name }),
    );
  return create(FunctionProtoSchema, {
    name: opType,
    domain: "own",
    input: inner.input,
    output: ["b"],
    node: [inner],
    attributeProto: parameter ? [parameter] : [],
    opsetImport: [create(OperatorSetIdProtoSchema, { domain: "", version: 17n })],
  });
}

function writeWeights(recipe: Recipe, style: Style): [Node[], Weight[]] {
  const made = recipe.weights.map((values, at) => {
    const name = nameOf(style, INPUTS + at);
    if (style.weights !== "list") return weight(name, float32([2, 2], values));
    return create(TensorProtoSchema, {
      name,
      dims: [2n, 2n],
      dataType: dtypeCode("float32"),
      floatData: [...values],
    });
  });
  if (style.weights !== "constant") return [[], made];
  const constants = recipe.weights.map((values, at) =>
    node("Constant", [], [nameOf(style, INPUTS + at)], { value: float32([2, 2], values) }),
  );
  return [constants, []];
}
