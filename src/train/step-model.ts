/**
 * The training step as ONNX graphs: the loss, and the gradient of every trained parameter. Parameters and running
 * statistics are inputs, so that whoever runs a graph can leave them where they are. What follows from the gradients is no
 * part of it: whatever comes out of a run is copied, and an update is one pass over memory; see `optimizers.ts`.
 */
import { withGraph } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import {
  copyOf,
  graph,
  type Model,
  model as modelOf,
  type Node,
  opsetVersion,
  valueInfo,
} from "../onnx/model.js";
import { weightShape } from "../onnx/weight.js";
import type { Shape } from "../tensor/shape.js";
import { Builder, LEAST_OPSET } from "./autodiff/builder.js";
import { differentiate } from "./autodiff/differentiate.js";
import { type BatchNorm, renewedStatistics, withBatchStatistics } from "./batch-norms.js";
import { recomputed } from "./recompute.js";

/** A graph that reads values that stay from step to step. */
export interface StepModel {
  readonly model: Model;
  /** Shapes of the values that stay, by name, which is that of the input. */
  readonly reads: ReadonlyMap<string, Shape>;
  /** Outputs for the caller, the loss first where there is one. */
  readonly results: readonly string[];
  /** Outputs with gradients, by parameter. */
  readonly gradients: ReadonlyMap<string, string>;
  /** Outputs with running statistics as they are after the batch, by name. */
  readonly statistics: ReadonlyMap<string, string>;
  /** Output with the factor by which gradients are scaled down. */
  readonly scale?: string | undefined;
}

/** What a step is, beside its gradients. */
export interface StepOptions {
  /** The gradient of all parameters together is scaled down to this Euclidean length: by how much is an output. */
  readonly clipNorm?: number | undefined;
  /** Batch norms of the model that are in batch mode; none by default. Those that the loss does not see stay. */
  readonly norms?: readonly BatchNorm[] | undefined;
  /** Computes activations again in the backward part rather than keep them, where that saves memory. */
  readonly recompute?: boolean | undefined;
}

/**
 * Loss and gradients.
 * @param whole a model with a loss, shapes bound
 */
export function stepModel(
  whole: Model,
  loss: string,
  parameters: readonly string[],
  { clipNorm, norms = [], recompute = false }: StepOptions = {},
): StepModel {
  const { model: written, gradients: made } = differentiate(whole, { of: loss, withRespectTo: parameters });
  const complete = withBatchStatistics(written, norms);
  const model = recompute ? recomputed(complete, loss) : complete;
  const shapes = new Map(whole.graph.initializer.map((each) => [each.name, weightShape(each)]));
  const builder = new Builder(opsetVersion(model) ?? LEAST_OPSET, namesIn(model), "step");
  const produced = new Set(model.graph.node.flatMap(({ output }) => output));
  const statistics = renewedStatistics(
    builder,
    norms.filter(({ batchMean }) => produced.has(batchMean)),
  );
  // No graph has an output that is an input or a constant of it, and no output is there twice.
  const taken = new Set<string>();
  const gradients = new Map(
    [...made].map(([name, gradient]) => {
      const output =
        produced.has(gradient) && !taken.has(gradient) ? gradient : builder.op("Identity", [gradient]);
      taken.add(output);
      return [name, output] as const;
    }),
  );
  const scale = clipNorm === undefined ? undefined : clipFactor(builder, [...gradients.values()], clipNorm);
  const kept = new Map(
    [...statistics.keys(), ...gradients.keys()].map((name) => [name, shapes.get(name) ?? []] as const),
  );
  const main = copyOf(model.graph, {
    node: [...model.graph.node, ...builder.nodes],
    initializer: [...model.graph.initializer.filter(({ name }) => !kept.has(name)), ...builder.weights],
    input: [...model.graph.input, ...infosOf(kept)],
    output: [
      valueInfo(loss, "float32", []),
      ...(scale === undefined ? [] : [valueInfo(scale, "float32", [])]),
      ...[...gradients, ...statistics].map(([name, output]) => valueInfo(output, "float32", kept.get(name))),
    ],
  });
  return { model: withGraph(model, main), reads: kept, results: [loss], gradients, statistics, scale };
}

