/** All that is reported of a classifier's answers on examples that it had not seen. */
import { PolyheadError } from "../base/errors.js";
import type { Activation } from "../onnx/metadata.js";
import { formatShape } from "../tensor/shape.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";
import { activate } from "./classification.js";
import {
  type ClassQuality,
  calibrationError,
  classQualities,
  confusionMatrix,
  type Interval,
  mean,
  wilsonInterval,
} from "./metrics.js";

/** How good a classifier is. */
export interface ClassificationQuality {
  readonly examples: number;
  readonly accuracy: number;
  /** Where the accuracy lies with 95 % confidence, as far as these examples stand for all. */
  readonly interval: Interval;
  /** Mean of the recalls of the classes that have examples. */
  readonly balancedAccuracy: number;
  /** Share of the largest class: what calling everything by its name would score. */
  readonly baseline: number;
  /** Cross-entropy of the probabilities in nats. */
  readonly logLoss: number;
  /** Expected calibration error. */
  readonly calibrationError: number;
  readonly perClass: readonly ClassQuality[];
  /** Row = what it is, column = what it was called. */
  readonly confusion: readonly (readonly number[])[];
  /** Wrong answers, the surest first. */
  readonly mistakes: readonly Mistake[];
}

/** A wrong answer. */
export interface Mistake {
  /** Place of the example. */
  readonly example: number;
  readonly expected: number;
  readonly predicted: number;
  /** Probability of the class that was answered. */
  readonly confidence: number;
}

/** A probability below this counts as this in the log loss. */
const LEAST_PROBABILITY = 1e-12;

/**
 * Judges a classifier's scores.
 * @param scores [examples, classes]
 * @param expected class of each example
 * @param activation what makes probabilities of scores; `softmax` by default. With others the scores of a row are divided
 *   by their sum for the log loss.
 * @throws PolyheadError INVALID_ARGUMENT when shapes or classes do not fit, or a score is no number
 */
export function classificationQuality(
  scores: Tensor,
  expected: readonly number[],
  activation: Activation = "softmax",
): ClassificationQuality {
  const [rows = 0, classes = 0] = scores.shape;
  if (scores.shape.length !== 2 || rows !== expected.length || rows === 0) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Got scores ${formatShape(scores.shape)} for ${expected.length} examples; expected [examples, classes].`,
      { shape: scores.shape, examples: expected.length },
    );
  }
  const values = toNumbers(scores);
  const predicted: number[] = [];
  const confidences: number[] = [];
  let loss = 0;
  expected.forEach((own, example) => {
    const given = values.subarray(example * classes, (example + 1) * classes);
    if (!given.every(Number.isFinite)) {
      throw new PolyheadError("INVALID_ARGUMENT", `A score of example ${example} is no finite number.`, {
        example,
      });
    }
    const probabilities = activate(given, activation);
    const sum = probabilities.reduce((total, value) => total + value, 0);
    const best = probabilities.indexOf(Math.max(...probabilities));
    predicted.push(best);
    confidences.push((probabilities[best] ?? 0) / sum);
    loss -= Math.log(Math.max(LEAST_PROBABILITY, (probabilities[own] ?? 0) / sum));
  });
  const confusion = confusionMatrix(expected, predicted, classes);
  const perClass = classQualities(confusion);
  const isRight = expected.map((own, example) => own === predicted[example]);
  const right = isRight.filter(Boolean).length;
  const mistakes = expected.flatMap((own, example) =>
    isRight[example]
      ? []
      : [
          {
            example,
            expected: own,
            predicted: predicted[example] ?? 0,
            confidence: confidences[example] ?? 0,
          },
        ],
  );
  return {
    examples: rows,
    accuracy: right / rows,
    interval: wilsonInterval(right, rows),
    balancedAccuracy: mean(perClass.filter(({ support }) => support > 0).map(({ recall }) => recall)),
    baseline: Math.max(...perClass.map(({ support }) => support)) / rows,
    logLoss: loss / rows,
    calibrationError: calibrationError(confidences, isRight),
    perClass,
    confusion,
    mistakes: mistakes.sort((a, b) => b.confidence - a.confidence),
  };
}
