/**
 * The network that is trained: a part of the backbone with a head behind it, as one graph under the names that both have.
 * Nothing is merged: a weight of the head that equals one of the backbone is trained by itself.
 */
import { withGraph } from "../onnx/extract.js";
import { copyOf, declaredType, graph, type Model, opsetVersion, valueInfo } from "../onnx/model.js";
import type { DType } from "../tensor/dtype.js";
import type { SymbolicShape } from "../tensor/shape.js";
import { TrainingModel, type TrainingModelOptions } from "../train/training-model.js";
import { HEAD_PREFIX, isTrainedInHead } from "./head-network.js";
import { partOf, type Site } from "./site.js";

/** A network, and what is trained of it. */
export interface Network {
  readonly training: TrainingModel;
  /** Parameters of the backbone's part. */
  readonly trunk: readonly string[];
  /** Parameters of the head. */
  readonly head: readonly string[];
}

/** Operator set of a head behind this backbone. */
export function headOpset({ model }: Site): number | undefined {
  return opsetVersion(model);
}

/**
 * The backbone from a value on, with a head behind its tap.
 * @param from where it begins: the image's input, a value on the way, or the tap itself
 * @param shape of `from` for any batch
 * @param outputs of the backbone that stay outputs
 * @throws PolyheadError CUT_INVALID when data goes around `from`; MODEL_UNSUPPORTED as `TrainingModel` does
 */
export function networkFrom(
  site: Site,
  from: string,
  shape: SymbolicShape,
  head: Model,
  outputs: readonly string[] = [],
  options: TrainingModelOptions = {},
): Network {
  const whole = from === site.tap.name ? head : joined(site, from, shape, head, outputs);
  const training = new TrainingModel(whole, options);
  return {
    training,
    trunk: training.parameters.filter((name) => !name.startsWith(HEAD_PREFIX)),
    head: training.parameters.filter(isTrainedInHead),
  };
}

function joined(
  site: Site,
  from: string,
  shape: SymbolicShape,
  head: Model,
  outputs: readonly string[],
): Model {
  const body = partOf(site, from, [...new Set([site.tap.name, ...outputs])]);
  const { graph: first } = body;
  const main = graph(first.name, {
    nodes: [...first.node, ...head.graph.node],
    // A shape that cannot be inferred is measured; who serves the branch wants to know it.
    inputs: first.input.map((info) =>
      declaredType(info)?.shape ? info : valueInfo(from, dtypeAt(site, from), shape),
    ),
    outputs: [...head.graph.output, ...first.output.filter(({ name }) => outputs.includes(name))],
    weights: [...first.initializer, ...head.graph.initializer],
    values: [...first.valueInfo],
  });
  main.sparseInitializer = first.sparseInitializer;
  main.quantizationAnnotation = first.quantizationAnnotation;
  return withGraph(body, copyOf(main, {}));
}

function dtypeAt({ types }: Site, value: string): DType {
  return types.get(value)?.dtype ?? "float32";
}
