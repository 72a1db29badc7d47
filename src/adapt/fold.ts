/**
 * Folding: a linear adapter before a head that begins with a linear layer is one linear layer, so that an adapted head
 * costs nothing at run time. The result is used only when it gives the same numbers as the pair.
 */
import { PolyheadError } from "../base/errors.js";
import { withGraph } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import { type Tap, withMetadata } from "../onnx/metadata.js";
import {
  copyOf,
  floatAttribute,
  graph,
  intAttribute,
  type Model,
  node,
  opsetVersion,
  valueInfo,
} from "../onnx/model.js";
import type { OpenModel } from "../onnx/runner.js";
import { compare } from "../onnx/verify.js";
import { weight } from "../onnx/weight.js";
import { dot, type Matrix, multiplyTransposed, row, transpose } from "../teach/linear-algebra.js";
import type { Pooling } from "../teach/pooling.js";
import { float32, type Tensor, toNumbers } from "../tensor/tensor.js";
import { meanOver } from "./adapter-model.js";
import { applyAffine } from "./affine.js";
import { type FeatureMap, isAffine } from "./feature-map.js";
import { constantTensor, type HeadReading, headFromVector } from "./head-reading.js";

/** The largest relative difference between a folded head and the pair that it stands for. */
export const FOLD_TOLERANCE = 1e-5;

/** What is to be folded. */
export interface Foldable {
  readonly head: Model;
  readonly reading: HeadReading;
  /** The tap that the folded head reads, and how it becomes a vector. */
  readonly source: Tap;
  readonly pooling: Pooling;
  readonly map: FeatureMap;
}

/**
 * The head with the adapter in its first layer; undefined where the head does not begin with a linear layer on a
 * vector, or the map is more than affine.
 */
export function foldAdapter(foldable: Foldable): Model | undefined {
  const { head, reading, source, pooling, map } = foldable;
  if (reading.vector === undefined || !isAffine(map)) return undefined;
  const rest = headFromVector(head, reading);
  const index = new GraphIndex(rest.graph);
  const layer = firstLayer(index, reading.vector);
  if (!layer) return undefined;
  const weights = multiplyTransposed(layer.weights, transpose(map.weights));
  const bias = layer.bias.map((value, at) => value + dot(row(layer.weights, at), map.bias));
  const taken = new Set([...index.producers.keys(), ...index.weights.keys(), ...index.outputNames]);
  const free = (wanted: string) => {
    let name = wanted;
    for (let suffix = 1; taken.has(name); suffix++) name = `${wanted}_${suffix}`;
    taken.add(name);
    return name;
  };
  const [input, vector, matrix, offset] = [source.name, "vector", "folded_matrix", "folded_bias"].map(free);
  if (!input || !vector || !matrix || !offset) return undefined;
  const pooled = pooling.axes.length > 0;
  const names = { output: vector, axes: free("pooled_axes") };
  const mean = pooled ? meanOver(input, pooling.axes, opsetVersion(head) ?? 0, names) : undefined;
  const first = [
    ...(mean ? [mean.node] : []),
    node("Gemm", [pooled ? vector : input, matrix, offset], [layer.output], { transB: 1 }),
  ];
  const kept = rest.graph.node.filter((each) => !layer.nodes.includes(each));
  const read = new Set(kept.flatMap((each) => each.input));
  const main = graph(head.graph.name, {
    nodes: [...first, ...kept],
    inputs: [valueInfo(input, "float32", source.shape)],
    outputs: rest.graph.output,
    weights: [
      weight(matrix, float32([weights.rows, weights.columns], weights.data)),
      weight(offset, float32([bias.length], bias)),
      ...(mean?.weights ?? []),
      ...rest.graph.initializer.filter(({ name }) => read.has(name)),
    ],
  });
  return withMetadata(copyOf(withGraph(rest, main), { opsetImport: head.opsetImport }), { taps: [source] });
}

/**
 * Proves a folded head equal to the head behind the map, on vectors.
 * @param vectors features of the source, a row an example
 * @returns the largest relative difference
 * @throws PolyheadError PROOF_FAILED above {@link FOLD_TOLERANCE}
 */
export async function proveFold(
  foldable: Foldable,
  folded: Model,
  vectors: Matrix,
  open: OpenModel,
): Promise<number> {
  const { head, reading, source, pooling, map } = foldable;
  const expected = await runOn(headFromVector(head, reading), applyAffine(map, vectors), open);
  const got = await runOn(folded, vectors, open, placesOf(source, pooling));
  let worst = 0;
  for (const [name, value] of expected) worst = Math.max(worst, compare(value, got.get(name)).relative);
  if (worst <= FOLD_TOLERANCE) return worst;
  throw new PolyheadError(
    "PROOF_FAILED",
    `The head with the adapter folded in differs from the pair by ${worst} relative to its outputs; expected at most ${FOLD_TOLERANCE}. Use the adapter as it is.`,
    { got: worst, expected: FOLD_TOLERANCE },
  );
}