/**
 * The same graph, its last nodes in the reverse order, each behind the nodes that only it needs: ONNX Runtime begins with the last
 * node that nobody reads and all that it needs. So it comes to gradients as the backward part does; otherwise values of all
 * layers would wait for the end.
 */
export function lastNodesFirst(model: Model): Model {
  const { order, consumers } = new GraphIndex(model.graph);
  /** The one last node that a node is for; undefined where there are several. */
  const only = new Map<Node, Node | undefined>();
  for (const node of [...order].reverse()) {
    const readers = node.output.flatMap((name) => consumers.get(name) ?? []);
    const [first, ...others] = new Set(readers.map((each) => only.get(each)));
    if (readers.length === 0) only.set(node, node);
    else if (others.length === 0) only.set(node, first);
  }
  const groups = new Map<Node, Node[]>();
  for (const node of order) {
    const last = only.get(node);
    const group = last && groups.get(last);
    if (group) group.push(node);
    else if (last) groups.set(last, [node]);
  }
  const lasts = order.filter((node) => groups.has(node)).reverse();
  const node = [
    ...order.filter((each) => !only.get(each)),
    ...lasts.flatMap((each) => groups.get(each) ?? []),
  ];
  return withGraph(model, copyOf(model.graph, { node }));
}

/** By how much gradients that were added up, which stay, are to be scaled down. */
export function clipModel(sums: ReadonlyMap<string, Shape>, clipNorm: number): StepModel {
  const builder = new Builder(LEAST_OPSET, [...sums.keys()], "clip");
  const scale = clipFactor(builder, [...sums.keys()], clipNorm);
  const model = modelOf(
    graph("clip", {
      nodes: builder.nodes,
      inputs: infosOf(sums),
      outputs: [valueInfo(scale, "float32", [])],
      weights: builder.weights,
    }),
    LEAST_OPSET,
  );
  return { model, reads: sums, results: [scale], gradients: new Map(), statistics: new Map(), scale };
}

/**
 * The model itself with parameters and statistics as inputs, to ask it what it answers at this point of the training.
 * @param names of these initializers
 */
export function answerModel(bound: Model, names: readonly string[]): StepModel {
  const wanted = new Set(names);
  const kept = new Map(
    bound.graph.initializer
      .filter(({ name }) => wanted.has(name))
      .map((each) => [each.name, weightShape(each)] as const),
  );
  const main = copyOf(bound.graph, {
    initializer: bound.graph.initializer.filter(({ name }) => !wanted.has(name)),
    input: [...bound.graph.input, ...infosOf(kept)],
  });
  const results = bound.graph.output.map(({ name }) => name);
  return { model: withGraph(bound, main), reads: kept, results, gradients: new Map(), statistics: new Map() };
}

/** min(1, limit / (length + 1e-6)), as torch.nn.utils.clip_grad_norm_ has it; the length is that of all gradients as one vector. */
function clipFactor(builder: Builder, gradients: readonly string[], limit: number): string {
  const squares = gradients.map((gradient) => builder.op("ReduceSumSquare", [gradient], { keepdims: 0 }));
  const length = builder.op("Sqrt", [builder.op("Sum", squares)]);
  const safe = builder.op("Add", [length, builder.scalar(1e-6, "float32")]);
  const factor = builder.op("Div", [builder.scalar(limit, "float32"), safe]);
  return builder.op("Min", [factor, builder.scalar(1, "float32")]);
}

function infosOf(values: ReadonlyMap<string, Shape>) {
  return [...values].map(([name, shape]) => valueInfo(name, "float32", shape));
}

function namesIn({ graph: { node, input, initializer } }: Model): string[] {
  return [...node.flatMap(({ output }) => output), ...[...input, ...initializer].map(({ name }) => name)];
}
