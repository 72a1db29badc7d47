/**
 * A classifier over feature vectors, learned in closed form: features are standardised, two methods are fitted,
 * and what each says of examples that it was not fitted on (leave-one-out) decides between them and sets the
 * scale of its scores. Nothing outside of the examples given is looked at, so a fold that is held out stays so.
 */
import { accuracy } from "../vision/metrics.js";
import { bestOf, crossEntropy, fitScale } from "./calibration.js";
import { type Matrix, multiplyTransposed, row, selectRows, zeros } from "./linear-algebra.js";
import { fitNearestMean, unitRows } from "./nearest-mean.js";
import { fitRidge, type LinearScores } from "./ridge.js";

/** How a head is learned. */
export type Method = "ridge" | "nearest-mean";

/** Every method, in the order in which they are tried. */
export const METHODS: readonly Method[] = ["ridge", "nearest-mean"];

/** Mean and deviation of every feature; a feature that never changes has deviation 1. */
export interface Standardisation {
  readonly mean: Float64Array;
  readonly deviation: Float64Array;
}

/** A learned classifier: logits = weights * normalised(features) + bias. */
export interface Classifier extends LinearScores {
  readonly method: Method;
  /** For nearest means: features are standardised so and then divided by their length. Else features are taken as they are. */
  readonly standardisation?: Standardisation;
  /** Of the ridge regression, relative to the mean eigenvalue. */
  readonly strength?: number;
  /** Factor from scores to logits, contained in weights and bias. */
  readonly scale: number;
  /** Share of examples that are right when left out. */
  readonly leftOutAccuracy: number;
  /** Cross-entropy of examples when left out, in nats. */
  readonly leftOutLoss: number;
}

/**
 * Classifiers by the given methods, the one that does best on left-out examples first: by accuracy, then by
 * cross-entropy.
 * @param features one row an example
 * @param classes class of each example, from 0
 * @param count number of classes
 */
export function fitClassifiers(
  features: Matrix,
  classes: readonly number[],
  count: number,
  methods: readonly Method[] = METHODS,
): Classifier[] {
  const standardisation = standardisationOf(features);
  const standard = standardised(features, standardisation);
  return methods
    .map((method) => {
      if (method === "ridge") {
        const ridge = fitRidge(standard, classes, count);
        const { strength, leftOut } = ridge;
        return scaled({ method, strength, ...folded(ridge, standardisation) }, leftOut, classes);
      }
      const { leftOut, ...means } = fitNearestMean(unitRows(standard), classes, count);
      return scaled({ method, standardisation, ...means }, leftOut, classes);
    })
    .sort((a, b) => b.leftOutAccuracy - a.leftOutAccuracy || a.leftOutLoss - b.leftOutLoss);
}

/** Logits of each row of features; one column a class. */
export function logitsOf(classifier: Classifier, features: Matrix): Matrix {
  const { standardisation, weights, bias } = classifier;
  const inputs = standardisation ? unitRows(standardised(features, standardisation)) : features;
  const logits = multiplyTransposed(inputs, weights);
  logits.data.set(logits.data.map((value, at) => value + (bias[at % bias.length] ?? 0)));
  return logits;
}

/** The class with the highest score in each row. */
export function bestClasses(scores: Matrix): number[] {
  return Array.from({ length: scores.rows }, (_, at) => bestOf(row(scores, at)));
}

/** Mean and deviation of every column. */
export function standardisationOf({ rows, columns, data }: Matrix): Standardisation {
  const mean = new Float64Array(columns);
  const deviation = new Float64Array(columns);
  data.forEach((value, at) => {
    mean[at % columns] = (mean[at % columns] ?? 0) + value / rows;
  });
  data.forEach((value, at) => {
    const column = at % columns;
    deviation[column] = (deviation[column] ?? 0) + (value - (mean[column] ?? 0)) ** 2 / rows;
  });
  const isConstant = (square: number, column: number) => square <= (1e-7 * (mean[column] ?? 0)) ** 2;
  return {
    mean,
    deviation: deviation.map((square, column) => (isConstant(square, column) ? 1 : Math.sqrt(square))),
  };
}

/** Every column with mean 0 and deviation 1 as far as the examples go that the standardisation was made from. */
export function standardised(features: Matrix, { mean, deviation }: Standardisation): Matrix {
  const { rows, columns } = features;
  const made = zeros(rows, columns);
  made.data.set(
    features.data.map((value, at) => (value - (mean[at % columns] ?? 0)) / (deviation[at % columns] ?? 1)),
  );
  return made;
}

/** The same scores from features that are not standardised. */
function folded({ weights, bias }: LinearScores, { mean, deviation }: Standardisation): LinearScores {
  const made = zeros(weights.rows, weights.columns);
  const shifted = Float64Array.from(bias);
  for (let each = 0; each < weights.rows; each++) {
    const own = row(made, each);
    own.set(row(weights, each).map((value, column) => value / (deviation[column] ?? 1)));
    own.forEach((value, column) => {
      shifted[each] = (shifted[each] ?? 0) - value * (mean[column] ?? 0);
    });
  }
  return { weights: made, bias: shifted };
}

/** Judged and scaled by the scores of left-out examples; those alone in their class cannot be judged so. */
function scaled(
  classifier: Omit<Classifier, "scale" | "leftOutAccuracy" | "leftOutLoss">,
  leftOut: Matrix,
  classes: readonly number[],
): Classifier {
  const sizes = new Map<number, number>();
  for (const each of classes) sizes.set(each, (sizes.get(each) ?? 0) + 1);
  const judged = [...classes.keys()].filter((example) => (sizes.get(classes[example] ?? 0) ?? 0) > 1);
  const expected = judged.map((example) => classes[example] ?? 0);
  const scores = selectRows(leftOut, judged);
  const scale = fitScale(scores, expected);
  const { rows, columns, data } = classifier.weights;
  return {
    ...classifier,
    weights: { rows, columns, data: data.map((value) => value * scale) },
    bias: classifier.bias.map((value) => value * scale),
    scale,
    leftOutAccuracy: accuracy(expected, bestClasses(scores)),
    leftOutLoss: crossEntropy(scores, expected, scale),
  };
}
