/**
 * What a detector gets wrong, for people to look at: on each image the surest detection that is no such object, or
 * else an object that it did not find. The measure itself is average precision.
 */
import { type Box, type Detection, intersectionOverUnion, type ObjectBox } from "../../vision/detections.js";

/** One image that was judged. */
export interface JudgedExample {
  readonly id: string;
  readonly path: string;
  readonly objects: readonly ObjectBox[];
  /** Best first. */
  readonly detections: readonly Detection[];
}

/** A detection that is wrong, or an object that is missing. */
export interface DetectionMistake {
  readonly id: string;
  readonly path: string;
  /** Class of the object there; undefined for none. */
  readonly expected: string | undefined;
  /** Class of the detection; undefined for none. */
  readonly predicted: string | undefined;
  /** Of the detection. */
  readonly confidence: number | undefined;
  /** Where it is, in pixels of the image. */
  readonly box: Box;
}

/** A detection and an object are the same from this overlap on. */
const SAME = 0.5;

/**
 * The worst mistake of each image that has one: sure detections first, objects that were not found last.
 * @param threshold detections of a lower score are none
 */
export function detectionMistakes(
  examples: readonly JudgedExample[],
  labels: readonly string[],
  threshold: number,
): DetectionMistake[] {
  return examples
    .flatMap((example) => worstOf(example, labels, threshold) ?? [])
    .sort((a, b) => (b.confidence ?? 0) - (a.confidence ?? 0));
}

function worstOf(
  { id, path, objects, detections }: JudgedExample,
  labels: readonly string[],
  threshold: number,
): DetectionMistake | undefined {
  const nameOf = (object: ObjectBox | undefined) => object && labels[object.classIndex];
  const found = new Set<ObjectBox>();
  for (const { label, classIndex, score, box } of detections) {
    if (score < threshold) break;
    const [near] = objects
      .filter((object) => !found.has(object) && intersectionOverUnion(box, object) >= SAME)
      .sort(
        (a, b) =>
          Number(b.classIndex === classIndex) - Number(a.classIndex === classIndex) ||
          intersectionOverUnion(box, b) - intersectionOverUnion(box, a),
      );
    if (near?.isIgnored) continue;
    if (near?.classIndex !== classIndex)
      return { id, path, expected: nameOf(near), predicted: label, confidence: score, box };
    found.add(near);
  }
  const missed = objects.find((object) => !object.isIgnored && !found.has(object));
  const nothing = { predicted: undefined, confidence: undefined };
  return missed && { id, path, expected: nameOf(missed), ...nothing, box: missed };
}
