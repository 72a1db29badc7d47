/**
 * Data sets of images: every image of a listing is read and decoded once before training, so that what is learned from
 * is known before the first step, bad images are listed and left out, and the digest says which data it was. An image
 * that changes afterwards is an error when it is met (`image-reader.ts`).
 */
import { createHash } from "node:crypto";
import { PolyheadError } from "../base/errors.js";
import { mapInFlight } from "../base/in-flight.js";
import { decodeImage } from "../vision/image.js";
import type { Size } from "../vision/placement.js";
import { orProblem, readImageFile } from "./image-file.js";
import type { BoxListing, ClassListing, ListedImage, Listing, ObjectBox, Problem } from "./listing.js";

/** An image that can be learned from. */
export interface Example<Target> extends ListedImage<Target> {
  /** SHA-256 of the file's bytes in hexadecimal; equal for copies. */
  readonly digest: string;
  /** Of the upright image, in pixels. */
  readonly size: Size;
}

/** Images that were looked at. */
export interface DataSet<Target> {
  /** Names of the classes, by number. */
  readonly labels: readonly string[];
  /** In the order of the listing. */
  readonly examples: readonly Example<Target>[];
  /** `sha256:` of labels, ids, images and targets: the same for the same data wherever it lies. */
  readonly digest: string;
  /** What was left out, and why: images, records, boxes. */
  readonly problems: readonly Problem[];
  /** What the user should know of the data beside that. */
  readonly notes: readonly string[];
}

/** How images are looked at. */
export interface DataSetOptions {
  /** Most things that may be left out; 10, or one in twenty images where that is more, by default. */
  readonly mostProblems?: number;
  /** Images decoded at a time; 4 by default. */
  readonly inFlight?: number;
  /** Called after each image. */
  readonly progress?: (done: number, total: number) => void;
}

/**
 * A data set of images with one class each. Copies of an image within a class are left out but for the first.
 * @throws PolyheadError DATA_MALFORMED for no images, fewer than two classes, a class without a usable image, one
 *   image in two classes, or more problems than allowed
 */
export async function classDataSet(
  listing: ClassListing,
  options: DataSetOptions = {},
): Promise<DataSet<number>> {
  if (listing.labels.length < 2) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `The data has ${listing.labels.length === 1 ? `one class, ${JSON.stringify(listing.labels[0])}` : "no classes"}; expected at least two.`,
      { got: listing.labels },
    );
  }
  const looked = await lookAt(listing, options, (target) => ({ target, problems: [] }));
  const { kept, copies } = withoutCopies(looked.examples, listing.labels);
  const present = new Set(kept.map(({ target }) => target));
  const empty = listing.labels.filter((_, at) => !present.has(at));
  if (empty.length > 0) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `No usable image for the class ${quoted(empty)}; expected some in every class. ${describe(looked.problems)}`,
      { classes: empty, problems: looked.problems },
    );
  }
  const notes = copies.length > 0 ? [`Copies of another image, left out: ${quoted(copies)}.`] : [];
  return { ...sealed(listing.labels, kept), problems: looked.problems, notes };
}

/**
 * A data set of images with boxes. Boxes that are not numbers, empty, negative in size or wholly outside of their image
 * are left out and listed; boxes that stand out are cut at the image's edges. Images without a box are kept: they
 * show what is no object.
 * @throws PolyheadError DATA_MALFORMED for no images, no classes, no usable box, or more problems than allowed
 */
export async function boxDataSet(
  listing: BoxListing,
  options: DataSetOptions = {},
): Promise<DataSet<readonly ObjectBox[]>> {
  if (listing.labels.length === 0) {
    throw new PolyheadError("DATA_MALFORMED", "The data has no classes; expected boxes of at least one.", {});
  }
  let cut = 0;
  const { examples, problems } = await lookAt(listing, options, (boxes, size) => {
    const checked = boxes.map((box) => checkBox(box, size));
    cut += checked.filter((each) => typeof each !== "string" && each.wasCut).length;
    return {
      target: checked.flatMap((each) => (typeof each === "string" ? [] : [each.box])),
      problems: checked.filter((each) => typeof each === "string"),
    };
  });
  const counts = listing.labels.map(() => 0);
  for (const { target } of examples) {
    for (const { classIndex, isIgnored } of target) {
      if (!isIgnored) counts[classIndex] = (counts[classIndex] ?? 0) + 1;
    }
  }
  if (counts.every((count) => count === 0)) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `The data has no usable box; expected some to learn from. ${describe(problems)}`,
      { problems },
    );
  }
  const empty = listing.labels.filter((_, at) => counts[at] === 0);
  const notes = [
    ...(empty.length > 0 ? [`No boxes of ${quoted(empty)}; such objects will not be found.`] : []),
    ...(cut > 0 ? [`${cut} boxes stood out of their image and were cut at its edges.`] : []),
  ];
  return { ...sealed(listing.labels, examples), problems, notes };
}

/** The class of each example by which box data is split: that of its rarest object, -1 for none. */
export function rarestClasses({ labels, examples }: DataSet<readonly ObjectBox[]>): number[] {
  const counts = labels.map(() => 0);
  for (const { target } of examples) {
    for (const { classIndex } of target) counts[classIndex] = (counts[classIndex] ?? 0) + 1;
  }
  const rarity = (classIndex: number) => counts[classIndex] ?? 0;
  return examples.map(({ target }) =>
    target.reduce(
      (rarest, { classIndex }) => (rarest < 0 || rarity(classIndex) < rarity(rarest) ? classIndex : rarest),
      -1,
    ),
  );
}

