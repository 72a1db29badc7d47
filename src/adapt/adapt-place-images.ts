/** From images to an adapter for a head that reads maps, tokens or several taps: whole features, one tap at a time. */
import { basename, resolve } from "node:path";
import { PolyheadError } from "../base/errors.js";
import { toEvaluation } from "../onnx/evaluation.js";
import { readMetadata } from "../onnx/metadata.js";
import type { ImageFeature } from "../teach/features.js";
import { float32, type Tensor } from "../tensor/tensor.js";
import { preprocessingFor } from "../vision/model-input.js";
import { parsePreprocessing } from "../vision/preprocessing.js";
import type { AdaptedHead } from "./adapt-head.js";
import { type AdaptPlacesOptions, adaptPlaces, type PlacesOffer } from "./adapt-places.js";
import { copiesNote, leftOutNote, picturesIn } from "./examples.js";
import { fitOptionsOf } from "./fit-options.js";
import type { HeadReading } from "./head-reading.js";
import type { AdaptImagesReport } from "./judgement.js";
import {
  type AdaptImagesOptions,
  type FeatureReader,
  offeredFeatures,
  offersOf,
  ownFeatures,
} from "./sources.js";

/** Bytes of features that are held at once. */
const MOST_BYTES = 2 ** 31;

/**
 * Adapts a head of any taps on images.
 * @throws PolyheadError as `adaptImages` does; LIMIT_EXCEEDED for more features than are held in memory
 */
export async function adaptPlaceImages(
  options: AdaptImagesOptions,
  readings: readonly HeadReading[],
): Promise<Omit<AdaptedHead, "report"> & { readonly report: AdaptImagesReport }> {
  const { head } = options;
  const { labels } = readMetadata(head);
  const { model: to, notes } = toEvaluation(options.to);
  const offers = await offersOf(to, options);
  const readers: FeatureReader[] = [];
  for (const reading of readings) readers.push(await ownFeatures(reading, options, true));
  const pictures = await picturesIn(options.data, labels);
  const others = options.test === undefined ? undefined : await picturesIn(options.test, labels);
  const given = [...pictures.paths, ...(others?.paths ?? [])];
  const isLabelled = pictures.truth !== undefined && (!others || others.truth !== undefined);
  const classes = isLabelled ? [...(pictures.truth ?? []), ...(others?.truth ?? [])] : undefined;
  const total = given.length * (readers.length + offers.length);
  let done = 0;
  const progress = () => options.onFeature?.(Math.min(++done, total), total);
  const read: (readonly ImageFeature[])[] = [];
  for (const reader of readers) {
    read.push(await reader(given, progress));
    requireRoom(read.flat());
  }
  const { kept, problems, copies } = usable(given, read);
  const paths = kept.flatMap((at) => given[at] ?? []);
  if (paths.length === 0) {
    throw new PolyheadError(
      "NOT_FOUND",
      `No image of ${JSON.stringify(options.data)} can be used. ${options.from ? leftOutNote(problems) : "The cache has no features of the head's own backbone for them; give that backbone with --from."}`,
      { path: options.data },
    );
  }
  const fitted = kept.filter((at) => at < pictures.paths.length).length;
  const adapted = await adaptPlaces({
    head,
    readings,
    targets: read.map((each) => kept.flatMap((at) => tensorsOf(each[at]))),
    offers: offers.map(
      (offer): PlacesOffer => ({
        tap: offer.tap,
        pooling: offer.pooling,
        flops: offer.flops,
        read: async () => {
          const found = await offeredFeatures(offer, options, true)(paths, progress);
          requireRoom([...read.flat(), ...found]);
          return found.flatMap(tensorsOf);
        },
      }),
    ),
    truth: classes && kept.map((at) => classes[at] ?? -1),
    ...(others && { testFrom: fitted }),
    input: sizeOf(options),
    ...fitOptionsOf(options),
    provenance: { ...options.names, data: basename(resolve(options.data)) },
    ...(options.onTap && { progress: options.onTap }),
  });
  const isCached = (at: number) =>
    read.every((each) => {
      const found = each[at];
      return found && "feature" in found && found.wasCached;
    });
  const said = [leftOutNote(problems), copiesNote(copies)].filter((note) => note !== "");
  return {
    ...adapted,
    report: {
      ...adapted.report,
      images: pictures.paths.length,
      cached: kept.filter(isCached).length,
      labelled: isLabelled,
      notes: [...notes, ...said],
    },
  };
}

/** Images that the head's own backbone has all features of, each once. */
function usable(paths: readonly string[], read: readonly (readonly ImageFeature[])[]) {
  const kept: number[] = [];
  const problems: string[] = [];
  const seen = new Set<string>();
  let copies = 0;
  paths.forEach((path, at) => {
    const found = read.map((each) => each[at]);
    const problem = found.find((each) => each && "problem" in each);
    if (problem && "problem" in problem) problems.push(`${path} (${problem.problem})`);
    const [first] = found.flatMap((each) => (each && "digest" in each ? [each.digest] : []));
    if (problem || first === undefined) return;
    if (seen.has(first)) copies++;
    else kept.push(at);
    seen.add(first);
  });
  return { kept, problems, copies };
}

function tensorsOf(each: ImageFeature | undefined): Tensor[] {
  return each && "feature" in each ? [float32(each.feature.shape, each.feature.values)] : [];
}

/** The picture that the head's own backbone takes. */
function sizeOf({ from, head, fromPreprocess }: AdaptImagesOptions): AdaptPlacesOptions["input"] {
  const said = readMetadata(head).preprocessing;
  if (!from && said === undefined) return { width: 1, height: 1 };
  return from ? preprocessingFor(from, fromPreprocess) : parsePreprocessing(said);
}

function requireRoom(features: readonly ImageFeature[]): void {
  const bytes = features.reduce(
    (sum, each) => sum + ("feature" in each ? each.feature.values.byteLength : 0),
    0,
  );
  if (bytes <= MOST_BYTES) return;
  throw new PolyheadError(
    "LIMIT_EXCEEDED",
    `The maps of these images take ${bytes} bytes; at most ${MOST_BYTES} are held. Give fewer images, or a smaller tap with --tap.`,
    { got: bytes, limit: MOST_BYTES },
  );
}
