/**
 * What a source of data lists before any image was looked at: files with what is on them. Folders, lists, COCO and
 * Pascal VOC all come to this; `data-set.ts` looks at the images.
 */
import { PolyheadError } from "../base/errors.js";
import type { ObjectBox } from "../vision/detections.js";
import type { Size } from "../vision/placement.js";

export type { ObjectBox };

/** An image file and what it shows: the place of its class in the labels, or the objects on it. */
export interface ListedImage<Target> {
  /** Names it in messages and in the digest of the data; unique in its listing, with `/` between folders. */
  readonly id: string;
  readonly path: string;
  readonly target: Target;
  /** Of the image as the source has it, in pixels; boxes of an image of another size would lie elsewhere. */
  readonly listedSize?: Size;
}

/** Something that was left out of the data, and why. */
export interface Problem {
  readonly id: string;
  readonly problem: string;
}

/** A size that a source has, where it has one. */
export function listedSize(width: unknown, height: unknown): { listedSize?: Size } {
  const isSide = (value: unknown): value is number => typeof value === "number" && value > 0;
  return isSide(width) && isSide(height) ? { listedSize: { width, height } } : {};
}

/** All that a source lists. */
export interface Listing<Target> {
  /** Names of the classes, by number. */
  readonly labels: readonly string[];
  readonly images: readonly ListedImage<Target>[];
  /** What was wrong with the source itself. */
  readonly problems: readonly Problem[];
}

/** Images with one class each. */
export type ClassListing = Listing<number>;

/** Images with any number of objects each. */
export type BoxListing = Listing<readonly ObjectBox[]>;

/** The error for a source that cannot be understood as a whole. */
export function malformedSource(
  path: string,
  reason: string,
  details: Readonly<Record<string, unknown>> = {},
): PolyheadError {
  return new PolyheadError("DATA_MALFORMED", `${path} cannot be used as a data set: ${reason}.`, {
    path,
    ...details,
  });
}

/** The labels in the order of their UTF-16 code units, each once. */
export function sortedLabels(names: Iterable<string>): string[] {
  return [...new Set(names)].sort();
}
