/**
 * A model on its way into training and back. What is trained is a copy in evaluation mode, with functions written
 * out, its parameters separate, a recent operator set and shapes bound; what comes out is the model as it was, with
 * new weights in it. Batch norms alone may be in training mode, in steps, while answers are those of evaluation.
 */
import { PolyheadError } from "../base/errors.js";
import { dynamicBatch } from "../onnx/batch.js";
import { toEvaluation } from "../onnx/evaluation.js";
import { withGraph } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import { inlined } from "../onnx/inline.js";
import { copyOf, declaredType, type Model, opsetVersion } from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import { upgraded } from "../onnx/upgrade.js";
import { weight, weightTensor } from "../onnx/weight.js";
import type { Shape } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import { LEAST_OPSET } from "./autodiff/builder.js";
import { type BatchNorm, inBatchMode, type NormMode, runningStatistics } from "./batch-norms.js";
import { bindShapes } from "./bind-shapes.js";
import { foldBatchNorms } from "./fold-norms.js";
import { separateParameters } from "./parameters.js";

/** How a model is trained. */
export interface TrainingModelOptions {
  /** What batch norms do in a step; frozen by default. In batch mode functions of the model are written out. */
  readonly norms?: NormMode | undefined;
}

/** A model that can be trained. */
export class TrainingModel {
  /** The model as it is written again, parameters separate. */
  readonly model: Model;
  /** Names of the initializers that can be trained. */
  readonly parameters: readonly string[];
  /** What was changed, one sentence each. */
  readonly notes: readonly string[];
  readonly norms: NormMode;
  /** In evaluation mode, as it was read and with batch norms folded. */
  readonly #whole: Model;
  readonly #graph: Model;

  /**
   * @throws PolyheadError MODEL_UNSUPPORTED for models that draw random numbers in evaluation or have an operator set
   *   that is too old
   */
  constructor(given: Model, { norms = "frozen" }: TrainingModelOptions = {}) {
    // Statistics that functions read are told apart where the functions are gone.
    const { model, names } = separateParameters(norms === "batch" ? inlined(given) : given);
    const opened = dynamicBatch(model, inferTypes(model));
    const evaluation = toEvaluation(opened.model);
    this.model = opened.model;
    this.parameters = names;
    this.notes = [...opened.notes, ...evaluation.notes];
    this.norms = norms;
    this.#whole = withRecentOpset(inlined(evaluation.model));
    this.#graph = foldBatchNorms(this.#whole);
  }

  /** Names of the inputs. */
  get inputs(): string[] {
    return new GraphIndex(this.model.graph).inputs.map(({ name }) => name);
  }

  /** Number of dimensions of an input; undefined when the file does not say. */
  rank(input: string): number | undefined {
    const info = this.model.graph.input.find(({ name }) => name === input);
    return info && declaredType(info)?.shape?.length;
  }

  /**
   * The graph that answers, for inputs of these shapes.
   * @throws PolyheadError INPUT_MISMATCH
   */
  bound(shapes: ReadonlyMap<string, Shape>): Model {
    return bindShapes(this.#graph, shapes);
  }

  /**
   * The graph that some parameters are trained in, for inputs of these shapes, and its batch norms in batch mode.
   * @throws PolyheadError INPUT_MISMATCH, also for a batch of one value a channel; MODEL_UNSUPPORTED
   */
  boundForStep(
    shapes: ReadonlyMap<string, Shape>,
    parameters: readonly string[],
  ): { readonly model: Model; readonly norms: readonly BatchNorm[] } {
    if (this.norms === "frozen") return { model: this.bound(shapes), norms: [] };
    const { model, norms } = inBatchMode(bindShapes(this.#whole, shapes), parameters);
    return { model: foldBatchNorms(model), norms };
  }

  /**
   * Names of the initializers that follow the batches while some parameters are trained: in batch mode the running
   * statistics of all batch norms that see them.
   * @throws PolyheadError MODEL_UNSUPPORTED for statistics that are no float32 initializers
   */
  statistics(parameters: readonly string[] = this.parameters): string[] {
    return this.norms === "frozen" ? [] : runningStatistics(this.#whole, parameters);
  }

  /**
   * Refuses batch mode where it would change nothing.
   * @throws PolyheadError MODEL_UNSUPPORTED when no batch norm sees these parameters, or as {@link statistics}
   */
  requireNorms(parameters: readonly string[] = this.parameters): void {
    if (this.norms === "frozen" || this.statistics(parameters).length > 0) return;
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      "What is trained has no batch norms that could take the batch's statistics. Exporters fold them into convolutions: export again and keep them, with training=TrainingMode.PRESERVE and do_constant_folding=False in PyTorch; or train without batch mode.",
      { norms: this.norms },
    );
  }

  /** Values of parameters and statistics as the model has them. */
  values(names: readonly string[]): Map<string, Tensor> {
    const weights = new Map(this.model.graph.initializer.map((each) => [each.name, each]));
    return new Map(
      names.map((name) => {
        const found = weights.get(name);
        if (found) return [name, weightTensor(found)] as const;
        throw new PolyheadError("NOT_FOUND", `The model has no parameter ${JSON.stringify(name)}.`, {
          parameter: name,
          expected: this.parameters,
        });
      }),
    );
  }

  /** The model with other values of some parameters and statistics. */
  withValues(values: ReadonlyMap<string, Tensor>): Model {
    const initializer = this.model.graph.initializer.map((each) => {
      const value = values.get(each.name);
      return value ? weight(each.name, value) : each;
    });
    return withGraph(this.model, copyOf(this.model.graph, { initializer }));
  }
}

/** The graph under an operator set that gradients can be written in. */
function withRecentOpset(whole: Model): Model {
  const { model, notes } = upgraded(whole);
  const opset = opsetVersion(model) ?? 0;
  if (opset >= LEAST_OPSET) return model;
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The model uses operator set ${opset}; training takes ${LEAST_OPSET} and newer. ${notes.join(" ")} Export it again, with opset_version=17 say.`,
    { got: opset, expected: LEAST_OPSET },
  );
}
