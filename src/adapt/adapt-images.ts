/**
 * From a head, a backbone that it was not made for and a folder of images to an adapter. The head's own features come
 * from its backbone or, where that is gone, from the features on disk that were computed with it.
 */
import { basename, resolve } from "node:path";
import { PolyheadError } from "../base/errors.js";
import { costOf } from "../onnx/cost.js";
import { toEvaluation } from "../onnx/evaluation.js";
import { GraphIndex } from "../onnx/graph.js";
import { identify } from "../onnx/identity.js";
import { readMetadata, type Tap } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import type { OpenModel } from "../onnx/runner.js";
import { inferTypes } from "../onnx/shapes.js";
import { computeFeatures, type ImageFeature, storedFeatures } from "../teach/features.js";
import { batchShape, type ChannelPlace, poolingOf } from "../teach/pooling.js";
import { type TapSource, tapSource } from "../teach/tap-source.js";
import { preprocessingFor } from "../vision/model-input.js";
import { type Preprocessing, parsePreprocessing } from "../vision/preprocessing.js";
import { type AdaptedHead, type AdaptReport, adaptHead, type TapOffer } from "./adapt-head.js";
import { type Agreement, agreementOf, answersOf } from "./agreement.js";
import { type Examples, examplesOf, type Pictures, picturesIn } from "./examples.js";
import { runOn } from "./fold.js";
import { type HeadReading, headFromVector, readingsOf } from "./head-reading.js";
import type { RungName } from "./ladder.js";

/** What to adapt, and on what. */
export interface AdaptImagesOptions {
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
  readonly open: OpenModel;
  /** Folder for features; nothing is cached without it. */
  readonly cache?: string | undefined;
  readonly rungs?: readonly RungName[] | undefined;
  readonly folds?: number;
  readonly seed?: number;
  readonly floor?: number;
  readonly inFlight?: number;
  /** Names for the provenance. */
  readonly names?: Readonly<Record<string, string>>;
  readonly onFeature?: (done: number, total: number) => void;
  readonly onTap?: (done: number, total: number) => void;
}

/** The report with what became of the images. */
export interface AdaptImagesReport extends AdaptReport {
  readonly images: number;
  /** Images whose features were all in the cache. */
  readonly cached: number;
  /** Whether the images' classes are known. */
  readonly labelled: boolean;
  readonly notes: readonly string[];
}

/**
 * Adapts a head on images.
 * @throws PolyheadError HEAD_MISMATCH when `from` does not make what the head reads; NOT_FOUND when it is not given and
 *   the cache has nothing of it; MODEL_UNSUPPORTED for heads that read maps or several taps; and as `picturesIn`,
 *   `tapSource`, `preprocessingFor`, `computeFeatures` and `adaptHead` do
 */
export async function adaptImages(
  options: AdaptImagesOptions,
): Promise<Omit<AdaptedHead, "report"> & { readonly report: AdaptImagesReport }> {
  const { head, data } = options;
  const reading = vectorReading(head);
  const { model: to, notes } = toEvaluation(options.to);
  const offers = await offersOf(to, options);
  const { pictures, fitted, judged } = await collect(reading, offers, options);
  const { target, features } = sidesOf(fitted, options);
  const [testTarget, ...testFeatures] = judged?.features ?? [];
  const adapted = await adaptHead({
    head,
    reading,
    target,
    offers: offers.flatMap(({ tap, pooling, flops }, at): TapOffer[] => {
      const own = features[at];
      return own ? [{ tap, pooling, flops, features: own }] : [];
    }),
    truth: fitted.truth,
    ...(judged &&
      testTarget && { test: { target: testTarget, features: testFeatures, truth: judged.truth } }),
    open: options.open,
    rungs: options.rungs,
    ...(options.folds !== undefined && { folds: options.folds }),
    ...(options.seed !== undefined && { seed: options.seed }),
    ...(options.floor !== undefined && { floor: options.floor }),
    provenance: { ...options.names, data: basename(resolve(data)) },
    ...(options.onTap && { progress: options.onTap }),
  });
  const report = {
    ...adapted.report,
    images: pictures.paths.length,
    cached: fitted.cached,
    labelled: fitted.truth !== undefined,
    notes: [...notes, ...fitted.notes, ...(judged?.notes ?? [])],
  };
  return { ...adapted, report };
}

