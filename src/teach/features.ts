/**
 * Features of image files, several in flight: while the runtime computes one image, the next ones are read and
 * decoded. Every image runs alone, because a backbone may take one only, and its row must not depend on others.
 */
import { PolyheadError } from "../base/errors.js";
import { mapInFlight } from "../base/in-flight.js";
import { orProblem, readImageFile } from "../data/image-file.js";
import type { OpenedModel, OpenModel } from "../onnx/runner.js";
import { formatShape, sameShape } from "../tensor/shape.js";
import { toNumbers } from "../tensor/tensor.js";
import { decodeImage, imageTensor } from "../vision/image.js";
import type { Preprocessing } from "../vision/preprocessing.js";
import { type Feature, FeatureCache, type FeatureSource } from "./feature-cache.js";
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
  /** Keeps all of the tap, place by place, instead of its mean. */
  readonly whole?: boolean;
  /** Images worked on at a time; 4 by default. */
  readonly inFlight?: number;
  readonly progress?: (done: number, total: number) => void;
}

/** What became of an image: its features, or why it could not be read. */
export type ImageFeature =
  | { readonly path: string; readonly digest: string; readonly feature: Feature; readonly wasCached: boolean }
  | { readonly path: string; readonly problem: string };

/**
 * The features of each file, in the order of `paths`. Images that cannot be read are reported, not thrown.
 * @throws PolyheadError LOAD_FAILED, RUN_FAILED, INPUT_MISMATCH when backbone and preprocessing do not fit,
 *   MODEL_UNSUPPORTED for a tap that cannot be pooled, FILE_NOT_WRITTEN for a cache that cannot be written
 */
export async function computeFeatures(options: FeatureOptions): Promise<ImageFeature[]> {
  const { source, paths, inFlight = 4, progress } = options;
  const model = await options.open(source.model, "all");
  let done = 0;
  const compute = async (path: string) => {
    const result = await featureOf(path, model, options);
    progress?.(++done, paths.length);
    return result;
  };
  const features = await mapInFlight(paths, inFlight, compute).finally(() => model.close());
  requireOneShape(features);
  return features;
}

/**
 * The features of each file that an earlier run left in a cache, in the order of `paths`; for a backbone that is gone.
 * Files without any are reported like those that cannot be read.
 */
export function storedFeatures(
  paths: readonly string[],
  { cache: folder, ...source }: FeatureSource & { readonly cache: string },
): Promise<ImageFeature[]> {
  const cache = new FeatureCache(folder, source);
  return mapInFlight(paths, 4, async (path) => {
    const read = await orProblem(() => readImageFile(path));
    if (typeof read === "string") return { path, problem: read };
    const feature = await cache.read(read.digest);
    if (!feature) return { path, problem: "its features were never computed" };
    return { path, digest: read.digest, feature, wasCached: true };
  });
}

async function featureOf(path: string, model: OpenedModel, options: FeatureOptions): Promise<ImageFeature> {
  const { source, preprocessing, channels, whole = false } = options;
  const cache =
    options.cache === undefined
      ? undefined
      : new FeatureCache(options.cache, { identity: source.identity, preprocessing, channels, whole });
  const read = await orProblem(async () => {
    const { bytes, digest } = await readImageFile(path);
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
  const values = whole
    ? Float32Array.from(toNumbers(value))
    : pooled(value, poolingOf(value.shape, channels, fallback));
  const feature = { shape: value.shape, values };
  await cache?.write(digest, feature);
  return { path, digest, feature, wasCached: false };
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
