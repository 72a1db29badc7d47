/**
 * The classes that a model's outputs say, by its metadata: which output has a number for each label, and what turns
 * those numbers into scores. Where the metadata does not say the latter, the numbers are looked at.
 */
import type { Metadata } from "../onnx/metadata.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";
import { type Activation, type Classification, decodeClassifications } from "./classification.js";

/** The best classes of the first row. */
export interface Classes {
  readonly classes: readonly Classification[];
  /** What was taken for the activation where the metadata has none. */
  readonly assumed?: Activation;
}

/** Undefined when no output has a number for each label. */
export function classesOf(
  outputs: ReadonlyMap<string, Tensor>,
  { labels = [], activation }: Pick<Metadata, "labels" | "activation">,
  limit = 5,
): Classes | undefined {
  const fitting = [...outputs.values()].filter(
    ({ dtype, shape }) =>
      dtype !== "string" && shape.length === 2 && (labels.length === 0 || shape[1] === labels.length),
  );
  const decode = (scores: Tensor, by: Activation) =>
    decodeClassifications(scores, labels, { limit, activation: by })[0] ?? [];
  const [first] = fitting;
  if (!first) return undefined;
  if (activation !== undefined) return { classes: decode(first, activation) };
  const probabilities = fitting.find(areProbabilities);
  const assumed = probabilities ? "none" : "softmax";
  return { classes: decode(probabilities ?? first, assumed), assumed };
}

/** Whether numbers lie from 0 to 1 and add up to 1, as far as float32 and its sums go. */
function areProbabilities(scores: Tensor): boolean {
  const values = toNumbers(scores);
  const sum = values.reduce((total, value) => total + value, 0);
  return values.every((value) => value >= 0 && value <= 1) && Math.abs(sum - 1) < 1e-3;
}
