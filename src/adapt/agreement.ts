/**
 * How much of a head survives: what it says of adapted features against what it says of the features that it was
 * trained on, and against the truth where that is known. Classifiers are compared by their best class, detectors by the
 * objects that they find, everything else by the variance of the outputs that is kept.
 */
import { PolyheadError } from "../base/errors.js";
import { seededRandom } from "../base/random.js";
import type { Metadata } from "../onnx/metadata.js";
import { bestClasses } from "../teach/classifier.js";
import { type Matrix, matrixOf } from "../teach/linear-algebra.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";
import { parseDecoding } from "../vision/decoding.js";
import { type Detection, decodeDetections, intersectionOverUnion } from "../vision/detections.js";
import { accuracy, wilsonInterval } from "../vision/metrics.js";
import type { Size } from "../vision/placement.js";
import { explainedVariance } from "./ladder.js";

/** A share of examples, with the interval that it lies in (95 %; Wilson 1927, of detectors by bootstrap over images). */
export interface Share {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** What a head says of some examples. */
export interface HeadAnswers {
  /** Best class of each example; undefined for heads that do not classify. */
  readonly classes: readonly number[] | undefined;
  /** What a detector finds on each example, in its input's pixels; undefined for other heads. */
  readonly detections?: readonly (readonly Detection[])[] | undefined;
  /** The first output: [n, numbers of one example]. */
  readonly numbers: Matrix;
}

/** How an adapted head compares with the head on its own backbone. */
export interface Agreement {
  /**
   * Share of equal classes; of detectors the F1 of what they find, the head on its own backbone being the truth (same
   * class, intersection over union of at least a half); of other heads the explained variance of the outputs, without
   * an interval.
   */
  readonly agreement: number;
  readonly interval?: Share;
  /** Where the truth is known. */
  readonly accuracy?: Share;
  readonly nativeAccuracy?: Share;
  /** What is kept of the head's quality: accuracy over native accuracy where both are known, else the agreement. */
  readonly kept: number;
}

/**
 * A head's answers from its outputs.
 * @param metadata of the head: `labels` and `task` say whether it classifies
 */
export function answersOf(outputs: ReadonlyMap<string, Tensor>, metadata: Metadata): HeadAnswers {
  const [first] = outputs.values();
  if (!first) throw new PolyheadError("MODEL_UNSUPPORTED", "The head has no output.", {});
  const rows = first.shape[0] ?? 1;
  const data = toNumbers(first);
  const numbers = { rows, columns: data.length / Math.max(1, rows), data };
  const isClassifier =
    metadata.task === "classification" ||
    (metadata.labels !== undefined && metadata.labels.length === numbers.columns);
  return { numbers, classes: isClassifier ? bestClasses(numbers) : undefined };
}

/**
 * The answers to examples that were run one by one.
 * @param outputs of each example
 * @param input height and width of the picture that the head's backbone takes, for detectors
 */
export function answersOfEach(
  outputs: readonly ReadonlyMap<string, Tensor>[],
  metadata: Metadata,
  input: Size,
): HeadAnswers {
  const answers = outputs.map((each) => answersOf(each, metadata));
  const numbers = matrixOf(answers.map(({ numbers: { data } }) => data));
  const classes = answers.flatMap((each) => each.classes ?? []);
  const decoding = metadata.decoding === undefined ? undefined : parseDecoding(metadata.decoding);
  const whole = { left: 0, top: 0, ...input };
  const placement = { image: input, input, source: whole, target: whole };
  return {
    numbers,
    classes: classes.length === outputs.length ? classes : undefined,
    detections:
      decoding && outputs.map((each) => decodeDetections(each, decoding, metadata.labels ?? [], placement)),
  };
}

/**
 * Compares answers.
 * @throws PolyheadError DATA_MALFORMED for a detector that finds nothing on any example
 * @param truth class of each example, from 0, in the head's own order
 */
export function agreementOf(native: HeadAnswers, adapted: HeadAnswers, truth?: readonly number[]): Agreement {
  if (native.detections && adapted.detections) {
    const interval = foundAgain(native.detections, adapted.detections);
    return { agreement: interval.value, interval, kept: interval.value };
  }
  if (!native.classes || !adapted.classes) {
    const agreement = explainedVariance(adapted.numbers, native.numbers);
    return { agreement, kept: agreement };
  }
  const share = accuracy(native.classes, adapted.classes);
  const examples = native.classes.length;
  const interval = shareOf(share, examples);
  if (!truth) return { agreement: share, interval, kept: share };
  const [own, other] = [native.classes, adapted.classes].map((classes) => accuracy(truth, classes));
  const [nativeShare = 0, adaptedShare = 0] = [own, other];
  return {
    agreement: share,
    interval,
    accuracy: shareOf(adaptedShare, examples),
    nativeAccuracy: shareOf(nativeShare, examples),
    kept: nativeShare > 0 ? adaptedShare / nativeShare : 0,
  };
}

/** A share of `count` examples with its interval. */
export function shareOf(value: number, count: number): Share {
  return { value, ...wilsonInterval(value * count, count) };
}

/** Draws of the bootstrap. */
const DRAWS = 1000;
/** Overlap from which on two boxes are of one object. */
const SAME_OBJECT = 0.5;

/** F1 of what is found against what was found before, over all examples, with its bootstrap interval over examples. */
function foundAgain(
  native: readonly (readonly Detection[])[],
  adapted: readonly (readonly Detection[])[],
): Share {
  const counts = native.map((own, at) => {
    const found = adapted[at] ?? [];
    return { both: matches(own, found), all: own.length + found.length };
  });
  if (native.every((own) => own.length === 0)) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `The head finds nothing on any of ${native.length} images with its own backbone, so that nothing can be compared; expected images with the objects that it is for.`,
      { examples: native.length },
    );
  }
  const shareIn = (examples: readonly { both: number; all: number }[]) => {
    const both = examples.reduce((sum, each) => sum + each.both, 0);
    const all = examples.reduce((sum, each) => sum + each.all, 0);
    return all > 0 ? (2 * both) / all : 0;
  };
  const random = seededRandom(0);
  const pick = () => counts[Math.floor(random() * counts.length)] ?? { both: 0, all: 0 };
  const drawn = Array.from({ length: DRAWS }, () => shareIn(counts.map(pick))).sort((a, b) => a - b);
  const at = (share: number) => drawn[Math.round(share * (DRAWS - 1))] ?? 0;
  return { value: shareIn(counts), low: at(0.025), high: at(0.975) };
}

/** Pairs of the same class and place, the surest detections first; each is in one pair at most. */
function matches(own: readonly Detection[], found: readonly Detection[]): number {
  const free = new Set(own);
  let count = 0;
  for (const { box, classIndex } of found.toSorted((a, b) => b.score - a.score)) {
    const candidates = [...free].filter((each) => each.classIndex === classIndex);
    const best = candidates
      .map((each) => ({ each, overlap: intersectionOverUnion(each.box, box) }))
      .sort((a, b) => b.overlap - a.overlap)[0];
    if (!best || best.overlap < SAME_OBJECT) continue;
    free.delete(best.each);
    count++;
  }
  return count;
}
