/**
 * The training step as one ONNX graph: loss, gradients and the update of every trained parameter. Parameters, running
 * statistics and the optimiser's state are inputs and, renewed, outputs, so that whoever runs the graph can leave them where
 * the runtime put them. Gradients may instead be added up over several batches first: then one graph adds and
 * another one updates; statistics follow each batch.
 */
import { withGraph } from "../onnx/extract.js";
import { copyOf, graph, type Model, model as modelOf, opsetVersion, valueInfo } from "../onnx/model.js";
import { weightShape } from "../onnx/weight.js";
import type { Shape } from "../tensor/shape.js";
import { Builder, LEAST_OPSET } from "./autodiff/builder.js";
import { differentiate } from "./autodiff/differentiate.js";
import { type BatchNorm, renewedStatistics, withBatchStatistics } from "./batch-norms.js";
import { type Optimizer, stateCount, stepScalars, updated } from "./optimizers.js";

/** Settings of a parameter, or of several. */
export interface ParameterGroup {
  /** Factor of the rate; 1 by default. */
  readonly rate?: number;
  /** In place of the optimiser's. */
  readonly weightDecay?: number;
}

/** How parameters are changed. */
export interface UpdateOptions {
  readonly optimizer: Optimizer;
  /** The gradient of all parameters together is scaled down to this Euclidean length. */
  readonly clipNorm?: number | undefined;
  /** Decay of an exponential moving average of parameters and running statistics, which is kept beside them. */
  readonly average?: number | undefined;
  /** The group of a parameter. */
  readonly groupOf?: (parameter: string) => ParameterGroup;
}

/** A value that stays from step to step. */
export interface StateValue {
  /** Names it among all that stays: `PARAMETER`, `PARAMETER/1`, ... */
  readonly name: string;
  /** The initializer that it belongs to: a parameter, or running statistics. */
  readonly parameter: string;
  /** What it begins with. */
  readonly start: "parameter" | "zeros";
  readonly shape: Shape;
  readonly input: string;
  /** The renewed value; undefined where the graph only reads it. */
  readonly output?: string | undefined;
}

/** A graph of which some values stay. */
export interface StepModel {
  readonly model: Model;
  readonly state: readonly StateValue[];
  /** Inputs of rank 0, float32: that of the `rate`, and those of the optimiser's `stepScalars`, by their names. */
  readonly scalars: ReadonlyMap<string, string>;
  /** Outputs for the caller: the loss, and the length of the gradient where it is clipped. */
  readonly results: readonly string[];
}

/** A value that a name belongs to: state of a parameter by number. */
const stateName = (parameter: string, place: string | number) => `${parameter}/${place}`;

/** The state that is the moving average of a parameter, or of statistics. */
export function averageName(parameter: string): string {
  return stateName(parameter, "average");
}

/** What a step is, beside the update of parameters. */
export interface StepOptions {
  /** Only add the gradients, divided by this number, to those that are there. */
  readonly accumulate?: number | undefined;
  /** Batch norms of the model that are in batch mode; none by default. Those that the loss does not see stay. */
  readonly norms?: readonly BatchNorm[] | undefined;
}

/**
 * The whole step.
 * @param whole a model with a loss, shapes bound
 */
