/** From a classifier's outputs to labels with scores. */
import { PolyheadError } from "../base/errors.js";
import type { Activation } from "../onnx/metadata.js";
import { formatShape, type Tensor, toNumbers } from "../tensor/index.js";

/** One label that a classifier gave. */
export interface Classification {
  readonly label: string;
  /** Place of the label in the list of labels. */
  readonly classIndex: number;
  /** From 0 to 1. */
  readonly score: number;
}

export type { Activation };

/** How to answer. */
export interface ClassificationOptions {
  /** Most labels; 5 when left out. */
  readonly limit?: number;
  /** `softmax` when left out. */
  readonly activation?: Activation;
}

/**
 * The best labels for each row of a classifier's output, best first; equal scores by class.
 * @param output shape [batch, classes]
 * @param labels by class; a class beyond them is called by its number
 * @throws PolyheadError MODEL_MALFORMED when the output has another rank
 */
export function decodeClassifications(
  output: Tensor,
  labels: readonly string[],
  { limit = 5, activation = "softmax" }: ClassificationOptions = {},
): Classification[][] {
  const [batch, classes] = output.shape;
  if (output.shape.length !== 2 || batch === undefined || classes === undefined) {
    throw new PolyheadError(
      "MODEL_MALFORMED",
      `A classifier's output has shape [batch, classes]; got ${formatShape(output.shape)}.`,
      { expected: ["batch", "classes"], got: output.shape },
    );
  }
  const values = toNumbers(output);
  return Array.from({ length: batch }, (_, row) => {
    const scores = activate(values.subarray(row * classes, (row + 1) * classes), activation);
    return Array.from(scores, (score, classIndex) => ({
      label: labels[classIndex] ?? `class ${classIndex}`,
      classIndex,
      score,
    }))
      .sort((a, b) => b.score - a.score)
      .slice(0, limit);
  });
}

/** exp(x) over the sum of all exp(x), without overflow; the results add up to 1. */
export function softmax(values: ArrayLike<number>): Float64Array {
  const numbers = Float64Array.from(values);
  const largest = numbers.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
  const powers = numbers.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/** 1 / (1 + exp(-x)) of each number. */
export function sigmoid(values: ArrayLike<number>): Float64Array {
  return Float64Array.from(values, (value) => 1 / (1 + Math.exp(-value)));
}

/** Scores from 0 to 1 of one row. */
export function activate(values: Float64Array, activation: Activation): Float64Array {
  if (activation === "none") return values;
  return activation === "softmax" ? softmax(values) : sigmoid(values);
}
