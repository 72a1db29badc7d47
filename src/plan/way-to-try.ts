/** What measuring a way to a head takes, and what all ways have in common: accuracy on other images, and an idea of time. */
import { answersOf, type Share, shareOf } from "../adapt/agreement.js";
import { picturesIn } from "../adapt/examples.js";
import type { AdaptImagesOptions } from "../adapt/sources.js";
import { PolyheadError } from "../base/errors.js";
import { mapInFlight } from "../base/in-flight.js";
import type { Engine } from "../engine/index.js";
import { GraphIndex } from "../onnx/graph.js";
import { joinModels } from "../onnx/join.js";
import { readMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { decodeImage, imageTensor } from "../vision/image.js";
import { accuracy } from "../vision/metrics.js";
import { preprocessingFor } from "../vision/model-input.js";
import type { MadeWay } from "./measured.js";
import type { Finding } from "./reasoning.js";
import type { Candidate } from "./request-cost.js";

/** What to measure with. */
export interface MeasureOptions extends Omit<AdaptImagesOptions, "floor" | "names" | "rungs"> {
  readonly finding: Finding;
  /** Heads that live on the backbone already. */
  readonly others: readonly { readonly name: string; readonly head: Model }[];
  readonly openEngine: () => Promise<Engine>;
  /** Seconds after which no further way is begun, and training ends. */
  readonly budgetSeconds: number;
  /** Threads to train with; 1 by default. */
  readonly threads?: number | undefined;
  /** Names of the files, for the commands. */
  readonly files: {
    readonly head: string;
    readonly backbone: string;
    readonly from?: string | undefined;
    readonly data: string;
  };
  readonly onWay?: (how: string) => void;
}

/** What is known when a way is begun. */
export interface Known {
  /** Milliseconds of the backbone for one image. */
  readonly forward: number;
  /** Images to make it of. */
  readonly images: number;
  /** The tap on which a new head did best, where that was measured. */
  readonly tap: string | undefined;
  /** When, by `performance.now`, there is no more time. */
  readonly end: number;
}

/** What a way made. */
export interface Made
  extends Pick<MadeWay, "quality" | "measure" | "judgedOn" | "data" | "command" | "files">,
    Partial<Pick<MadeWay, "how" | "others">> {
  readonly candidate: Candidate;
  readonly tap?: string;
}

/** A way that may be tried. */
export interface WayToTry {
  readonly way: MadeWay["way"];
  readonly name: string;
  readonly how: string;
  /** About how many seconds it takes. */
  readonly estimate: (known: Known) => number;
  /** Whether it is begun only when that much time is left. */
  readonly isLong?: boolean;
  readonly make: (known: Known) => Promise<Made>;
}

/** Nothing happens to heads whose graphs stay as they are. */
export const UNTOUCHED = "none: backbone and heads stay as they are";

/** Taps that may be read. */
export function tapNames({ to, taps }: Pick<MeasureOptions, "to" | "taps">): readonly string[] {
  return taps ?? readMetadata(to).taps?.map(({ name }) => name) ?? new GraphIndex(to.graph).outputNames;
}

/** An option of a line for the shell, with its value quoted where it has to be; nothing for no value. */
export function option(name: string, value: string | undefined): string {
  if (value === undefined) return "";
  const isPlain = /^[\w./:,=@%+-]+$/.test(value);
  return ` --${name} ${isPlain ? value : `'${value.replaceAll("'", "'\\''")}'`}`;
}

/** Why nothing is trained: the classes are not known. */
export function noClasses(): PolyheadError {
  return new PolyheadError(
    "INVALID_ARGUMENT",
    "the images stand in no folders named like the head's labels",
    {},
  );
}

/** Images in flight at a time. */
const IN_FLIGHT = 4;

/**
 * Accuracy of a head behind its backbone on a folder of images of known classes.
 * @throws PolyheadError INVALID_ARGUMENT for classes that are not known, and as reading images does
 */
export async function accuracyOn(
  head: Model,
  backbone: Model,
  folder: string,
  { open, toPreprocess }: Pick<MeasureOptions, "open" | "toPreprocess">,
): Promise<Share> {
  const metadata = readMetadata(head);
  const { paths, truth } = await picturesIn(folder, metadata.labels);
  if (!truth)
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "the test images stand in no folders named like the labels",
      {},
    );
  const preprocessing = preprocessingFor(backbone, toPreprocess);
  const whole = await joinModels(backbone, head);
  const [input] = new GraphIndex(whole.graph).inputs;
  const opened = await open(whole, "all");
  try {
    const classes = await mapInFlight(paths, IN_FLIGHT, async (path) => {
      const { tensor } = await imageTensor(await decodeImage(path), preprocessing);
      const outputs = await opened.run(new Map([[input?.name ?? "", tensor]]));
      return answersOf(outputs, metadata).classes?.[0] ?? -1;
    });
    return shareOf(accuracy(truth, classes), truth.length);
  } finally {
    await opened.close();
  }
}