export function stepModel(
  whole: Model,
  loss: string,
  parameters: readonly string[],
  options: UpdateOptions,
  { accumulate, norms = [] }: StepOptions = {},
): StepModel {
  const { model: written, gradients } = differentiate(whole, { of: loss, withRespectTo: parameters });
  const model = withBatchStatistics(written, norms);
  const trained = inOrderOfLayers(parameters, model, gradients);
  const shapes = new Map(whole.graph.initializer.map((each) => [each.name, weightShape(each)]));
  const builder = new Builder(opsetVersion(model) ?? LEAST_OPSET, namesIn(model), "update");
  const pairs = trained.map((name) => ({
    name,
    shape: shapes.get(name) ?? [],
    gradient: gradients.get(name) ?? "",
  }));
  const made = new Set(model.graph.node.flatMap(({ output }) => output));
  const seen = norms.filter(({ batchMean }) => made.has(batchMean));
  const statistics = [...renewedStatistics(builder, seen)].map(([name, output]) => ({
    ...asItIs(name, shapes.get(name) ?? []),
    output,
  }));
  const ofStep: Part =
    accumulate === undefined
      ? writeUpdates(builder, pairs, statistics, options)
      : {
          state: [
            ...pairs.map(({ name, shape }) => asItIs(name, shape)),
            ...writeSums(builder, pairs, accumulate),
          ],
          scalars: new Map<string, string>(),
          results: [],
        };
  const part = { ...ofStep, state: [...statistics, ...ofStep.state] };
  const inputs = part.state.map(({ input, shape }) => valueInfo(input, "float32", shape));
  const kept = new Set(part.state.map(({ input }) => input));
  const outputs = [
    valueInfo(loss, "float32", []),
    ...part.results.map((name) => valueInfo(name, "float32")),
    ...part.state.flatMap(({ output, shape }) => (output ? [valueInfo(output, "float32", shape)] : [])),
  ];
  const main = copyOf(model.graph, {
    node: [...model.graph.node, ...builder.nodes],
    initializer: [...model.graph.initializer.filter(({ name }) => !kept.has(name)), ...builder.weights],
    input: [...model.graph.input, ...inputs, ...scalarInfos(part)],
    output: outputs,
  });
  return {
    model: withGraph(model, main),
    state: part.state,
    scalars: part.scalars,
    results: [loss, ...part.results],
  };
}

/**
 * The parameters that have a gradient, those first whose gradients are written last. ONNX Runtime begins with the last
 * node that nobody reads and all that it needs. So gradients are used up as the backward part comes to them; otherwise
 * values of all layers would wait for the end.
 */
function inOrderOfLayers(
  parameters: readonly string[],
  { graph: { node } }: Model,
  gradients: ReadonlyMap<string, string>,
): string[] {
  const places = new Map(node.flatMap(({ output }, at) => output.map((name) => [name, at] as const)));
  const placeOf = (name: string) => places.get(gradients.get(name) ?? "") ?? 0;
  return parameters.filter((name) => gradients.has(name)).sort((a, b) => placeOf(b) - placeOf(a));
}

/**
 * The second half of an accumulated step: reads the sums, updates, and sets the sums to zero. Statistics have followed by
 * then; they are read where their average is kept.
 */
export function updateModel(
  parameters: ReadonlyMap<string, Shape>,
  statistics: ReadonlyMap<string, Shape>,
  options: UpdateOptions,
): StepModel {
  const builder = new Builder(LEAST_OPSET, [...parameters.keys(), ...statistics.keys()], "update");
  const pairs = [...parameters].map(([name, shape]) => ({ name, shape, gradient: stateName(name, "sum") }));
  const read =
    options.average === undefined ? [] : [...statistics].map(([name, shape]) => asItIs(name, shape));
  const part = writeUpdates(builder, pairs, read, options);
  const sums = pairs.map(({ name, shape, gradient }) => ({
    name: gradient,
    parameter: name,
    start: "zeros" as const,
    shape,
    input: gradient,
    output: builder.op("Mul", [gradient, builder.scalar(0, "float32")]),
  }));
  const state = [...read, ...part.state, ...sums];
  const info = (name: string, shape?: Shape) => valueInfo(name, "float32", shape);
  const whole = modelOf(
    graph("update", {
      nodes: builder.nodes,
      inputs: [...state.map(({ input, shape }) => info(input, shape)), ...scalarInfos(part)],
      outputs: [
        ...part.results.map((name) => info(name)),
        ...state.flatMap(({ output, shape }) => (output ? [info(output, shape)] : [])),
      ],
      weights: builder.weights,
    }),
    LEAST_OPSET,
  );
  return { model: whole, state, scalars: part.scalars, results: part.results };
}

/**
 * The model itself with parameters and statistics as inputs, to ask it what it answers at this point of the training.
 * @param names of these initializers
 */
export function answerModel(bound: Model, names: readonly string[]): StepModel {
  const wanted = new Set(names);
  const state = bound.graph.initializer
    .filter(({ name }) => wanted.has(name))
    .map((each) => asItIs(each.name, weightShape(each)));
  const main = copyOf(bound.graph, {
    initializer: bound.graph.initializer.filter(({ name }) => !wanted.has(name)),
    input: [...bound.graph.input, ...state.map(({ input, shape }) => valueInfo(input, "float32", shape))],
  });
  const results = bound.graph.output.map(({ name }) => name);
  return { model: withGraph(bound, main), state, scalars: new Map(), results };
}

