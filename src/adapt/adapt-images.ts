/**
 * From a head, a backbone that it was not made for and a folder of images to an adapter. The head's own features come
 * from its backbone or, where that is gone, from the features on disk that were computed with it.
 */
import { basename, resolve } from "node:path";
import { PolyheadError } from "../base/errors.js";
import { toEvaluation } from "../onnx/evaluation.js";
import { readMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { type AdaptedHead, adaptHead, type TapOffer } from "./adapt-head.js";
import { adaptPlaceImages } from "./adapt-place-images.js";
import { type Agreement, agreementOf, answersOf } from "./agreement.js";
import { type Examples, examplesOf, type Pictures, picturesIn } from "./examples.js";
import { fitOptionsOf } from "./fit-options.js";
import { runOn } from "./fold.js";
import { type HeadReading, headFromVector, readingsOf } from "./head-reading.js";
import type { AdaptImagesReport } from "./judgement.js";
import { type AdaptImagesOptions, type Offer, offeredFeatures, offersOf, ownFeatures } from "./sources.js";

/**
 * Adapts a head on images.
 * @throws PolyheadError HEAD_MISMATCH when `from` does not make what the head reads; NOT_FOUND when it is not given and
 *   the cache has nothing of it; and as `picturesIn`, `tapSource`, `preprocessingFor`, `computeFeatures`, `adaptHead` and
 *   `adaptPlaces` do
 */
export async function adaptImages(
  options: AdaptImagesOptions,
): Promise<Omit<AdaptedHead, "report"> & { readonly report: AdaptImagesReport }> {
  const { head, data } = options;
  const readings = readingsOf(head);
  const [reading] = readings;
  if (reading?.vector === undefined || readings.length > 1) return adaptPlaceImages(options, readings);
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
    ...fitOptionsOf(options),
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
    for (const offer of offers) results.push(await offeredFeatures(offer, options)(paths, progress));
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
    `The head reads ${readings.map(({ tap, kind }) => `${JSON.stringify(tap.name)} as ${kind}`).join(", ")}; as it is, only a head that reads one vector, or the mean of one map, is judged.`,
    { readings: readings.map(({ input, kind }) => ({ input, kind })) },
  );
}

function nothingLeft({ from, data }: AdaptImagesOptions, notes: readonly string[]): PolyheadError {
  const why = from
    ? notes.join(" ")
    : "The cache has no features of the head's own backbone for them; give that backbone with --from.";
  return new PolyheadError("NOT_FOUND", `No image of ${JSON.stringify(data)} can be used. ${why}`, {
    path: data,
  });
}
