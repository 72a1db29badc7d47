/**
 * How good a detector is: average precision and recall as COCO defines them (Lin et al. 2014; cocodataset.org/#detection-
 * eval), for boxes. Ten thresholds of intersection over union from 0.50 to 0.95, precision at 101 recalls, sizes by
 * area, at most 1, 10 and 100 detections an image and class. Numbers agree with those of COCO's own evaluation.
 */
import { PolyheadError } from "../base/errors.js";
import { seededRandom } from "../base/random.js";
import type { Box, Detection, ObjectBox } from "./detections.js";
import { standardDeviation } from "./metrics.js";

/** One image: what is on it, and what was found. */
export interface JudgedImage {
  readonly objects: readonly ObjectBox[];
  /** In pixels of the same image, in any order. */
  readonly detections: readonly Pick<Detection, "box" | "classIndex" | "score">[];
}

/** COCO's twelve numbers, from 0 to 1; undefined where there is no object to find. */
export interface DetectionQuality {
  /** Mean over thresholds and classes of the area under precision by recall. */
  readonly ap: number | undefined;
  /** At the threshold 0.50 alone, and at 0.75. */
  readonly ap50: number | undefined;
  readonly ap75: number | undefined;
  /** Of objects with an area below 32 x 32 pixels, up to 96 x 96, and above. */
  readonly apSmall: number | undefined;
  readonly apMedium: number | undefined;
  readonly apLarge: number | undefined;
  /** Share of objects found, mean over thresholds and classes, by the best 1, 10 and 100 detections. */
  readonly ar1: number | undefined;
  readonly ar10: number | undefined;
  readonly ar100: number | undefined;
  readonly arSmall: number | undefined;
  readonly arMedium: number | undefined;
  readonly arLarge: number | undefined;
  /** By class number. */
  readonly perClass: readonly ClassDetectionQuality[];
}

/** How good a detector is at one class. */
export interface ClassDetectionQuality {
  /** Objects of this class that count. */
  readonly objects: number;
  readonly ap: number | undefined;
  readonly ap50: number | undefined;
  readonly ar100: number | undefined;
}

// As NumPy's linspace computes them, so that a recall of exactly a threshold falls on the same side.
const THRESHOLDS = linspace(0.5, 0.95, 10);
const RECALLS = linspace(0, 1, 101);
const MOST_DETECTIONS = 100;
type Range = readonly [least: number, most: number];
const SIZES = {
  all: [0, 1e10],
  small: [0, 32 ** 2],
  medium: [32 ** 2, 96 ** 2],
  large: [96 ** 2, 1e10],
} as const satisfies Record<string, Range>;

/** What became of a detection at one threshold. */
const FALSE = 0;
const TRUE = 1;
const IGNORED = 2;

/**
 * Judges detections. Ignored objects are treated as COCO's crowds: what lies on one counts neither for nor against the
 * detector, and as many detections as like may lie on it. Among equal scores the order of the images decides.
 * @param classes number of classes
 * @throws PolyheadError INVALID_ARGUMENT for a class beyond them or a score that is no number
 */
export function detectionQuality(images: readonly JudgedImage[], classes: number): DetectionQuality {
  const byClass = sortByClass(images, classes);
  const judged = byClass.map((ofClass) => {
    const pairs = ofClass.map(overlapsOf);
    const of = (size: keyof typeof SIZES, most: number) => curve(pairs, SIZES[size], most);
    return {
      all: of("all", MOST_DETECTIONS),
      small: of("small", MOST_DETECTIONS),
      medium: of("medium", MOST_DETECTIONS),
      large: of("large", MOST_DETECTIONS),
      one: of("all", 1),
      ten: of("all", 10),
    };
  });
  type Kind = keyof (typeof judged)[number];
  const precision = (kind: Kind, threshold?: number) =>
    meanOf(judged.map((each) => averageOf(each[kind]?.precision, threshold)));
  const recall = (kind: Kind) => meanOf(judged.map((each) => averageOf(each[kind]?.recall)));
  return {
    ap: precision("all"),
    ap50: precision("all", 0),
    ap75: precision("all", 5),
    apSmall: precision("small"),
    apMedium: precision("medium"),
    apLarge: precision("large"),
    ar1: recall("one"),
    ar10: recall("ten"),
    ar100: recall("all"),
    arSmall: recall("small"),
    arMedium: recall("medium"),
    arLarge: recall("large"),
    perClass: judged.map(({ all }) => ({
      objects: all?.positives ?? 0,
      ap: averageOf(all?.precision),
      ap50: averageOf(all?.precision, 0),
      ar100: averageOf(all?.recall),
    })),
  };
}