interface Pair {
  readonly name: string;
  readonly shape: Shape;
  readonly gradient: string;
}

type Part = Pick<StepModel, "state" | "scalars" | "results">;

/** An initializer as state that is read. */
function asItIs(name: string, shape: Shape): StateValue {
  return { name, parameter: name, start: "parameter", shape, input: name };
}

function writeSums(builder: Builder, pairs: readonly Pair[], count: number): StateValue[] {
  const share = builder.scalar(1 / count, "float32");
  return pairs.map(({ name, shape, gradient }) => {
    const input = stateName(name, "sum");
    const output = builder.op("Add", [input, builder.op("Mul", [gradient, share])]);
    return { name: input, parameter: name, start: "zeros", shape, input, output };
  });
}

/** @param statistics as they are after the batch; where averages are kept, theirs are too */
function writeUpdates(
  builder: Builder,
  pairs: readonly Pair[],
  statistics: readonly StateValue[],
  options: UpdateOptions,
): Part {
  const { optimizer, clipNorm, average, groupOf = (): ParameterGroup => ({}) } = options;
  const rate = builder.name("rate");
  const scalars = new Map([...stepScalars(optimizer, 1).keys()].map((name) => [name, builder.name(name)]));
  const length = clipNorm === undefined ? undefined : gradientLength(builder, pairs);
  const scale =
    length === undefined || clipNorm === undefined ? undefined : clipFactor(builder, length, clipNorm);
  const state = pairs.flatMap(({ name, shape, gradient }): StateValue[] => {
    const group = groupOf(name);
    const factor = group.rate ?? 1;
    const own = Array.from({ length: stateCount(optimizer) }, (_, place) => stateName(name, place + 1));
    const made = updated(optimizer, {
      builder,
      dtype: "float32",
      parameter: name,
      gradient: scale === undefined ? gradient : builder.op("Mul", [gradient, scale]),
      state: own,
      rate: factor === 1 ? rate : builder.op("Mul", [rate, builder.scalar(factor, "float32")]),
      weightDecay: group.weightDecay,
      scalars,
    });
    const of = { parameter: name, shape };
    return [
      { ...of, name, start: "parameter", input: name, output: made.parameter },
      ...own.map((each, place) => ({
        ...of,
        name: each,
        start: "zeros" as const,
        input: each,
        output: made.state[place],
      })),
      ...(average === undefined ? [] : [averaged(builder, of, made.parameter, average)]),
    ];
  });
  const ofStatistics =
    average === undefined
      ? []
      : statistics.map((each) => averaged(builder, each, each.output ?? each.input, average));
  return {
    state: [...ofStatistics, ...state],
    scalars: new Map([["rate", rate], ...scalars]),
    results: length === undefined ? [] : [length],
  };
}

function averaged(
  builder: Builder,
  { parameter, shape }: Pick<StateValue, "parameter" | "shape">,
  renewed: string,
  decay: number,
): StateValue {
  const input = averageName(parameter);
  const old = builder.op("Mul", [input, builder.scalar(decay, "float32")]);
  const output = builder.op("Add", [old, builder.op("Mul", [renewed, builder.scalar(1 - decay, "float32")])]);
  return { parameter, shape, name: input, start: "parameter", input, output };
}

/** The Euclidean length of all gradients as one vector. */
function gradientLength(builder: Builder, pairs: readonly Pair[]): string {
  const squares = pairs.map(({ gradient }) => builder.op("ReduceSumSquare", [gradient], { keepdims: 0 }));
  return builder.op("Sqrt", [builder.op("Sum", squares)]);
}

/** min(1, limit / (length + 1e-6)), as torch.nn.utils.clip_grad_norm_ has it. */
function clipFactor(builder: Builder, length: string, limit: number): string {
  const safe = builder.op("Add", [length, builder.scalar(1e-6, "float32")]);
  const factor = builder.op("Div", [builder.scalar(limit, "float32"), safe]);
  return builder.op("Min", [factor, builder.scalar(1, "float32")]);
}

function scalarInfos({ scalars }: Part) {
  return [...scalars.values()].map((name) => valueInfo(name, "float32", []));
}

function namesIn({ graph: { node, input, initializer } }: Model): string[] {
  return [...node.flatMap(({ output }) => output), ...[...input, ...initializer].map(({ name }) => name)];
}
