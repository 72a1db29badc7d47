/**
 * Small models that differ in nothing but the numbers of their matrices, as one model that takes those as inputs
 * (the *template*) and one table of tensors each. A runtime then compiles the template once, and another model of
 * the same form costs it nothing but its tensors. This holds for linear layers on features, alone or a few in a
 * row; what has convolutions or large matrices is left whole, because a runtime prepares constant weights for those.
 */
import { create } from "@bufbuild/protobuf";
import { elementCount } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import { OperatorSetIdProtoSchema } from "./generated/onnx_pb.js";
import {
  canonicalDomain,
  copyOf,
  declaredType,
  graph,
  type Model,
  model,
  type Node,
  valueInfo,
} from "./model.js";
import { weightDtype, weightShape, weightTensor } from "./weight.js";

/** A model in two parts. */
export interface Template {
  /** Its values go by their places, so that models of one form have equal templates. */
  readonly model: Model;
  /** The tensors for those inputs of the template that the model has as weights. */
  readonly weights: ReadonlyMap<string, Tensor>;
  /** Names in the template of the model's inputs and outputs. */
  readonly names: ReadonlyMap<string, string>;
}

/**
 * Elements of all weights that are taken out. Up to this size they compute as fast as inputs as they do inside;
 * beyond, a runtime that packs constant matrices beforehand is up to twice as fast (measured by `bench/tables.js`).
 */
const MAX_TABLE = 2 ** 18;

/** More nodes or matrices are no head of a few linear layers. */
const MAX_NODES = 16;
const MAX_MATRICES = 4;

/** Weights that stay inside may hold so many elements: scalars, axes, target shapes. */
const MAX_INNER = 64;

/** The operators of such heads, and which of their inputs compute equally fast when they are no constants. */
const OPERATORS: ReadonlyMap<string, readonly number[]> = new Map<string, readonly number[]>([
  ["Gemm", [1, 2]],
  ["MatMul", [1]],
  ...["Add", "Sub", "Mul", "Div"].map((name) => [name, [0, 1]] as const),
  ...[
    ["Relu", "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "Clip", "Sqrt", "Pow", "Max", "LpNormalization"],
    ["Identity", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"],
    ["GlobalAveragePool", "ReduceMean", "ReduceSum", "ReduceL2"],
  ]
    .flat()
    .map((name) => [name, []] as const),
]);

/** The template of a model and its tensors; undefined for a model that is better left whole. */
export function templateOf(whole: Model): Template | undefined {
  const { node: nodes, input: inputs, output: outputs, initializer } = whole.graph;
  if (nodes.length > MAX_NODES || whole.functions.length > 0 || whole.graph.sparseInitializer.length > 0)
    return;
  if (!nodes.every(({ opType, domain }) => canonicalDomain(domain) === "" && OPERATORS.has(opType))) return;
  const fixed = new Set(nodes.flatMap(fixedInputs));
  const outside = initializer.filter((each) => !fixed.has(each.name) && weightDtype(each) === "float32");
  const inside = initializer.filter((each) => !outside.includes(each));
  const matrices = outside.filter((each) => weightShape(each).length > 1);
  if (matrices.length === 0 || matrices.length > MAX_MATRICES) return;
  if (inside.some((each) => elementCount(weightShape(each)) > MAX_INNER)) return;
  if (outside.reduce((sum, each) => sum + elementCount(weightShape(each)), 0) > MAX_TABLE) return;

  const names = new Map<string, string>();
  const rename = (name: string) => {
    if (name === "") return "";
    const known = names.get(name) ?? `v${names.size}`;
    names.set(name, known);
    return known;
  };
  const dimensions = new Map<string, string>();
  const border = (info: (typeof inputs)[number]) => {
    const type = declaredType(info);
    const shape = type?.shape?.map((size) => {
      if (typeof size === "number" || size === "?") return size;
      const symbol = dimensions.get(size) ?? `d${dimensions.size}`;
      dimensions.set(size, symbol);
      return symbol;
    });
    return type && valueInfo(rename(info.name), type.dtype, shape);
  };
  const given = inputs.map(border);
  const renamed = nodes.map((node) =>
    copyOf(node, {
      name: "",
      docString: "",
      input: node.input.map(rename),
      output: node.output.map(rename),
    }),
  );
  const tables = outside.map(
    (each) =>
      [valueInfo(rename(each.name), weightDtype(each), weightShape(each)), weightTensor(each)] as const,
  );
  const answers = outputs.map(border);
  if ([...given, ...answers].includes(undefined)) return;
  const main = graph("template", {
    nodes: renamed,
    inputs: [...given, ...tables.map(([info]) => info)].flatMap((info) => info ?? []),
    outputs: answers.flatMap((info) => info ?? []),
    weights: inside.map((each) => copyOf(each, { name: rename(each.name), docString: "" })),
  });
  const opsets = whole.opsetImport.filter(({ domain }) => canonicalDomain(domain) === "");
  return {
    model: Object.assign(model(main), {
      irVersion: whole.irVersion,
      opsetImport: opsets.map(({ version }) => create(OperatorSetIdProtoSchema, { domain: "", version })),
    }),
    weights: new Map(tables.map(([info, value]) => [info.name, value])),
    names,
  };
}

/** The values that a node wants to be constants. */
function fixedInputs({ opType, input }: Node): string[] {
  const free = OPERATORS.get(opType) ?? [];
  return input.filter((_, place) => !free.includes(place));
}
