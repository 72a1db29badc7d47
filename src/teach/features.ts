/**
 * Features of image files, several in flight: while the runtime computes one image, the next ones are read and
 * decoded. Every image runs alone, because a backbone may take one only, and its row must not depend on others.
 */
import { createHash } from "node:crypto";
import { PolyheadError } from "../base/errors.js";
import { readFileBytes } from "../files/disk.js";
import type { OpenedModel, OpenModel } from "../onnx/runner.js";
import { formatShape, sameShape } from "../tensor/shape.js";
import { decodeImage, imageTensor } from "../vision/image.js";
import type { Preprocessing } from "../vision/preprocessing.js";
import { type Feature, FeatureCache } from "./feature-cache.js";
import { type ChannelPlace, pooled, poolingOf } from "./pooling.js";
import type { TapSource } from "./tap-source.js";

/** How features are computed. */
export interface FeatureOptions {
  readonly source: TapSource;
  readonly preprocessing: Preprocessing;
  /** Image files. */
  readonly paths: readonly string[];
  readonly open: OpenModel;
  /** Folder of the cache; nothing is cached without it. */
  readonly cache?: string | undefined;
  /** Where the tap has its channels; told by its shape by default. */
  readonly channels?: ChannelPlace | undefined;
  /** Images worked on at a time; 4 by default. */
  readonly inFlight?: number;
  readonly progress?: (done: number, total: number) => void;
}

/** What became of an image: its features, or why it could not be read. */
export type ImageFeature =
  | { readonly path: string; readonly digest: string; readonly feature: Feature; readonly wasCached: boolean }
  | { readonly path: string; readonly problem: string };

const LARGEST_FILE = 2 ** 28;
/** What is wrong with one image, and not with the model or the machine. */
const IMAGE_PROBLEMS: ReadonlySet<string> = new Set(["DATA_MALFORMED", "LIMIT_EXCEEDED", "FILE_NOT_FOUND"]);

/**
 * The features of each file, in the order of `paths`. Images that cannot be read are reported, not thrown.
 * @throws PolyheadError LOAD_FAILED, RUN_FAILED, INPUT_MISMATCH when backbone and preprocessing do not fit,
 *   MODEL_UNSUPPORTED for a tap that cannot be pooled, FILE_NOT_WRITTEN for a cache that cannot be written
 */
export async function computeFeatures(options: FeatureOptions): Promise<ImageFeature[]> {
  const { source, paths, inFlight = 4, progress } = options;
  const model = await options.open(source.model, "all");
  const results = new Map<number, ImageFeature>();
  const waiting = paths.entries();
  const work = async () => {
    for (const [at, path] of waiting) {
      results.set(at, await featureOf(path, model, options));
      progress?.(results.size, paths.length);
    }
  };
  try {
    const outcomes = await Promise.allSettled(
      Array.from({ length: inFlight }, () => stopping(work, waiting)),
    );
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  } finally {
    await model.close();
  }
  const features = paths.flatMap((_, at) => results.get(at) ?? []);
  requireOneShape(features);
  return features;
}

/** Runs `work`; when it fails, nobody else begins anything new. */
async function stopping(work: () => Promise<void>, waiting: Iterator<unknown>): Promise<void> {
  try {
    await work();
  } catch (thrown) {
    while (!waiting.next().done);
    throw thrown;
  }
}

async function featureOf(path: string, model: OpenedModel, options: FeatureOptions): Promise<ImageFeature> {
  const { source, preprocessing, channels } = options;
  const cache =
    options.cache === undefined
      ? undefined
      : new FeatureCache(options.cache, { identity: source.identity, preprocessing, channels });
  const read = await reading(async () => {
    const bytes = await readFileBytes(path, LARGEST_FILE);
    const digest = createHash("sha256").update(bytes).digest("hex");
    const known = await cache?.read(digest);
    if (known) return { digest, known };
    return { digest, ...(await imageTensor(await decodeImage(bytes), preprocessing)) };
  });
  if (typeof read === "string") return { path, problem: read };
  const { digest } = read;
  if ("known" in read) return { path, digest, feature: read.known, wasCached: true };
  const value = (await model.run(new Map([[source.input, read.tensor]]))).get(source.tap);
  if (value?.shape[0] !== 1) {
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `The tap ${JSON.stringify(source.tap)} is ${value ? formatShape(value.shape) : "missing"} for one image; expected a first dimension of 1, the batch. Choose another tap.`,
      { tap: source.tap, got: value?.shape },
    );
  }
  const fallback = preprocessing.layout === "nchw" ? "first" : "last";
  const values = pooled(value, poolingOf(value.shape, channels, fallback));
  const feature = { shape: value.shape, values };
  await cache?.write(digest, feature);
  return { path, digest, feature, wasCached: false };
}

/** What `read` gives, or what is wrong with the image. */
async function reading<Result extends object>(read: () => Promise<Result>): Promise<Result | string> {
  try {
    return await read();
  } catch (thrown) {
    if (thrown instanceof PolyheadError && IMAGE_PROBLEMS.has(thrown.code)) return thrown.message;
    throw thrown;
  }
}

function requireOneShape(features: readonly ImageFeature[]): void {
  const shapes = features.flatMap((each) => ("feature" in each ? [each.feature.shape] : []));
  const other = shapes.find((shape) => shapes[0] && !sameShape(shape, shapes[0]));
  if (!other) return;
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The tap has the shape ${formatShape(shapes[0] ?? [])} for one image and ${formatShape(other)} for another; expected one shape for all.`,
    { shapes: [shapes[0], other] },
  );
}