/** Objects and detections of one class on one image, the best detections first. */
interface OfClass {
  readonly objects: ObjectBox[];
  readonly detections: JudgedImage["detections"][number][];
}

/** Overlaps too: one row a detection, one column an object. */
interface Overlaps extends OfClass {
  readonly overlaps: readonly (readonly number[])[];
}

/** By class, then by image; images without the class have empty lists. */
function sortByClass(images: readonly JudgedImage[], classes: number): OfClass[][] {
  const byClass = Array.from({ length: classes }, () =>
    images.map((): OfClass => ({ objects: [], detections: [] })),
  );
  const find = (classIndex: number, image: number): OfClass => {
    const found = byClass[classIndex]?.[image];
    if (found) return found;
    throw new PolyheadError("INVALID_ARGUMENT", `Classes are 0 to ${classes - 1}; got ${classIndex}.`, {
      classes,
      got: classIndex,
    });
  };
  images.forEach(({ objects, detections }, image) => {
    for (const object of objects) find(object.classIndex, image).objects.push(object);
    for (const detection of detections) {
      if (!Number.isFinite(detection.score)) {
        throw new PolyheadError("INVALID_ARGUMENT", `A detection has the score ${detection.score}.`, {
          image,
        });
      }
      find(detection.classIndex, image).detections.push(detection);
    }
  });
  return byClass;
}

function overlapsOf({ objects, detections }: OfClass): Overlaps {
  const best = detections.toSorted((a, b) => b.score - a.score).slice(0, MOST_DETECTIONS);
  const overlaps = best.map(({ box }) => objects.map((object) => overlap(box, object)));
  return { objects, detections: best, overlaps };
}

/** Intersection over union; over the detection alone where the object is ignored. */
function overlap(detection: Box, object: ObjectBox): number {
  const width = Math.min(detection.x2, object.x2) - Math.max(detection.x1, object.x1);
  const height = Math.min(detection.y2, object.y2) - Math.max(detection.y1, object.y1);
  if (width <= 0 || height <= 0) return 0;
  const shared = width * height;
  return shared / (object.isIgnored ? areaOf(detection) : areaOf(detection) + areaOf(object) - shared);
}

/** By how much numbers would differ between sets of as many images. */
export interface PrecisionDeviation {
  readonly ap: number | undefined;
  readonly ap50: number | undefined;
}

/** Sets of images that are drawn. */
const RESAMPLES = 100;

/**
 * The spread of average precision: its standard deviation between sets of images drawn from the given ones with
 * replacement (the bootstrap; Efron 1979), 100 of them. Undefined for fewer than two images, or without any object.
 * @param seed decides what is drawn
 * @throws PolyheadError as {@link detectionQuality} does
 */
export function precisionDeviation(
  images: readonly JudgedImage[],
  classes: number,
  seed: number,
): PrecisionDeviation {
  const judged = sortByClass(images, classes).map((ofClass) =>
    outcomesOf(ofClass.map(overlapsOf), SIZES.all, MOST_DETECTIONS),
  );
  const random = seededRandom(seed);
  const drawn = Array.from({ length: images.length < 2 ? 0 : RESAMPLES }, () => {
    const counts = new Uint32Array(images.length);
    for (let each = 0; each < images.length; each++) {
      const at = Math.floor(random() * images.length);
      counts[at] = (counts[at] ?? 0) + 1;
    }
    const curves = judged.map((each) => curveOf(each, counts)?.precision);
    return {
      ap: meanOf(curves.map((each) => averageOf(each))),
      ap50: meanOf(curves.map((each) => averageOf(each, 0))),
    };
  });
  const deviation = (values: readonly (number | undefined)[]) => {
    const known = values.filter((value) => value !== undefined);
    return known.length < 2 ? undefined : standardDeviation(known);
  };
  return { ap: deviation(drawn.map(({ ap }) => ap)), ap50: deviation(drawn.map(({ ap50 }) => ap50)) };
}

/** What became of one detection: its image and score and, by threshold, whether it is true, false or ignored. */
interface Outcome {
  readonly image: number;
  readonly score: number;
  readonly at: readonly number[];
}

/** Precision at each recall, and the greatest recall; both by threshold. */
interface Curve {
  readonly positives: number;
  readonly precision: readonly (readonly number[])[];
  readonly recall: readonly (readonly number[])[];
}

