/** The gradients of a loss with respect to parameters of a model, on one batch. */
import { PolyheadError } from "../base/errors.js";
import type { OpenModel } from "../onnx/runner.js";
import type { Tensor } from "../tensor/tensor.js";
import { differentiate } from "./autodiff/differentiate.js";
import { withBatchStatistics } from "./batch-norms.js";
import { type LossTerm, withLoss } from "./losses.js";
import { requireClasses } from "./targets.js";
import type { TrainingModel } from "./training-model.js";

/** A term of the loss, with the target itself. */
export interface TargetTerm extends Omit<LossTerm, "dtype" | "shape" | "target"> {
  readonly target: Tensor;
}

/** What a batch says of a model. */
export interface BatchGradients {
  readonly loss: number;
  /** By parameter; those that do not influence the loss are absent. */
  readonly gradients: ReadonlyMap<string, Tensor>;
}

/**
 * Computes loss and gradients of a batch.
 * @param inputs by the names of the model's inputs
 * @param names parameters; all of the model by default
 * @throws PolyheadError DIVERGED when the loss is no finite number
 * @throws PolyheadError MODEL_UNSUPPORTED, INPUT_MISMATCH, LOAD_FAILED, RUN_FAILED
 */
export async function batchGradients(
  open: OpenModel,
  model: TrainingModel,
  inputs: ReadonlyMap<string, Tensor>,
  terms: readonly TargetTerm[],
  names: readonly string[] = model.parameters,
): Promise<BatchGradients> {
  const shapes = new Map([...inputs].map(([name, { shape }]) => [name, shape]));
  const { model: bound, norms } = model.boundForStep(shapes, names);
  const named = terms.map((term, place) => ({
    ...term,
    target: targetName(place),
    dtype: term.target.dtype,
    shape: term.target.shape,
  }));
  const { model: whole, loss, classes } = withLoss(bound, named);
  terms.forEach(({ target }, place) => {
    requireClasses(target, classes[place]);
  });
  const { model: both, gradients } = differentiate(whole, { of: loss, withRespectTo: names });
  const session = await open(withBatchStatistics(both, norms), "all");
  try {
    const targets = terms.map(({ target }, place) => [targetName(place), target] as const);
    const results = await session.run(new Map([...inputs, ...targets]));
    const value = Number(results.get(loss)?.data[0]);
    if (!Number.isFinite(value)) {
      throw new PolyheadError(
        "DIVERGED",
        `The loss is ${value}, which has no gradient. Look for values that are no numbers in the data or the model.`,
        { loss: String(value) },
      );
    }
    return {
      loss: value,
      gradients: new Map(
        [...gradients].map(([name, output]) => {
          const value = results.get(output);
          if (value) return [name, value] as const;
          throw new PolyheadError(
            "INTERNAL",
            `The gradient of ${JSON.stringify(name)} was not computed.`,
            {},
          );
        }),
      ),
    };
  } finally {
    await session.close();
  }
}

/** Name of the input that takes the target of a term. */
export function targetName(place: number): string {
  return `target/${place}`;
}
