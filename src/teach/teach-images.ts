/** From a backbone and a folder of images to a head: features, what is wrong with the images, the teaching. */
import { basename, relative, resolve } from "node:path";
import { PolyheadError } from "../base/errors.js";
import { imageFolder, type LabelledFile } from "../data/image-folder.js";
import { toEvaluation } from "../onnx/evaluation.js";
import type { Model } from "../onnx/model.js";
import type { OpenModel } from "../onnx/runner.js";
import { preprocessingFor } from "../vision/model-input.js";
import type { Method } from "./classifier.js";
import type { Feature } from "./feature-cache.js";
import { computeFeatures, type ImageFeature } from "./features.js";
import { matrixOf } from "./linear-algebra.js";
import { batchShape, type ChannelPlace, poolingOf } from "./pooling.js";
import { tapSource } from "./tap-source.js";
import { type TaughtHead, type TeachReport, teachHead } from "./teach-head.js";

/** What to teach from. */
export interface TeachImagesOptions {
  readonly backbone: Model;
  /** Name of the backbone for the head's provenance. */
  readonly backboneName?: string;
  /** Value that the head reads; may be left out where there is one only. */
  readonly tap?: string | undefined;
  /** Folder with one folder of images a class. */
  readonly data: string;
  readonly open: OpenModel;
  /** Recipe or JSON record, where the backbone does not say it itself. */
  readonly preprocess?: string | undefined;
  /** Folder for features; nothing is cached without it. */
  readonly cache?: string | undefined;
  readonly channels?: ChannelPlace | undefined;
  readonly folds?: number;
  readonly seed?: number;
  readonly method?: Method | undefined;
  readonly inFlight?: number;
  readonly onFeature?: (done: number, total: number) => void;
  readonly onFold?: (done: number, total: number) => void;
}

/** The report with what became of the files. */
export interface TeachImagesReport extends TeachReport {
  readonly tap: string;
  /** Files that could not be read. */
  readonly unreadable: readonly { readonly path: string; readonly problem: string }[];
  /** Examples whose features were in the cache. */
  readonly cached: number;
}

/**
 * Teaches a head on images.
 * @throws PolyheadError as `imageFolder`, `tapSource`, `preprocessingFor`, `computeFeatures` and `teachHead` do;
 *   DATA_MALFORMED when no image of a class can be read
 */
export async function teachImages(
  options: TeachImagesOptions,
): Promise<Omit<TaughtHead, "report"> & { readonly report: TeachImagesReport }> {
  const { model, notes: evaluationNotes } = toEvaluation(options.backbone);
  const source = await tapSource(model, options.tap);
  const preprocessing = preprocessingFor(model, options.preprocess);
  const { labels, files } = await imageFolder(options.data);
  const results = await computeFeatures({
    source,
    preprocessing,
    paths: files.map(({ path }) => path),
    open: options.open,
    cache: options.cache,
    channels: options.channels,
    ...(options.inFlight !== undefined && { inFlight: options.inFlight }),
    ...(options.onFeature && { progress: options.onFeature }),
  });
  const { examples, unreadable, notes } = sortOut(files, results, options.data);
  refuseEmptyClass(labels, examples, unreadable);
  const shape = examples[0]?.feature.shape ?? [];
  const fallback = preprocessing.layout === "nchw" ? "first" : "last";
  const channels = poolingOf(shape, options.channels, fallback).axes[0] === 2 ? "first" : "last";
  const counts = labels.map((_, at) => examples.filter(({ classIndex }) => classIndex === at).length);
  const taught = teachHead({
    features: matrixOf(examples.map(({ feature }) => feature.values)),
    classes: examples.map(({ classIndex }) => classIndex),
    labels,
    tap: { name: source.tap, dtype: source.dtype, shape: batchShape(shape), identity: source.identity },
    channels,
    preprocessing: { ...preprocessing },
    provenance: {
      ...(options.backboneName !== undefined && { backbone: options.backboneName }),
      data: basename(resolve(options.data)),
      images: Object.fromEntries(labels.map((label, at) => [label, counts[at]])),
    },
    ...(options.folds !== undefined && { folds: options.folds }),
    ...(options.seed !== undefined && { seed: options.seed }),
    ...(options.method && { method: options.method }),
    ...(options.onFold && { progress: options.onFold }),
  });
  return {
    ...taught,
    report: {
      ...taught.report,
      notes: [...evaluationNotes, ...notes, ...taught.report.notes],
      tap: source.tap,
      unreadable,
      cached: examples.filter(({ wasCached }) => wasCached).length,
    },
  };
}

interface Example {
  readonly classIndex: number;
  readonly feature: Feature;
  readonly wasCached: boolean;
}

/** Every image once: a copy of an image in another fold would be an answer that was seen before. */
function sortOut(files: readonly LabelledFile[], results: readonly ImageFeature[], data: string) {
  const examples: Example[] = [];
  const unreadable: { path: string; problem: string }[] = [];
  const seen = new Map<string, LabelledFile>();
  const copies: string[] = [];
  const disputed: string[] = [];
  results.forEach((result, at) => {
    const file = files[at];
    if (!file) return;
    const name = relative(data, file.path);
    if ("problem" in result) {
      unreadable.push({ path: name, problem: result.problem });
      return;
    }
    const first = seen.get(result.digest);
    if (first?.classIndex === file.classIndex) {
      copies.push(name);
      return;
    }
    if (first) disputed.push(`${name} = ${relative(data, first.path)}`);
    else seen.set(result.digest, file);
    const { feature, wasCached } = result;
    examples.push({ classIndex: file.classIndex, feature, wasCached });
  });
  const notes = [
    noteOf(
      unreadable.map(({ path, problem }) => `${path} (${problem})`),
      "could not be read and were left out",
    ),
    noteOf(copies, "are copies of another of their class and were left out"),
    noteOf(disputed, "stand in more than one class"),
  ].flat();
  return { examples, unreadable, notes };
}

function noteOf(names: readonly string[], what: string): string[] {
  if (names.length === 0) return [];
  const more = names.length > 5 ? `, and ${names.length - 5} more` : "";
  return [`${names.length} images ${what}: ${names.slice(0, 5).join(", ")}${more}.`];
}

function refuseEmptyClass(
  labels: readonly string[],
  examples: readonly Example[],
  unreadable: readonly { path: string; problem: string }[],
): void {
  const empty = labels.filter((_, at) => !examples.some(({ classIndex }) => classIndex === at));
  if (empty.length === 0) return;
  throw new PolyheadError(
    "DATA_MALFORMED",
    `No image of ${empty.map((label) => JSON.stringify(label)).join(", ")} could be read; ${unreadable[0]?.path}: ${unreadable[0]?.problem} Replace the images or remove the folder.`,
    { classes: empty, unreadable },
  );
}