/** What became of all detections, the best first, and how many objects of each image count. */
interface Outcomes {
  readonly positives: readonly number[];
  readonly outcomes: readonly Outcome[];
}

/** Undefined when no object of the class and size counts. */
function curve(images: readonly Overlaps[], size: Range, most: number): Curve | undefined {
  return curveOf(outcomesOf(images, size, most));
}

function outcomesOf(images: readonly Overlaps[], size: Range, most: number): Outcomes {
  const positives: number[] = [];
  const outcomes: Outcome[] = [];
  for (const [at, image] of images.entries()) {
    const isIgnored = image.objects.map(
      (object) => object.isIgnored === true || isOutside(object.area ?? areaOf(object), size),
    );
    positives.push(isIgnored.filter((each) => !each).length);
    const matches = THRESHOLDS.map((threshold) => match(image, isIgnored, size, threshold));
    image.detections.slice(0, most).forEach(({ score }, detection) => {
      outcomes.push({ image: at, score, at: matches.map((of) => of[detection] ?? FALSE) });
    });
  }
  return { positives, outcomes: outcomes.sort((a, b) => b.score - a.score) };
}

/** @param counts how often each image is there; once by default */
function curveOf({ positives: each, outcomes }: Outcomes, counts?: ArrayLike<number>): Curve | undefined {
  const positives = each.reduce((sum, own, image) => sum + own * (counts?.[image] ?? 1), 0);
  if (positives === 0) return undefined;
  const curves = THRESHOLDS.map((_, threshold) => curveAt(outcomes, threshold, positives, counts));
  return {
    positives,
    precision: curves.map(({ precision }) => precision),
    recall: curves.map(({ recall }) => [recall]),
  };
}

/**
 * Gives every detection, best first, the object it overlaps most among those that are free, by the threshold at least;
 * objects that count before ignored ones.
 */
function match(
  { objects, detections, overlaps }: Overlaps,
  isIgnored: readonly boolean[],
  size: Range,
  threshold: number,
): number[] {
  const order = [...objects.keys()].sort((a, b) => Number(isIgnored[a]) - Number(isIgnored[b]));
  const taken = new Set<number>();
  return detections.map(({ box }, detection) => {
    let found = -1;
    let most = Math.min(threshold, 1 - 1e-10);
    for (const object of order) {
      if (taken.has(object) && !objects[object]?.isIgnored) continue;
      if (found >= 0 && !isIgnored[found] && isIgnored[object]) break;
      const shared = overlaps[detection]?.[object] ?? 0;
      if (shared < most) continue;
      most = shared;
      found = object;
    }
    if (found < 0) return isOutside(areaOf(box), size) ? IGNORED : FALSE;
    taken.add(found);
    return isIgnored[found] ? IGNORED : TRUE;
  });
}

function curveAt(
  outcomes: readonly Outcome[],
  threshold: number,
  positives: number,
  counts: ArrayLike<number> | undefined,
) {
  const recalls: number[] = [];
  const precisions: number[] = [];
  let [right, wrong] = [0, 0];
  for (const { image, at } of outcomes) {
    const count = counts?.[image] ?? 1;
    if (at[threshold] === TRUE) right += count;
    else if (at[threshold] === FALSE) wrong += count;
    recalls.push(right / positives);
    precisions.push(right + wrong === 0 ? 0 : right / (right + wrong));
  }
  // What can be had at a recall or beyond it.
  for (let at = precisions.length - 2; at >= 0; at--) {
    precisions[at] = Math.max(precisions[at] ?? 0, precisions[at + 1] ?? 0);
  }
  let at = 0;
  const precision = RECALLS.map((wanted) => {
    while (at < recalls.length && (recalls[at] ?? 0) < wanted) at++;
    return precisions[at] ?? 0;
  });
  return { precision, recall: recalls.at(-1) ?? 0 };
}

/** The mean of all, or of one threshold. */
function averageOf(
  values: readonly (readonly number[])[] | undefined,
  threshold?: number,
): number | undefined {
  if (!values) return undefined;
  return meanOf(threshold === undefined ? values.flat() : [...(values[threshold] ?? [])]);
}

function meanOf(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0) / known.length;
}

function isOutside(area: number, [least, most]: Range): boolean {
  return area < least || area > most;
}

function areaOf({ x1, y1, x2, y2 }: Box): number {
  return (x2 - x1) * (y2 - y1);
}

function linspace(from: number, to: number, count: number): number[] {
  const step = (to - from) / (count - 1);
  return Array.from({ length: count }, (_, at) => (at === count - 1 ? to : at * step + from));
}
