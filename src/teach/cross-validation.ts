/**
 * How good the way of learning is: every fold is classified by what was learned from all other folds, choice of
 * method, strength and scale included, so that nothing of the fold it is judged on had a say.
 */
import {
  accuracy,
  type ClassQuality,
  classQualities,
  confusionMatrix,
  mean,
  standardDeviation,
} from "../vision/metrics.js";
import { calibrationErrorOf, crossEntropy } from "./calibration.js";
import { bestClasses, fitClassifiers, logitsOf, type Method } from "./classifier.js";
import { type Matrix, row, selectRows, zeros } from "./linear-algebra.js";

/** Accuracy over folds. */
export interface FoldAccuracy {
  readonly mean: number;
  /** Standard deviation between folds. */
  readonly deviation: number;
  /** Accuracy of each fold. */
  readonly folds: readonly number[];
}

/** What cross-validation found. */
export interface CrossValidation {
  /** Of the whole procedure: the method is chosen anew without the fold. */
  readonly accuracy: FoldAccuracy;
  /** Of each method alone. */
  readonly methods: readonly { readonly method: Method; readonly accuracy: FoldAccuracy }[];
  /** Share of the largest class: what calling everything by its name would score. */
  readonly baseline: number;
  /** Mean of the classes' recalls, which a large class cannot carry. */
  readonly balancedAccuracy: number;
  /** Cross-entropy of the probabilities in nats; the logarithm of the number of classes for a guess. */
  readonly logLoss: number;
  /** Expected calibration error of the probabilities. */
  readonly calibrationError: number;
  readonly perClass: readonly ClassQuality[];
  /** Row = what it is, column = what it was called. */
  readonly confusion: readonly (readonly number[])[];
}

/**
 * Judges the learning of classifiers.
 * @param folds fold of each example, from 0
 * @param progress called after each fold
 */
export function crossValidate(
  features: Matrix,
  classes: readonly number[],
  count: number,
  folds: readonly number[],
  methods: readonly Method[],
  progress: (done: number, total: number) => void = () => {},
): CrossValidation {
  const total = Math.max(...folds) + 1;
  const logits = zeros(features.rows, count);
  const chosen: number[] = [];
  const ofMethod = new Map<Method, number[]>(methods.map((method) => [method, []]));
  for (let fold = 0; fold < total; fold++) {
    const examples = [...classes.keys()];
    const train = examples.filter((example) => folds[example] !== fold);
    const test = examples.filter((example) => folds[example] === fold);
    const classOf = (example: number) => classes[example] ?? 0;
    const fitted = fitClassifiers(selectRows(features, train), train.map(classOf), count, methods);
    const held = selectRows(features, test);
    fitted.forEach((classifier, place) => {
      const answers = logitsOf(classifier, held);
      const right = accuracy(test.map(classOf), bestClasses(answers));
      ofMethod.get(classifier.method)?.push(right);
      if (place > 0) return;
      chosen.push(right);
      test.forEach((example, at) => {
        row(logits, example).set(row(answers, at));
      });
    });
    progress(fold + 1, total);
  }
  const confusion = confusionMatrix(classes, bestClasses(logits), count);
  const perClass = classQualities(confusion);
  return {
    accuracy: overFolds(chosen),
    methods: [...ofMethod].map(([method, values]) => ({ method, accuracy: overFolds(values) })),
    baseline: Math.max(...perClass.map(({ support }) => support)) / classes.length,
    balancedAccuracy: mean(perClass.map(({ recall }) => recall)),
    logLoss: crossEntropy(logits, classes),
    calibrationError: calibrationErrorOf(logits, classes),
    perClass,
    confusion,
  };
}

function overFolds(folds: readonly number[]): FoldAccuracy {
  return { mean: mean(folds), deviation: standardDeviation(folds), folds };
}
