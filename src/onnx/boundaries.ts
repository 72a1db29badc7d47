/**
 * Where networks of the usual kinds fall into a backbone and a head, told from their structure. A classifier ends in
 * a matrix product or, as SqueezeNet does, in a convolution that is averaged; an encoder with a decoder or a feature
 * pyramid begins to enlarge what it has made small; a network with several outputs branches. These are rules of
 * thumb: every boundary is a valid cut, whether it is the one that a person would choose is not certain.
 */

import { sameShape } from "../tensor/shape.js";
import { countAtOne, elementsOf } from "./cost.js";
import { DataFlow } from "./flow.js";
import { GraphIndex } from "./graph.js";
import { copyOf, intAttribute, intsAttribute, type Node, type ValueType } from "./model.js";

type Types = ReadonlyMap<string, ValueType>;

/** Of more first enlargements than this, only the last are looked at: networks have a few. */
const MOST_TOPS = 64;

/** Networks have a few. */
const MOST_CLASSIFIERS = 8;

const PRODUCTS: ReadonlySet<string> = new Set(
  [
    "Gemm MatMul Einsum MatMulInteger QLinearMatMul FusedMatMul FusedGemm Conv ConvTranspose FusedConv",
    "ConvInteger QLinearConv RNN GRU LSTM Attention",
  ].flatMap((line) => line.split(" ")),
);
const CONVOLUTIONS: ReadonlySet<string> = new Set(["Conv", "FusedConv", "ConvInteger", "QLinearConv"]);
const AVERAGES: ReadonlySet<string> = new Set(
  "GlobalAveragePool GlobalMaxPool AveragePool MaxPool ReduceMean ReduceMax ReduceSum".split(" "),
);
/** What may stand between a backbone's last feature and the first enlargement, and belongs to the pyramid. */
const LINEAR: ReadonlySet<string> = new Set(
  [
    "Conv BatchNormalization Add Sub Mul Div Concat Identity Transpose Reshape Pad MaxPool AveragePool",
    "Cast Squeeze Unsqueeze Constant",
  ].flatMap((line) => line.split(" ")),
);

/** Whether the node does the work that networks are made of: a product with many terms. */
export function isProduct(node: Node): boolean {
  return PRODUCTS.has(node.opType);
}

/**
 * What enters the classifier: the input of the last matrix product, or of a last convolution whose results are
 * averaged. Undefined for a network that ends otherwise.
 */
export function classifierInput(flow: DataFlow, types: Types): string | undefined {
  let [value] = flow.funnels();
  if (value === undefined) return undefined;
  const trunk = new Set(flow.index.ancestors([value]));
  if (flow.nodes.some((node) => !trunk.has(node) && isProduct(node))) return undefined;
  let isAveraged = false;
  while (value !== undefined) {
    const maker = flow.index.producers.get(value);
    if (!maker) return undefined;
    if (isProduct(maker)) {
      const [input, second] = flow.dataRead(maker);
      const isClassifier = !CONVOLUTIONS.has(maker.opType) || isAveraged || sides(value, types) === 1;
      return second === undefined && isClassifier && flow.index.producers.has(input ?? "")
        ? input
        : undefined;
    }
    const before: string | undefined = flow.dominatorOf(value);
    const region = before === undefined ? [] : flow.between(before, value);
    if (region.some(isProduct)) return undefined;
    isAveraged ||= region.some((node) => AVERAGES.has(node.opType));
    value = before;
  }
  return undefined;
}

/**
 * What enters each classifier of a network with several classifiers over the same classes, of which one or more sit on
 * the way to the last one, as those that only help training do (GoogLeNet, Inception v3). Undefined for other networks:
 * heads that share pooled features branch behind the last convolution, and are cut where they branch.
 */
export function auxiliaryInputs(flow: DataFlow, types: Types): string[] | undefined {
  const { graph, outputNames } = flow.index;
  const [first, ...others] = outputNames.map((name) => types.get(name)?.shape ?? []);
  const isAlike = first?.length === 2 && others.every((shape) => sameShape(shape, first));
  if (!isAlike || others.length === 0 || others.length >= MOST_CLASSIFIERS) return undefined;
  const inputs = graph.output.flatMap(
    (output) =>
      classifierInput(new DataFlow(new GraphIndex(copyOf(graph, { output: [output] }))), types) ?? [],
  );
  if (inputs.length < outputNames.length) return undefined;
  const branch = flow.commonDominator(inputs);
  const isBeforeConvolutions =
    branch !== "" &&
    inputs.some((name) => flow.between(branch, name).some(({ opType }) => CONVOLUTIONS.has(opType)));
  return isBeforeConvolutions ? [...new Set(inputs)] : undefined;
}

