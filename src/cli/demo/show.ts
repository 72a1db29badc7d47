/**
 * What the demo shows: on each photo the backbone runs once, the detector answers, the route is switched, and the
 * classifier answers from the features that are still there.
 */
import { basename, join, parse } from "node:path";
import type { Answer, Engine } from "../../engine/index.js";
import { writeFileAtomic } from "../../files/disk.js";
import { readMetadata } from "../../onnx/metadata.js";
import { classesOf } from "../../vision/classes.js";
import {
  annotate,
  type Classification,
  type Detection,
  decodeDetections,
  decodeImage,
  imageTensor,
  parseDecoding,
  parsePreprocessing,
} from "../../vision/index.js";
import type { Prepared } from "./prepare.js";

/** What happened on one photo; times in milliseconds. */
export interface Shown {
  readonly photo: string;
  readonly picture: string;
  readonly detections: readonly Detection[];
  readonly classes: readonly Classification[];
  /** Decoding and preprocessing of the photo. */
  readonly decode: number;
  /** The detector's answer with the backbone, and within it the backbone alone. */
  readonly detector: number;
  readonly backbone: number;
  /** Pointing the route to the other head. */
  readonly switch: number;
  /** The classifier's answer, from cached features. */
  readonly classifier: number;
  readonly cached: boolean;
}

/** The route that is switched from head to head. */
export const ROUTE = "answer";

/** Loads the models: the backbone, and one route that points to the detector. */
export async function loadHeads(
  engine: Engine,
  { backbone, detector, food }: Prepared,
): Promise<{ backbone: string; detector: string; food: string }> {
  return {
    backbone: await engine.load(backbone),
    detector: await engine.add(ROUTE, detector),
    food: await engine.load(food),
  };
}

/** Shows one photo and writes the annotated picture. */
export async function showPhoto(
  engine: Engine,
  prepared: Prepared,
  revisions: { readonly backbone: string; readonly detector: string; readonly food: string },
  photo: string,
  folder: string,
): Promise<Shown> {
  const { preprocessing } = readMetadata(prepared.backbone);
  const [decoded, decode] = await timed(async () => {
    const image = await decodeImage(photo);
    return { image, ...(await imageTensor(image, parsePreprocessing(preprocessing))) };
  });
  await engine.switch({ [ROUTE]: revisions.detector });
  const [detected, detector] = await timed(() => engine.run([ROUTE], decoded.tensor));
  const [, switched] = await timed(() => engine.switch({ [ROUTE]: revisions.food }));
  const [classified, classifier] = await timed(() => engine.run([ROUTE], decoded.tensor));

  const head = readMetadata(prepared.detector);
  const detections = decodeDetections(
    outputsOf(detected),
    parseDecoding(head.decoding),
    head.labels ?? [],
    decoded.placement,
  );
  const classes = classesOf(outputsOf(classified), readMetadata(prepared.food), 3)?.classes ?? [];
  const picture = join(folder, `${parse(photo).name}.png`);
  await writeFileAtomic(picture, await annotate(decoded.image, detections, classes));
  const shared = detected.ran.filter(({ usedBy }) => usedBy.includes(revisions.backbone));
  return {
    photo: basename(photo),
    picture,
    detections,
    classes,
    decode,
    detector,
    backbone: shared.reduce((sum, { milliseconds }) => sum + milliseconds, 0),
    switch: switched,
    classifier,
    cached: classified.cached,
  };
}

function outputsOf(answer: Answer<typeof ROUTE>) {
  return new Map(Object.entries(answer.routes[ROUTE].outputs));
}

async function timed<T>(work: () => Promise<T>): Promise<[T, number]> {
  const start = performance.now();
  const result = await work();
  return [result, performance.now() - start];
}
