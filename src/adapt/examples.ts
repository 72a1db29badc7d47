/**
 * The images that an adapter is fitted and judged on: their features from both backbones, each image once, and their
 * classes where the folders they stand in are the head's own labels.
 */
import { relative } from "node:path";
import { PolyheadError } from "../base/errors.js";
import { imagesBelow } from "../data/image-folder.js";
import type { Feature } from "../teach/feature-cache.js";
import type { ImageFeature } from "../teach/features.js";
import { type Matrix, matrixOf } from "../teach/linear-algebra.js";

/** Image files, with the head's class of each where it is known. */
export interface Pictures {
  readonly paths: readonly string[];
  /** Places in the head's labels; undefined when the folders do not tell. */
  readonly truth: readonly number[] | undefined;
}

/** Features of the images that every source has. */
export interface Examples {
  /** Matrix of each source, in their order; equal rows are of one image. */
  readonly features: readonly Matrix[];
  readonly truth: readonly number[] | undefined;
  /** Images whose features were in the cache everywhere. */
  readonly cached: number;
  /** What became of the others. */
  readonly notes: readonly string[];
}

/**
 * The images below a folder. When each stands in a folder that is named like one of the labels, that is its class.
 * @throws PolyheadError FILE_NOT_FOUND for no such folder; DATA_MALFORMED for no image in it
 */
export async function picturesIn(folder: string, labels: readonly string[] = []): Promise<Pictures> {
  const paths = await imagesBelow(folder);
  if (paths.length === 0) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `No images (jpg, jpeg, png, webp) below ${JSON.stringify(folder)}.`,
      { path: folder },
    );
  }
  const classes = paths.map((path) => labels.indexOf(relative(folder, path).split(/[\\/]/)[0] ?? ""));
  return { paths, truth: classes.every((each) => each >= 0) ? classes : undefined };
}

/**
 * Puts together what each source has of the same images; an image that one of them lacks is left out of all, and so is
 * a copy of an earlier one.
 * @param results of each source, in the order of the pictures
 */
export function examplesOf(
  { paths, truth }: Pictures,
  results: readonly (readonly ImageFeature[])[],
): Examples {
  const rows: Feature[][] = [];
  const kept: number[] = [];
  const seen = new Set<string>();
  const problems: string[] = [];
  let [copies, cached] = [0, 0];
  paths.forEach((path, at) => {
    const found = results.map((each) => each[at]);
    const problem = found.find((each) => each && "problem" in each);
    if (problem && "problem" in problem) problems.push(`${path} (${problem.problem})`);
    const good = found.flatMap((each) => (each && "feature" in each ? [each] : []));
    const [first] = good;
    if (!first || good.length < results.length) return;
    if (seen.has(first.digest)) {
      copies++;
      return;
    }
    seen.add(first.digest);
    if (good.every(({ wasCached }) => wasCached)) cached++;
    rows.push(good.map(({ feature }) => feature));
    kept.push(at);
  });
  return {
    features: results.map((_, source) =>
      matrixOf(rows.flatMap((own) => (own[source]?.values.length ? [own[source].values] : []))),
    ),
    truth: truth && kept.map((at) => truth[at] ?? -1),
    cached,
    notes: [leftOutNote(problems), copiesNote(copies)].filter((note) => note !== ""),
  };
}

/** Says which images were left out and why; nothing where none was. */
export function leftOutNote(problems: readonly string[]): string {
  if (problems.length === 0) return "";
  const others = problems.length > 5 ? ", and others" : "";
  return `${problems.length} images were left out: ${problems.slice(0, 5).join(", ")}${others}.`;
}

/** Says how many images are copies; nothing where none is. */
export function copiesNote(copies: number): string {
  return copies === 0 ? "" : `${copies} images are copies of others and were left out.`;
}