/**
 * The values that a feature pyramid or a decoder reads: what leaves the part of the network that makes the input of
 * the first enlargement. Undefined for a network that enlarges nothing.
 */
export function pyramidInputs(flow: DataFlow, types: Types): string[] | undefined {
  const enlarged = new Set<string>();
  const necks = new Set<string>();
  for (const node of flow.nodes) {
    const [input = "", ...others] = flow.dataRead(node);
    const isFirst = ![input, ...others].some((name) => enlarged.has(name));
    const isEnlargement = isFirst && input === node.input[0] && enlarges(node, types);
    if (isEnlargement) necks.add(input);
    if (isEnlargement || !isFirst) for (const name of node.output) enlarged.add(name);
  }
  const tops = new Set([...necks].slice(-MOST_TOPS).map((input) => beforeNeck(flow, input)));
  const parts = [...tops].map((top) => flow.index.ancestors([top]));
  const total = flow.nodes.filter(isProduct).length;
  const best = parts
    .map((part) => ({ part, products: part.filter(isProduct).length }))
    .filter(({ products }) => products >= total / 10)
    .sort((a, b) => b.products - a.products)[0];
  return best && flow.leaving(new Set(best.part));
}

/**
 * The values at which a network branches: what leaves the part that two or more of its ends need. An end is a last
 * product, with whatever decodes its result, or an output that is taken from the middle. Undefined for a network with
 * one end.
 */
export function branchInputs(flow: DataFlow): string[] | undefined {
  const ends = new Map<string, symbol>();
  const outputs = new Set(flow.index.outputNames.filter((name) => flow.isData(name)));
  const passed = new Set<string>();
  const shared: Node[] = [];
  const several = Symbol("several");
  for (const node of flow.nodes.toReversed()) {
    const isAfter = node.output.some((name) => passed.has(name));
    const goals = new Set(node.output.map((name) => ends.get(name)).filter((end) => end !== undefined));
    if (isProduct(node) && !isAfter) goals.add(Symbol(node.name));
    else if (isAfter && node.output.some((name) => outputs.has(name))) goals.add(Symbol(node.name));
    const goal = goals.size > 1 ? several : [...goals][0];
    if (goal === several) shared.push(node);
    for (const name of flow.dataRead(node)) {
      if (isAfter || isProduct(node)) passed.add(name);
      const known = ends.get(name);
      if (goal !== undefined) ends.set(name, known === undefined || known === goal ? goal : several);
    }
  }
  if (shared.length === 0) return undefined;
  return flow.leaving(new Set(flow.index.ancestors(shared.flatMap((node) => node.output))));
}

/** Whether the values are feature maps of several sizes. */
export function isPyramid(values: readonly string[], types: Types): boolean {
  const areMaps = values.every((name) => (types.get(name)?.shape?.length ?? 0) >= 4);
  return areMaps && new Set(values.map((name) => sides(name, types))).size > 1;
}

/** Elements of a feature map in one channel; 1 where there are no sides, 0 where they are not known. */
function sides(name: string, types: Types): number {
  const shape = types.get(name)?.shape;
  return shape ? countAtOne(shape.slice(2)) : 0;
}

function enlarges(node: Node, types: Types): boolean {
  if (node.opType === "ConvTranspose") return (intsAttribute(node, "strides") ?? []).some((each) => each > 1);
  if (node.opType !== "Resize" && node.opType !== "Upsample") return false;
  // A single pixel spread over a map is an average that is read everywhere, not a coarser map.
  if (
    sides(node.input[0] ?? "", types) === 1 &&
    types
      .get(node.input[0] ?? "")
      ?.shape?.slice(2)
      .every(isOne)
  )
    return false;
  return elementsOf(node.output[0], types) >= elementsOf(node.input[0], types);
}

function isOne(size: number | string): boolean {
  return size === 1;
}

/**
 * Goes back from the input of an enlargement over the layer that fits the backbone's last feature to it: linear
 * nodes with at most one convolution that mixes channels, and the depthwise one before that.
 */
function beforeNeck(flow: DataFlow, from: string): string {
  let value = from;
  let isMixed = false;
  for (;;) {
    const before = flow.dominatorOf(value);
    if (before === undefined || !flow.index.producers.has(before)) return value;
    const region = flow.between(before, value);
    const mixes = region.some((node) => CONVOLUTIONS.has(node.opType) && !isDepthwise(node));
    const isNeck = isMixed
      ? region.every((node) => isDepthwise(node) || node.opType === "Pad")
      : region.every((node) => LINEAR.has(node.opType));
    if (!isNeck) return value;
    isMixed ||= mixes;
    value = before;
  }
}

function isDepthwise(node: Node): boolean {
  return CONVOLUTIONS.has(node.opType) && intAttribute(node, "group", 1) > 1;
}