/** How far a box may stand out of its image through rounding, in pixels, without a word. */
const ROUNDING = 1;

/** A box cut at the image's edges, or what is wrong with it. */
function checkBox(box: ObjectBox, { width, height }: Size): { box: ObjectBox; wasCut: boolean } | string {
  const corners = [box.x1, box.y1, box.x2, box.y2];
  const shown = `the box ${corners.map((value) => Number(value.toFixed(2))).join(", ")}`;
  if (!corners.every(Number.isFinite)) return `${shown} has a corner that is no number`;
  if (box.x2 <= box.x1 || box.y2 <= box.y1) return `${shown} is empty or negative in size`;
  const x1 = Math.max(0, box.x1);
  const y1 = Math.max(0, box.y1);
  const x2 = Math.min(width, box.x2);
  const y2 = Math.min(height, box.y2);
  if (x2 <= x1 || y2 <= y1) return `${shown} lies outside of the image, which is ${width} x ${height}`;
  const beyond = Math.max(x1 - box.x1, y1 - box.y1, box.x2 - x2, box.y2 - y2);
  return { box: { ...box, x1, y1, x2, y2 }, wasCut: beyond > ROUNDING };
}

/** Reads and decodes every image; keeps those that can be, with their checked targets. */
async function lookAt<Target>(
  { images, problems: before }: Listing<Target>,
  { mostProblems, inFlight = 4, progress }: DataSetOptions,
  check: (target: Target, size: Size) => { target: Target; problems: readonly string[] },
): Promise<{ examples: Example<Target>[]; problems: Problem[] }> {
  const limit = mostProblems ?? Math.max(10, Math.floor(images.length / 20));
  let found = before.length;
  let done = 0;
  const tooMany = () => found > limit;
  const looked = await mapInFlight(images, inFlight, async (image) => {
    if (tooMany()) return undefined;
    const result = await orProblem(async () => {
      const { bytes, digest } = await readImageFile(image.path);
      const { width, height } = await decodeImage(bytes);
      requireSize({ width, height }, image.listedSize);
      return { digest, size: { width, height } };
    });
    progress?.(++done, images.length);
    if (typeof result === "string") {
      found++;
      return { problems: [{ id: image.id, problem: result }] };
    }
    const { target, problems } = check(image.target, result.size);
    found += problems.length;
    return {
      example: { ...image, ...result, target },
      problems: problems.map((problem) => ({ id: image.id, problem })),
    };
  });
  const problems = [...before, ...looked.flatMap((each) => each?.problems ?? [])];
  if (tooMany()) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `More than ${limit} things in the data cannot be used. ${describe(problems)} Mend the data, or allow more.`,
      { limit, problems },
    );
  }
  const examples = looked.flatMap((each) => each?.example ?? []);
  if (examples.length > 0) return { examples, problems };
  throw new PolyheadError(
    "DATA_MALFORMED",
    `The data has no usable image; expected some to learn from. ${describe(problems)}`,
    { problems },
  );
}

/** Boxes that were drawn on an image turned or scaled otherwise would be wrong without looking wrong. */
function requireSize(found: Size, listed: Size | undefined): void {
  if (!listed || (listed.width === found.width && listed.height === found.height)) return;
  const isTurned = listed.width === found.height && listed.height === found.width;
  throw new PolyheadError(
    "DATA_MALFORMED",
    `The image is ${found.width} x ${found.height}${isTurned ? " when it is upright" : ""}, but listed as ${listed.width} x ${listed.height}.`,
    { got: found, expected: listed },
  );
}

function withoutCopies(examples: readonly Example<number>[], labels: readonly string[]) {
  const first = new Map<string, Example<number>>();
  const copies: string[] = [];
  for (const example of examples) {
    const known = first.get(example.digest);
    if (!known) first.set(example.digest, example);
    else if (known.target === example.target) copies.push(example.id);
    else {
      throw new PolyheadError(
        "DATA_MALFORMED",
        `${known.id} and ${example.id} are the same image in two classes, ${quoted([labels[known.target] ?? "", labels[example.target] ?? ""])}; expected one class an image.`,
        { images: [known.id, example.id] },
      );
    }
  }
  return { kept: [...first.values()], copies };
}

function sealed<Target>(labels: readonly string[], examples: readonly Example<Target>[]) {
  const hash = createHash("sha256").update(JSON.stringify(labels));
  for (const { id, digest, target } of examples) hash.update(`\n${JSON.stringify([id, digest, target])}`);
  return { labels, examples, digest: `sha256:${hash.digest("hex")}` };
}

/** The first few problems as a sentence. */
export function describe(problems: readonly Problem[], most = 5): string {
  if (problems.length === 0) return "";
  const shown = problems.slice(0, most).map(({ id, problem }) => `${id}: ${problem.replace(/\.$/, "")}`);
  const more = problems.length > most ? `; and ${problems.length - most} more` : "";
  return `Left out: ${shown.join("; ")}${more}.`;
}

function quoted(names: readonly string[]): string {
  const shown = names.slice(0, 5).map((name) => JSON.stringify(name));
  return `${shown.join(", ")}${names.length > 5 ? ` and ${names.length - 5} more` : ""}`;
}
