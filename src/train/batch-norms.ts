/**
 * What batch norms do while a model is trained. Frozen, they are fixed functions of the statistics that the file has. In
 * batch mode they normalise each batch by its own mean and variance, and the statistics follow, as in PyTorch's training
 * mode: running = momentum running + (1 - momentum) batch, with the file's momentum (ONNX's, which is 1 - PyTorch's).
 *
 * The variance that is kept is PyTorch's, the unbiased one of the batch: n / (n - 1) of its population variance for n
 * values a channel. ONNX keeps the population variance, which is far from it where n is small.
 *
 * While gradients are written such a norm is a node in training mode without momentum, which gives the batch's own
 * statistics. It is not run so: ONNX Runtime 1.30 writes them over the running ones where both are inner values, before others
 * have read those. A norm in training mode is one in evaluation mode with the batch's statistics, and that is what runs.
 */
import { PolyheadError } from "../base/errors.js";
import { withGraph } from "../onnx/extract.js";
import { GraphIndex, reads } from "../onnx/graph.js";
import {
  attribute,
  canonicalDomain,
  copyOf,
  float,
  floatAttribute,
  type Model,
  type Node,
  node as newNode,
  opsetVersion,
} from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import { weightDtype } from "../onnx/weight.js";
import { elementCount, formatShape, isConcrete, type Shape, type SymbolicShape } from "../tensor/shape.js";
import { Builder, LEAST_OPSET } from "./autodiff/builder.js";
import { label } from "./autodiff/context.js";

/** What batch norms do: keep the statistics that they have, or take those of the batch and let their own follow. */
export const NORM_MODES = ["frozen", "batch"] as const;

/** One of {@link NORM_MODES}. */
export type NormMode = (typeof NORM_MODES)[number];

/** A batch norm in batch mode. */
export interface BatchNorm {
  /** Initializers with its running statistics. */
  readonly mean: string;
  readonly variance: string;
  /** Values with those of the batch; the variance is the population's. */
  readonly batchMean: string;
  readonly batchVariance: string;
  /** Share of the running statistics that stays. */
  readonly momentum: number;
  /** Values a channel that the batch has. */
  readonly count: number;
  /** Number of dimensions of what it normalises. */
  readonly rank: number;
}

/**
 * Initializers with the statistics of all batch norms that see what is trained, each once.
 * @throws PolyheadError MODEL_UNSUPPORTED for statistics that are no float32 initializers
 */
export function runningStatistics(model: Model, parameters: readonly string[]): string[] {
  const index = new GraphIndex(model.graph);
  const norms = normsBehind(index, parameters);
  return [...new Set(norms.flatMap((norm) => statisticsOf(norm, index)))];
}

/**
 * The graph with the batch norms in batch mode that see what is trained, and what they are.
 * @param model shapes bound, batch norms in evaluation mode
 * @throws PolyheadError INPUT_MISMATCH for a batch norm that would see one value a channel, whose variance says nothing;
 *   MODEL_UNSUPPORTED as {@link runningStatistics}
 */
export function inBatchMode(
  model: Model,
  parameters: readonly string[],
): { readonly model: Model; readonly norms: readonly BatchNorm[] } {
  const index = new GraphIndex(model.graph);
  const types = inferTypes(model);
  const builder = new Builder(
    opsetVersion(model) ?? LEAST_OPSET,
    [...types.keys(), ...index.producers.keys()],
    "norms",
  );
  const replaced = new Map<Node, Node>();
  const norms = normsBehind(index, parameters).map((norm): BatchNorm => {
    const [x = ""] = norm.input;
    const [mean, variance] = statisticsOf(norm, index);
    const [batchMean, batchVariance] = [builder.name("mean"), builder.name("variance")];
    const others = norm.attribute.filter(({ name }) => name !== "momentum" && name !== "training_mode");
    replaced.set(
      norm,
      copyOf(norm, {
        output: [norm.output[0] ?? "", batchMean, batchVariance],
        attribute: [...others, attribute("momentum", float(0)), attribute("training_mode", 1)],
      }),
    );
    const momentum = floatAttribute(norm, "momentum", 0.9);
    const shape = shapeOf(norm, types.get(x)?.shape);
    return {
      ...{ mean, variance, batchMean, batchVariance, momentum },
      ...{ count: valuesAChannel(norm, shape), rank: shape.length },
    };
  });
  const node = model.graph.node.map((each) => replaced.get(each) ?? each);
  return { model: withGraph(model, copyOf(model.graph, { node })), norms };
}

/**
 * The same with the batch norms in batch mode as they are run. What the graph does not have of them stays away.
 * @param model after gradients were written
 */
