/**
 * A classification head from features and classes: learned in closed form, judged by cross-validation, written as
 * an ONNX model that says in its metadata what it reads, what it answers, how it was made and how good it is.
 * Pure: features come from wherever they come from.
 */
import { PolyheadError } from "../base/errors.js";
import { stratifiedFolds } from "../data/folds.js";
import { type Metadata, type Tap, withMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import type { ClassQuality } from "../vision/metrics.js";
import { type Classifier, fitClassifiers, METHODS, type Method } from "./classifier.js";
import { type CrossValidation, crossValidate } from "./cross-validation.js";
import { headModel } from "./head-model.js";
import type { Matrix } from "./linear-algebra.js";
import { type ChannelPlace, poolingOf } from "./pooling.js";

/** What to teach from. */
export interface TeachOptions {
  /** One row an example: what the tap gives for it, pooled. */
  readonly features: Matrix;
  /** Class of each example: place of its name in `labels`. */
  readonly classes: readonly number[];
  readonly labels: readonly string[];
  /** The value the head will read. */
  readonly tap: Tap;
  /** Where the tap has its channels, when its shape does not tell. */
  readonly channels?: ChannelPlace;
  /** Parts of the cross-validation; 5 by default, fewer when a class has fewer examples. */
  readonly folds?: number;
  /** Decides how examples are dealt to folds; 0 by default. */
  readonly seed?: number;
  /** One method instead of the better one. */
  readonly method?: Method;
  /** How an image becomes the backbone's input; kept in the head's metadata. */
  readonly preprocessing?: Metadata["preprocessing"];
  /** Where the examples came from; kept in the head's metadata. */
  readonly provenance?: Readonly<Record<string, unknown>>;
  /** Called after each fold and after the last fit. */
  readonly progress?: (done: number, total: number) => void;
}

/** How good the head is expected to be, and how it was made. */
export interface TeachReport extends Omit<CrossValidation, "perClass"> {
  readonly examples: number;
  readonly features: number;
  readonly labels: readonly string[];
  /** The method of the head. */
  readonly method: Method;
  /** Strength of the ridge regression, relative to the mean eigenvalue of the scatter. */
  readonly strength?: number;
  readonly folds: number;
  readonly seed: number;
  readonly perClass: readonly (ClassQuality & { readonly label: string })[];
  /** What the user should know of the data. */
  readonly notes: readonly string[];
}

/** A head, and how good it is. */
export interface TaughtHead {
  readonly model: Model;
  readonly classifier: Classifier;
  readonly report: TeachReport;
}

/**
 * Teaches a head.
 * @throws PolyheadError INVALID_ARGUMENT for fewer than two classes or folds, classes that are no class, or rows
 *   that do not fit; DATA_MALFORMED for a class with fewer than two examples or features that are not finite
 * @throws PolyheadError MODEL_UNSUPPORTED for a tap that cannot be pooled
 */
export function teachHead(options: TeachOptions): TaughtHead {
  const { features, classes, labels, tap, seed = 0, preprocessing, progress } = options;
  const pooling = poolingOf(tap.shape, options.channels);
  const sizes = checkExamples(options, pooling.channels);
  const methods = options.method ? [options.method] : METHODS;
  const wanted = checkFolds(options.folds ?? 5);
  const folds = Math.min(wanted, Math.max(...sizes));
  const small = labels.filter((_, at) => (sizes[at] ?? 0) < folds);
  const notes = small.length > 0 ? [`Some folds have no example of: ${small.join(", ")}.`] : [];
  const assigned = stratifiedFolds(classes, folds, seed);
  const judged = crossValidate(features, classes, labels.length, assigned, methods, (done) =>
    progress?.(done, folds + 1),
  );
  const [classifier] = fitClassifiers(features, classes, labels.length, methods);
  if (!classifier) throw new PolyheadError("INTERNAL", "No method was tried.", {});
  progress?.(folds + 1, folds + 1);
  const { method, strength } = classifier;
  const report: TeachReport = {
    examples: features.rows,
    features: features.columns,
    labels,
    method,
    ...(strength !== undefined && { strength }),
    folds,
    seed,
    ...judged,
    perClass: judged.perClass.map((quality, at) => ({ label: labels[at] ?? "", ...quality })),
    notes,
  };
  const model = withMetadata(headModel(classifier, tap, pooling), {
    role: "head",
    taps: [tap],
    task: "classification",
    labels,
    activation: "softmax",
    preprocessing,
    provenance: { by: "polyhead teach", method, strength, ...options.provenance },
    quality: {
      measure: "accuracy",
      how: `stratified cross-validation with ${folds} folds, seed ${seed}`,
      accuracy: judged.accuracy.mean,
      accuracyDeviation: judged.accuracy.deviation,
      balancedAccuracy: judged.balancedAccuracy,
      baseline: judged.baseline,
      logLoss: judged.logLoss,
      calibrationError: judged.calibrationError,
      examples: features.rows,
      recall: judged.perClass.map(({ recall }) => recall),
    },
  });
  return { model, classifier, report };
}

/** Examples of each class, once everything fits together. */
function checkExamples({ features, classes, labels, tap }: TeachOptions, channels: number): number[] {
  const { rows, columns, data } = features;
  if (classes.length !== rows || columns !== channels || data.length !== rows * columns) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Got ${rows} rows of ${columns} features and ${classes.length} classes; expected one class a row, and ${channels} features as ${JSON.stringify(tap.name)} has.`,
      { rows, columns, classes: classes.length, channels },
    );
  }
  if (labels.length < 2 || new Set(labels).size < labels.length) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Got the classes ${labels.map((label) => JSON.stringify(label)).join(", ") || "(none)"}; expected at least two, each with a name of its own.`,
      { got: labels },
    );
  }
  const sizes = labels.map(() => 0);
  for (const each of classes) {
    const size = sizes[each];
    if (size === undefined) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `An example has the class ${each}; expected 0 to ${labels.length - 1}.`,
        { got: each },
      );
    }
    sizes[each] = size + 1;
  }
  const poor = labels.filter((_, at) => (sizes[at] ?? 0) < 2);
  if (poor.length > 0) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `${poor.map((label) => JSON.stringify(label)).join(", ")}: fewer than 2 examples; expected 2 or more in every class, and 10 or more for figures worth reading. Add images or remove the class.`,
      { classes: poor },
    );
  }
  const at = data.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `Example ${Math.floor(at / columns)} has the feature ${data[at]}; expected finite numbers. See whether the preprocessing is the backbone's own.`,
      { example: Math.floor(at / columns), feature: at % columns },
    );
  }
  return sizes;
}

function checkFolds(folds: number): number {
  if (Number.isInteger(folds) && folds >= 2) return folds;
  throw new PolyheadError("INVALID_ARGUMENT", `Got ${folds} folds; expected a whole number of at least 2.`, {
    got: folds,
  });
}