/**
 * What a head makes of a tap that it was not made for, as it is: what an adapter has to do better than.
 * @param options with exactly one tap, of as many channels as the head reads
 * @throws PolyheadError as {@link adaptImages} does
 */
export async function judgeUnadapted(options: AdaptImagesOptions): Promise<Agreement> {
  const { head, open } = options;
  const reading = vectorReading(head);
  const offers = await offersOf(toEvaluation(options.to).model, options);
  const { fitted, judged } = await collect(reading, offers, options);
  const { truth } = judged ?? fitted;
  const { target, features } = sidesOf(judged ?? fitted, options);
  const [source] = features;
  if (source?.columns !== reading.width || features.length !== 1) {
    throw new PolyheadError(
      "HEAD_MISMATCH",
      `The head reads ${reading.width} features; the tap has ${source?.columns}.`,
      { expected: reading.width, got: source?.columns },
    );
  }
  const rest = headFromVector(head, reading);
  const [native, got] = [target, source].map((each) => runOn(rest, each, open));
  const metadata = readMetadata(head);
  return agreementOf(
    answersOf((await native) ?? new Map(), metadata),
    answersOf((await got) ?? new Map(), metadata),
    truth,
  );
}

/** The features of all images on both sides: those to fit on, and those to judge on where they are apart. */
async function collect(reading: HeadReading, offers: readonly Offer[], options: AdaptImagesOptions) {
  const own = await ownFeatures(reading, options);
  const { labels } = readMetadata(options.head);
  const pictures = await picturesIn(options.data, labels);
  const others = options.test === undefined ? undefined : await picturesIn(options.test, labels);
  const total = (pictures.paths.length + (others?.paths.length ?? 0)) * (offers.length + 1);
  let done = 0;
  const progress = () => options.onFeature?.(++done, total);
  const examplesIn = async (each: Pictures): Promise<Examples> => {
    const { paths } = each;
    const results = [await own(paths, progress)];
    for (const { source, preprocessing } of offers)
      results.push(await computeFeatures({ ...common(options), source, preprocessing, paths, progress }));
    return examplesOf(each, results);
  };
  const fitted = await examplesIn(pictures);
  return { pictures, fitted, judged: others && (await examplesIn(others)) };
}

/** @throws PolyheadError NOT_FOUND when no image has features on both sides */
function sidesOf({ features, notes }: Examples, options: AdaptImagesOptions) {
  const [target, ...rest] = features;
  if (target && target.rows > 0) return { target, features: rest };
  throw nothingLeft(options, notes);
}

/**
 * The one vector that a head reads.
 * @throws PolyheadError MODEL_UNSUPPORTED
 */
function vectorReading(head: Model): HeadReading {
  const readings = readingsOf(head);
  const [reading] = readings;
  if (reading?.vector !== undefined && readings.length === 1) return reading;
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The head reads ${readings.map(({ tap, kind }) => `${JSON.stringify(tap.name)} as ${kind}`).join(", ")}; adapters are fitted for heads that read one vector, or the mean of one map. Train a head on the new backbone instead.`,
    { readings: readings.map(({ input, kind }) => ({ input, kind })) },
  );
}

interface Offer extends Omit<TapOffer, "features"> {
  readonly source: TapSource;
  readonly preprocessing: Preprocessing;
}

/** The taps of the new backbone that may be read, within the budget. */
async function offersOf(to: Model, options: AdaptImagesOptions): Promise<Offer[]> {
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

/** What computes, or finds, the features that the head was trained on. */
async function ownFeatures(
  reading: HeadReading,
  options: AdaptImagesOptions,
): Promise<(paths: readonly string[], progress: () => void) => Promise<ImageFeature[]>> {
  const channels = channelsOf(reading);
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
    const where = { cache, identity, channels, preprocessing: parsePreprocessing(preprocessing) };
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
    computeFeatures({ ...common(options), source, preprocessing, paths, progress, channels });
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

function nothingLeft({ from, data }: AdaptImagesOptions, notes: readonly string[]): PolyheadError {
  const why = from
    ? notes.join(" ")
    : "The cache has no features of the head's own backbone for them; give that backbone with --from.";
  return new PolyheadError("NOT_FOUND", `No image of ${JSON.stringify(data)} can be used. ${why}`, {
    path: data,
  });
}