/**
 * A model's outputs on vectors given as its only input, in the input's own rank.
 * @param places sizes of the axes behind the batch over which each vector is spread; ones where they are open
 */
export async function runOn(
  model: Model,
  vectors: Matrix,
  open: OpenModel,
  places?: (batch: number, vectors: Matrix) => Tensor,
): Promise<ReadonlyMap<string, Tensor>> {
  const [input] = new GraphIndex(model.graph).inputs;
  if (!input) throw new PolyheadError("INTERNAL", "The model has no input.", {});
  const opened = await open(model, "all");
  try {
    const value = places
      ? places(vectors.rows, vectors)
      : float32(shapeFor(input, vectors), Float32Array.from(vectors.data));
    return await opened.run(new Map([[input.name, value]]));
  } finally {
    await opened.close();
  }
}

function shapeFor(input: ReturnType<typeof valueInfo>, { rows, columns }: Matrix): number[] {
  const type = input.type?.value;
  const rank = type?.case === "tensorType" ? (type.value.shape?.dim.length ?? 2) : 2;
  return [rows, columns, ...Array<number>(rank - 2).fill(1)];
}

/** Each vector spread over a tap whose mean it then is. */
function placesOf(source: Tap, pooling: Pooling): (batch: number, vectors: Matrix) => Tensor {
  return (batch, vectors) => {
    const shape = source.shape.map((size, axis) =>
      axis === 0 ? batch : typeof size === "number" ? size : 2,
    );
    const channelAxis = [...shape.keys()].find((axis) => axis > 0 && !pooling.axes.includes(axis)) ?? 1;
    const inner = shape.slice(channelAxis + 1).reduce((product, size) => product * size, 1);
    const count = shape.reduce((product, size) => product * size, 1);
    const perRow = count / batch;
    const data = Float32Array.from({ length: count }, (_, at) => {
      const channel = Math.floor(at / inner) % pooling.channels;
      return vectors.data[Math.floor(at / perRow) * vectors.columns + channel] ?? 0;
    });
    return float32(shape, data);
  };
}

interface LinearLayer {
  /** One row an output. */
  readonly weights: Matrix;
  readonly bias: Float64Array;
  readonly output: string;
  readonly nodes: readonly Model["graph"]["node"][number][];
}

/** The linear layer that alone reads a vector: Gemm, or MatMul with or without an Add. */
function firstLayer(index: GraphIndex, vector: string): LinearLayer | undefined {
  const flattened = onlyReader(index, vector);
  const isFlat = flattened?.opType === "Flatten" && intAttribute(flattened, "axis", 1) === 1;
  const value = isFlat ? (flattened.output[0] ?? "") : vector;
  const layer = isFlat ? onlyReader(index, value) : flattened;
  const before = isFlat ? [flattened] : [];
  if (!layer || layer.input[0] !== value) return undefined;
  const matrix = constantTensor(index, layer.input[1] ?? "");
  const output = layer.output[0] ?? "";
  if (matrix?.shape.length !== 2 || matrix.dtype !== "float32") return undefined;
  const [rows = 0, columns = 0] = matrix.shape;
  const stored: Matrix = { rows, columns, data: toNumbers(matrix) };
  if (layer.opType === "Gemm") {
    if (intAttribute(layer, "transA", 0) !== 0) return undefined;
    const [alpha, beta] = [floatAttribute(layer, "alpha", 1), floatAttribute(layer, "beta", 1)];
    const turned = intAttribute(layer, "transB", 0) === 0 ? transpose(stored) : stored;
    const weights = { ...turned, data: turned.data.map((each) => alpha * each) };
    const bias = biasOf(index, layer.input[2] ?? "", weights.rows);
    return bias && { weights, bias: bias.map((each) => beta * each), output, nodes: [...before, layer] };
  }
  if (layer.opType !== "MatMul") return undefined;
  const weights = transpose(stored);
  const add = onlyReader(index, output);
  const other = add?.opType === "Add" ? add.input.find((name) => name !== output) : undefined;
  const bias = other === undefined ? undefined : biasOf(index, other, weights.rows);
  return add && bias
    ? { weights, bias, output: add.output[0] ?? "", nodes: [...before, layer, add] }
    : { weights, bias: new Float64Array(weights.rows), output, nodes: [...before, layer] };
}

function onlyReader(index: GraphIndex, value: string) {
  const readers = index.consumers.get(value) ?? [];
  return readers.length === 1 && !index.outputNames.includes(value) ? readers[0] : undefined;
}

/** A bias as long as the layer is wide; zeros where there is none, undefined where it is no constant of that kind. */
function biasOf(index: GraphIndex, name: string, width: number): Float64Array | undefined {
  if (name === "") return new Float64Array(width);
  const value = constantTensor(index, name);
  const numbers = value && toNumbers(value);
  if (numbers?.length === 1) return new Float64Array(width).fill(numbers[0] ?? 0);
  return numbers?.length === width ? numbers : undefined;
}
