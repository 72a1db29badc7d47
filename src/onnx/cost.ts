/**
 * What nodes cost before anything runs: parameters and floating-point operations. A multiply-accumulate counts as
 * two operations, a bias as none; nodes that only move or reshape elements count nothing, others one operation per
 * output element. Dimensions without a number count as 1, so that the figures are those of one row of a batch;
 * what the bodies of branches and loops do is not counted.
 */
import { elementCount, type SymbolicShape } from "../tensor/shape.js";
import { constantOf } from "./constant.js";
import { type GraphIndex, reads } from "./graph.js";
import {
  intAttribute,
  intsAttribute,
  type Model,
  type Node,
  stringAttribute,
  type ValueType,
  type Weight,
} from "./model.js";
import { allWeights } from "./read.js";
import { einsumLabels } from "./shape-rules/linear.js";
import { atOne } from "./shape-rules/sizes.js";
import { weightDtype, weightShape } from "./weight.js";

/** Parameters and work of a part of a model. */
export interface Cost {
  /** Elements of the weights it reads; integers that address and shape, and single numbers, are not counted. */
  readonly parameters: number;
  /** Floating-point operations for one row of a batch; a multiply-accumulate is two. */
  readonly flops: number;
}

type Types = ReadonlyMap<string, ValueType>;

const NO_PARAMETERS: ReadonlySet<string> = new Set(["int64", "int32", "bool", "string"]);
/** Operators that move, address or relabel elements without computing with them. */
const MOVES: ReadonlySet<string> = new Set(
  [
    "Cast Compress Concat Constant ConstantOfShape DepthToSpace Dropout Expand Flatten Gather GatherElements",
    "GatherND Identity If Loop NonZero OneHot Pad Range Reshape ReverseSequence Scan Scatter ScatterElements",
    "ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze",
  ].flatMap((line) => line.split(" ")),
);

/** What the given nodes of a graph cost together. */
export function costOf(nodes: readonly Node[], index: GraphIndex, types: Types): Cost {
  return new NodeCosts(index, types).of(nodes);
}

/** What nodes of one graph cost, for questions about many parts of it: each node is looked at once. */
export class NodeCosts {
  readonly #index: GraphIndex;
  readonly #types: Types;
  readonly #nodes = new Map<Node, { readonly flops: number; readonly weights: readonly Weight[] }>();

  constructor(index: GraphIndex, types: Types) {
    this.#index = index;
    this.#types = types;
  }

  /** What the nodes cost together; a weight that several of them read counts once. */
  of(nodes: readonly Node[]): Cost {
    const weights = new Set<Weight>();
    let flops = 0;
    for (const node of nodes) {
      const own = this.#lookAt(node);
      flops += own.flops;
      for (const weight of own.weights) weights.add(weight);
    }
    return { parameters: [...weights].reduce((sum, weight) => sum + parametersOf(weight), 0), flops };
  }

  #lookAt(node: Node) {
    const known = this.#nodes.get(node);
    if (known) return known;
    const constant = node.opType === "Constant" ? constantOf(node) : undefined;
    const read = reads(node).flatMap((name) => this.#index.weights.get(name) ?? []);
    const own = { flops: nodeFlops(node, this.#types), weights: constant ? [constant, ...read] : read };
    this.#nodes.set(node, own);
    return own;
  }
}

/** Elements of a weight; 0 for integers that address and shape, and for single numbers. */
export function parametersOf(weight: Weight): number {
  const isParameter = weight.dims.length > 0 && !NO_PARAMETERS.has(weightDtype(weight));
  return isParameter ? elementCount(weightShape(weight)) : 0;
}

/** Elements of all weights of a model, bodies and functions included, by the measure of {@link parametersOf}. */
export function parameterCount(model: Model): number {
  let count = 0;
  for (const weight of new Set(allWeights(model))) count += parametersOf(weight);
  return count;
}

/** Elements of a value, names counted as 1; 0 when its shape is not known. */
export function elementsOf(name: string | undefined, types: Types): number {
  const shape = types.get(name ?? "")?.shape;
  return shape ? countAtOne(shape) : 0;
}

/** Elements of a shape with 1 in place of every name. */
export function countAtOne(shape: SymbolicShape): number {
  return elementCount(shape.map(atOne));
}

/** Floating-point operations of one node for one row of a batch; see the file's head. */
export function nodeFlops(node: Node, types: Types): number {
  const count = Object.hasOwn(COUNTS, node.opType) ? COUNTS[node.opType] : undefined;
  if (count) return count(node, types);
  return MOVES.has(node.opType) ? 0 : outputElements(node, types);
}

function outputElements(node: Node, types: Types): number {
  return elementsOf(node.output[0], types);
}

const convolution =
  (weights: number) =>
  (node: Node, types: Types): number => {
    const filter = types.get(node.input[weights] ?? "")?.shape;
    return filter ? 2 * outputElements(node, types) * countAtOne(filter.slice(1)) : 0;
  };

/** Every input element meets every weight of its channel. */
function transposedConvolution(node: Node, types: Types): number {
  const filter = types.get(node.input[1] ?? "")?.shape;
  return filter ? 2 * elementsOf(node.input[0], types) * countAtOne(filter.slice(1)) : 0;
}

function gemm(node: Node, types: Types): number {
  const shape = types.get(node.input[0] ?? "")?.shape;
  const inner = shape?.[intAttribute(node, "transA", 0) !== 0 ? 0 : 1] ?? 1;
  return 2 * outputElements(node, types) * atOne(inner);
}

function matmul(node: Node, types: Types): number {
  return 2 * outputElements(node, types) * atOne(types.get(node.input[0] ?? "")?.shape?.at(-1) ?? 1);
}

function einsum(node: Node, types: Types): number {
  const shapes = node.input.map((name) => types.get(name)?.shape ?? []);
  const labels = einsumLabels(stringAttribute(node, "equation", ""), shapes);
  const steps = labels ? countAtOne([...labels.sizes.values()]) : 0;
  return node.input.length > 1 ? 2 * steps : steps;
}

/** Both weight matrices are used once per step and row. */
function recurrent(node: Node, types: Types): number {
  const [first = 1, second = 1] = types.get(node.input[0] ?? "")?.shape ?? [];
  const weights = elementsOf(node.input[1], types) + elementsOf(node.input[2], types);
  return 2 * atOne(first) * atOne(second) * weights;
}

function pool(node: Node, types: Types): number {
  return outputElements(node, types) * elementCount(intsAttribute(node, "kernel_shape") ?? []);
}

/** Operators whose work is that of reading their input once. */
function inputElements(node: Node, types: Types): number {
  return elementsOf(node.input[0], types);
}

const COUNTS: Readonly<Record<string, (node: Node, types: Types) => number>> = {
  Conv: convolution(1),
  FusedConv: convolution(1),
  ConvInteger: convolution(1),
  QLinearConv: convolution(3),
  ConvTranspose: transposedConvolution,
  Gemm: gemm,
  FusedGemm: gemm,
  MatMul: matmul,
  MatMulInteger: matmul,
  QLinearMatMul: matmul,
  FusedMatMul: matmul,
  Einsum: einsum,
  RNN: recurrent,
  GRU: recurrent,
  LSTM: recurrent,
  MaxPool: pool,
  AveragePool: pool,
  LpPool: pool,
  GlobalAveragePool: inputElements,
  GlobalMaxPool: inputElements,
  TopK: inputElements,
  ArgMax: inputElements,
  ArgMin: inputElements,
  ...Object.fromEntries(
    "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
      .split(" ")
      .map((kind) => [`Reduce${kind}`, inputElements]),
  ),
};
