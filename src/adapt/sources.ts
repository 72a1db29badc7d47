/**
 * Where the features on both sides come from: the taps that the new backbone offers, and what the head was trained on,
 * computed by its own backbone or, where that is gone, found among the features on disk.
 */
import { PolyheadError } from "../base/errors.js";
import { costOf } from "../onnx/cost.js";
import { toEvaluation } from "../onnx/evaluation.js";
import { GraphIndex } from "../onnx/graph.js";
import { identify } from "../onnx/identity.js";
import { readMetadata, type Tap } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import { computeFeatures, type ImageFeature, storedFeatures } from "../teach/features.js";
import { batchShape, type ChannelPlace, type Pooling, poolingOf } from "../teach/pooling.js";
import { type TapSource, tapSource } from "../teach/tap-source.js";
import { preprocessingFor } from "../vision/model-input.js";
import { type Preprocessing, parsePreprocessing } from "../vision/preprocessing.js";
import type { FitOptions } from "./fit-options.js";
import type { HeadReading } from "./head-reading.js";

/** What to adapt, and on what. */
export interface AdaptImagesOptions extends FitOptions {
  readonly head: Model;
  /** The backbone that the head was made for; without it its features must be in the cache. */
  readonly from?: Model | undefined;
  /** The backbone that the head is to read. */
  readonly to: Model;
  /** Taps to try; all by default. */
  readonly taps?: readonly string[] | undefined;
  /** Taps that cost more floating-point operations than this are not tried. */
  readonly budget?: number | undefined;
  /** Folder of images; folders in it that are named like the head's labels say the classes. */
  readonly data: string;
  /** Folder of other images to judge on. */
  readonly test?: string | undefined;
  /** Recipes or records of preprocessing, where the backbones do not say it. */
  readonly fromPreprocess?: string | undefined;
  readonly toPreprocess?: string | undefined;
  /** Folder for features; nothing is cached without it. */
  readonly cache?: string | undefined;
  readonly inFlight?: number;
  /** Names for the provenance. */
  readonly names?: Readonly<Record<string, string>>;
  readonly onFeature?: (done: number, total: number) => void;
  readonly onTap?: (done: number, total: number) => void;
}

/** A tap of the new backbone, and what computes it. */
export interface Offer {
  readonly tap: Tap;
  /** How the tap becomes a vector. */
  readonly pooling: Pooling;
  /** Floating-point operations up to the tap. */
  readonly flops: number;
  readonly source: TapSource;
  readonly preprocessing: Preprocessing;
}

/**
 * The taps of the new backbone that may be read, within the budget.
 * @throws PolyheadError INVALID_ARGUMENT when all cost more, and as `tapSource`, `preprocessingFor` and `poolingOf` do
 */
export async function offersOf(to: Model, options: AdaptImagesOptions): Promise<Offer[]> {
  const preprocessing = preprocessingFor(to, options.toPreprocess);
  const index = new GraphIndex(to.graph);
  const names = options.taps ?? readMetadata(to).taps?.map(({ name }) => name) ?? index.outputNames;
  const types = inferTypes(to);
  const offers: Offer[] = [];
  const dear: string[] = [];
  for (const name of names) {
    const source = await tapSource(to, name);
    const shape = types.get(name)?.shape;
    const fallback = preprocessing.layout === "nchw" ? "first" : "last";
    const pooling = poolingOf(shape ?? [], undefined, fallback);
    const part = new GraphIndex(source.model.graph);
    const { flops } = costOf(part.order, part, types);
    if (flops > (options.budget ?? Number.POSITIVE_INFINITY)) {
      dear.push(`${name} (${flops})`);
      continue;
    }
    const tap: Tap = {
      name: source.tap,
      dtype: source.dtype,
      shape: batchShape((shape ?? []).map((size) => (typeof size === "number" ? size : 1))),
      identity: source.identity,
    };
    offers.push({
      source,
      preprocessing,
      tap: { ...tap, shape: openShape(tap.shape, shape) },
      pooling,
      flops,
    });
  }
  if (offers.length > 0) return offers;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `No tap of the backbone costs at most ${options.budget} FLOPs; they cost ${dear.join(", ")}. Raise --budget.`,
    { budget: options.budget, got: dear },
  );
}

/** Open sizes stay open. */
function openShape(fixed: Tap["shape"], declared: Tap["shape"] | undefined): Tap["shape"] {
  return fixed.map((size, axis) => {
    const own = declared?.[axis];
    return axis > 0 && typeof own === "string" ? own : size;
  });
}

/** Features of image files by one of the two backbones, in their order; `progress` is told of each. */
export type FeatureReader = (
  paths: readonly string[],
  progress: () => void,
) => Promise<readonly ImageFeature[]>;

/**
 * What computes, or finds, the features that the head was trained on.
 * @param whole all of the tap, place by place, instead of its mean
 * @throws PolyheadError HEAD_MISMATCH when the backbone given as the head's own does not make them, INVALID_ARGUMENT when
 *   none is given and the cache cannot be asked
 */
export async function ownFeatures(
  reading: HeadReading,
  options: AdaptImagesOptions,
  whole = false,
): Promise<FeatureReader> {
  const channels = whole ? undefined : channelsOf(reading);
  if (!options.from) {
    const { preprocessing } = readMetadata(options.head);
    const { cache } = options;
    if (preprocessing === undefined || cache === undefined) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        "The backbone that the head was made for is not given; its features are looked up on disk then, which takes a head that says its preprocessing and a cache. Give the backbone with --from.",
        {},
      );
    }
    const { identity } = reading.tap;
    const where = { cache, identity, channels, whole, preprocessing: parsePreprocessing(preprocessing) };
    return async (paths, progress) => {
      const found = await storedFeatures(paths, where);
      for (const _ of paths) progress();
      return found;
    };
  }
  const { model } = toEvaluation(options.from);
  const wanted = reading.tap.identity;
  const name = [...(await identify(model))].find(([, identity]) => identity === wanted)?.[0];
  if (name === undefined) {
    throw new PolyheadError(
      "HEAD_MISMATCH",
      `The head reads ${JSON.stringify(reading.tap.name)} of identity ${wanted}, which this backbone does not make; give the backbone that the head was trained on with --from.`,
      { expected: reading.tap },
    );
  }
  const source = await tapSource(model, name);
  const preprocessing = preprocessingFor(model, options.fromPreprocess);
  return (paths, progress) =>
    computeFeatures({ ...common(options), source, preprocessing, paths, progress, channels, whole });
}

/** What computes the features of a tap of the new backbone. */
export function offeredFeatures(
  { source, preprocessing }: Offer,
  options: AdaptImagesOptions,
  whole = false,
): FeatureReader {
  return (paths, progress) =>
    computeFeatures({ ...common(options), source, preprocessing, paths, progress, whole });
}

/** Where the head has its channels, when the shape of its tap does not say so by itself. */
function channelsOf({ tap, channelAxis }: HeadReading): ChannelPlace | undefined {
  if (tap.shape.length < 4) return undefined;
  const told = poolingOf(tap.shape);
  return told.axes.includes(channelAxis) ? (channelAxis === 1 ? "first" : "last") : undefined;
}

function common({ open, cache, inFlight }: AdaptImagesOptions) {
  return { open, cache, ...(inFlight !== undefined && { inFlight }) };
}