export function withBatchStatistics(model: Model, norms: readonly BatchNorm[]): Model {
  if (norms.length === 0) return model;
  const index = new GraphIndex(model.graph);
  const taken = [
    ...index.producers.keys(),
    ...index.weights.keys(),
    ...model.graph.input.map(({ name }) => name),
  ];
  const builder = new Builder(opsetVersion(model) ?? LEAST_OPSET, taken, "statistics");
  const byMean = new Map(norms.map((norm) => [norm.batchMean, norm]));
  const node = index.order.flatMap((each) => {
    const norm = byMean.get(each.output[1] ?? "");
    if (!norm) return [each];
    const { batchMean, batchVariance, rank } = norm;
    const [x = "", scale = "", bias = ""] = each.input;
    const before = builder.nodes.length;
    const inner = Array.from({ length: rank - 2 }, (_, at) => at + 2);
    const mean = builder.reduce("ReduceMean", x, [0, ...inner], false);
    // The backward part wants the distance from the mean too; then it is computed and kept once.
    const centred =
      distanceFrom(index, x, batchMean) ??
      builder.op("Sub", [x, builder.reshape(batchMean, [-1, ...inner.map(() => 1)])]);
    const square = builder.op("Mul", [centred, centred]);
    const variance = builder.reduce("ReduceMean", square, [0, ...inner], false);
    const plain = copyOf(each, {
      input: [x, scale, bias, batchMean, batchVariance],
      output: each.output.slice(0, 1),
      attribute: each.attribute.filter(({ name }) => name !== "momentum" && name !== "training_mode"),
    });
    return [
      ...builder.nodes.slice(before),
      newNode("Identity", [mean], [batchMean]),
      newNode("Identity", [variance], [batchVariance]),
      plain,
    ];
  });
  const initializer = [...model.graph.initializer, ...builder.weights];
  const main = copyOf(model.graph, { node, initializer });
  return withGraph(model, copyOf(main, { node: [...new GraphIndex(main).order] }));
}

/** A value that is x - mean, the mean reshaped, where the graph has one. */
function distanceFrom(index: GraphIndex, x: string, mean: string): string | undefined {
  const found = index.consumers.get(x)?.find(({ opType, input: [from, level = ""] }) => {
    const turning = opType === "Sub" && from === x ? index.producers.get(level) : undefined;
    return turning?.opType === "Reshape" && turning.input[0] === mean;
  });
  return found?.output[0];
}

/** Writes the running statistics after a batch. Norms that have the same ones renew them one after the other. */
export function renewedStatistics(builder: Builder, norms: readonly BatchNorm[]): Map<string, string> {
  const renewed = new Map<string, string>();
  const part = (value: string, share: number) => builder.op("Mul", [value, builder.scalar(share, "float32")]);
  const follow = (statistic: string, kept: number, batch: string, share: number) => {
    const old = part(renewed.get(statistic) ?? statistic, kept);
    renewed.set(statistic, builder.op("Add", [old, part(batch, share)]));
  };
  for (const { mean, variance, batchMean, batchVariance, momentum, count } of norms) {
    follow(mean, momentum, batchMean, 1 - momentum);
    follow(variance, momentum, batchVariance, ((1 - momentum) * count) / (count - 1));
  }
  return renewed;
}

/** The batch norms whose result depends on a parameter. */
function normsBehind(index: GraphIndex, parameters: readonly string[]): Node[] {
  const changing = new Set(parameters);
  return index.order.filter((node) => {
    if (!reads(node).some((name) => changing.has(name))) return false;
    for (const name of node.output) changing.add(name);
    return node.opType === "BatchNormalization" && canonicalDomain(node.domain) === "";
  });
}

function statisticsOf(norm: Node, index: GraphIndex): [string, string] {
  const [, , , mean = "", variance = ""] = norm.input;
  const isKept = [mean, variance].every((name) => {
    const weight = index.weights.get(name);
    return weight && weightDtype(weight) === "float32";
  });
  if (isKept) return [mean, variance];
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The running statistics of ${label(norm)} are no float32 initializers, so that they cannot follow its batches. Train with frozen batch norms.`,
    { node: norm.name, got: [mean, variance] },
  );
}

function shapeOf(norm: Node, shape: SymbolicShape | undefined): Shape {
  if (shape && isConcrete(shape)) return shape;
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `${label(norm)} takes a value whose shape is not known before the model runs; expected a known one.`,
    { node: norm.name, value: norm.input[0] },
  );
}

/** Elements of all dimensions but the channels'. */
function valuesAChannel(norm: Node, shape: Shape): number {
  const [images = 1, , ...sizes] = shape;
  const count = images * elementCount(sizes);
  if (count > 1) return count;
  throw new PolyheadError(
    "INPUT_MISMATCH",
    `${label(norm)} would take the statistics of one value a channel: it sees ${formatShape(shape)}. Batch norms in batch mode need larger batches or images; or keep them frozen.`,
    { node: norm.name, got: shape, expected: "more than one value a channel" },
  );
}
