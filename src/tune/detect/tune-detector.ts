/**
 * The way `detect`: a centre head on one or several maps of a backbone, trained on boxes, and judged on images that were
 * held back. The backbone stays what it is, so that all other heads do; or all of it is trained with the head, and the
 * result is a whole model of its own.
 */
import { PolyheadError } from "../../base/errors.js";
import type { Augmentation } from "../../data/augmentation.js";
import { boxDataSet, type DataSetOptions, type Example, rarestClasses } from "../../data/data-set.js";
import { stratifiedSplit } from "../../data/folds.js";
import { boxRows } from "../../data/image-rows.js";
import type { BoxListing, Problem } from "../../data/listing.js";
import { Checkpoints } from "../../files/checkpoint.js";
import { extract } from "../../onnx/extract.js";
import { GraphIndex } from "../../onnx/graph.js";
import { identify } from "../../onnx/identity.js";
import { joinModels } from "../../onnx/join.js";
import { type Tap, withMetadata } from "../../onnx/metadata.js";
import type { Model } from "../../onnx/model.js";
import { revisionOf } from "../../onnx/revision.js";
import { inferTypes } from "../../onnx/shapes.js";
import { openModelOn } from "../../runtime/open-model.js";
import type { Runtime } from "../../runtime/runtime.js";
import type { NormMode } from "../../train/batch-norms.js";
import { TrainingModel } from "../../train/training-model.js";
import {
  type DetectionQuality,
  type PrecisionDeviation,
  precisionDeviation,
} from "../../vision/average-precision.js";
import { parseDecoding } from "../../vision/decoding.js";
import type { ObjectBox } from "../../vision/detections.js";
import { placeImage } from "../../vision/placement.js";
import type { Preprocessing } from "../../vision/preprocessing.js";
import { type FitSettings, type FitStep, fitModel } from "../fit.js";
import { centreNetwork } from "./centre-network.js";
import { centreTerms } from "./centre-terms.js";
import { detectionSite } from "./detection-site.js";
import { type JudgeOptions, judgeDetector } from "./judge-detector.js";
import { type DetectionMistake, detectionMistakes } from "./mistakes.js";

/** Mistakes that are handed out. */
const MOST_MISTAKES = 24;

/** What to train, and on what. */
export interface TuneDetectorOptions extends FitSettings {
  readonly backbone: Model;
  /** Maps that the head reads; all taps of the backbone that are maps by default. */
  readonly taps?: readonly string[] | undefined;
  readonly listing: BoxListing;
  /** Of one worker. */
  readonly runtime: Runtime;
  /** `head` leaves the backbone as it is (the default), `all` trains it too. */
  readonly trains?: "head" | "all";
  /** Recipe or JSON record, where the backbone does not say it itself. */
  readonly preprocess?: string | undefined;
  /** What batch norms do where all is trained; frozen by default. */
  readonly norms?: NormMode | undefined;
  /** Random views of the training images. */
  readonly augmentation?: Augmentation | undefined;
  /** Channels inside the head; 64 by default. */
  readonly width?: number | undefined;
  /** Share of the images that is held back to judge by; 0.2 by default. */
  readonly validation?: number | undefined;
  /** Scores below count for nothing when the detector serves; 0.3 by default. */
  readonly threshold?: number | undefined;
  readonly dataSet?: DataSetOptions;
  /** Folder where the training is kept while it goes on; it stays there until it is removed. */
  readonly checkpoints?: string | undefined;
  readonly checkpointSteps?: number | undefined;
  readonly threads?: number | undefined;
  /** Computes activations again in the backward part rather than keep them, where that saves memory; it takes longer. */
  readonly recompute?: boolean | undefined;
  readonly onStep?: ((step: FitStep) => void) | undefined;
  /** Where everything came from; kept in the metadata. */
  readonly provenance?: Readonly<Record<string, unknown>>;
}

/** What came out. */
export interface TunedDetector {
  /** The head, or the whole model where all was trained. */
  readonly model: Model;
  readonly report: DetectorReport;
  /** The worst ones on images held back, the surest first. */
  readonly mistakes: readonly DetectionMistake[];
}

/** How the detector was made and how good it is. */
export interface DetectorReport {
  readonly labels: readonly string[];
  readonly taps: readonly string[];
  /** Pixels of the model's input that a cell of the answer is wide and high. */
  readonly stride: number;
  readonly images: { readonly training: number; readonly validation: number };
  readonly objects: { readonly training: number; readonly validation: number };
  /** On the images that were held back. */
  readonly quality: DetectionQuality;
  /** The spread that comes from which images were held back. */
  readonly deviation: PrecisionDeviation;
  readonly losses: readonly number[];
  /** Average precision at 0.50 after each epoch; empty without patience. */
  readonly qualities: readonly number[];
  readonly epoch: number;
  /** Steps in an epoch. */
  readonly perEpoch: number;
  readonly parameters: number;
  /** Objects to learn from of each class, by number. */
  readonly counts: readonly number[];
  readonly settings: Readonly<Record<string, unknown>>;
  readonly digest: string;
  readonly problems: readonly Problem[];
  readonly notes: readonly string[];
}

/**
 * Trains a detector.
 * @throws PolyheadError as `detectionSite`, `boxDataSet`, `stratifiedSplit` and `fitModel` do; DATA_MALFORMED when
 *   nothing would be left to learn from or to judge by
 */
export async function tuneDetector(options: TuneDetectorOptions): Promise<TunedDetector> {
  const { runtime, trains = "head", norms, width = 64, validation = 0.2, threshold = 0.3 } = options;
  const { seed, threads, recompute } = options;
  const site = await detectionSite(options.backbone, options.taps, options.preprocess);
  const { preprocessing, maps } = site;
  const data = await boxDataSet(options.listing, options.dataSet);
  const split = stratifiedSplit(
    rarestClasses(data),
    validation,
    seed,
    data.examples.map(({ digest }) => digest),
  );
  const [training, held] = [split.training, split.validation].map((places) =>
    places.flatMap((at) => data.examples[at] ?? []),
  );
  const countOf = (examples: typeof training, ofClass?: number) =>
    examples
      ?.flatMap(({ target }) => target)
      .filter((each) => !each.isIgnored && (ofClass === undefined || each.classIndex === ofClass)).length ??
    0;
  if (!training || !held || countOf(training) === 0 || countOf(held) === 0) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `${countOf(training)} objects would be learned from and ${countOf(held)} held back to judge by; expected some of each. Add images, or hold back another share.`,
      { images: data.examples.length, validation },
    );
  }

  const [{ height, width: across, stride }] = maps;
  const size = usualSize(training, preprocessing) / stride;
  const { model: network, names } = centreNetwork(maps, data.labels.length, { width, size, seed });
  const taps = maps.map(({ tap }) => tap);
  const whole = await joinModels(site.model, withMetadata(network, { role: "head", taps }));
  const trainable = new TrainingModel(whole, { norms });
  const headOf = await headFinder(whole, taps, Object.values(names));
  const own = new Set(headOf(trainable.model).graph.initializer.map(({ name }) => name));
  const parameters =
    trains === "all" ? trainable.parameters : trainable.parameters.filter((name) => own.has(name));
  trainable.requireNorms(parameters);

  const grid = { classes: data.labels.length, height, width: across, stride };
  const decoding = parseDecoding(
    { arrangement: "centres", ...names, stride, scoreThreshold: threshold },
    "INVALID_ARGUMENT",
  );
  const judge = (answers: JudgeOptions["answers"]) =>
    judgeDetector({ examples: held, labels: data.labels, preprocessing, decoding, answers });
  const settings = settingsOf(options);
  const made = {
    ...{ ...settings, width, validation, augmentation: options.augmentation },
    ...(norms && { norms }),
  };
  const fitted = await fitModel({
    ...settings,
    ...{ runtime, parameters, threads, recompute },
    model: trainable,
    rows: boxRows(training, { preprocessing, augmentation: options.augmentation }),
    collate: centreTerms(grid, names),
    checkpoints:
      options.checkpoints === undefined
        ? undefined
        : new Checkpoints(options.checkpoints, {
            settings: { way: "detect", trains, threads, ...(recompute && { recompute }), ...made },
            data: data.digest,
            model: await weightsOf(whole),
          }),
    checkpointSteps: options.checkpointSteps,
    onStep: options.onStep,
    // Where nothing follows from it, one look at the end is enough.
    ...(options.patience !== undefined && {
      judge: async (trainer) =>
        (await judge((image) => trainer.answers(new Map([[site.input, image]])))).quality.ap50 ?? 0,
    }),
  });
  const trained = trainable.withValues(fitted.parameters);
  const session = await openModelOn(runtime)(trained, "all");
  const { quality, judged } = await judge((image) => session.run(new Map([[site.input, image]]))).finally(
    () => session.close(),
  );
  const deviation = precisionDeviation(judged, data.labels.length, seed);
  const about = {
    task: "detection",
    labels: data.labels,
    preprocessing: { ...preprocessing },
    decoding: { ...decoding },
    activation: undefined,
    notes: undefined,
    provenance: {
      ...options.provenance,
      by: "polyhead tune",
      way: "detect",
      trains,
      backboneRevision: await revisionOf(options.backbone),
      taps: taps.map(({ name, identity }) => ({ name, identity })),
      data: { digest: data.digest, images: data.examples.length },
      settings: made,
      seed,
    },
    quality: {
      measure: "average precision",
      how: `COCO's, on ${held.length} images held back, seed ${seed}`,
      ap: quality.ap,
      ap50: quality.ap50,
      ap75: quality.ap75,
      apDeviation: deviation.ap,
      ap50Deviation: deviation.ap50,
      perClass: quality.perClass.map((each, at) => ({ label: data.labels[at], ...each })),
    },
  } as const;
  return {
    model:
      trains === "all"
        ? withMetadata(trained, { ...about, role: undefined, taps: undefined })
        : withMetadata(headOf(trained), { ...about, role: "head", taps }),
    report: {
      labels: data.labels,
      taps: taps.map(({ name }) => name),
      stride,
      images: { training: training.length, validation: held.length },
      objects: { training: countOf(training), validation: countOf(held) },
      ...{ quality, deviation },
      losses: fitted.losses,
      qualities: fitted.qualities,
      epoch: fitted.epoch,
      perEpoch: fitted.perEpoch,
      parameters: parameters.length,
      counts: data.labels.map((_, at) => countOf(training, at)),
      settings: { way: "detect", trains, ...made },
      digest: data.digest,
      problems: data.problems,
      notes: [...site.notes, ...data.notes],
    },
    mistakes: detectionMistakes(judged, data.labels, threshold).slice(0, MOST_MISTAKES),
  };
}

/** Takes the head out of models that differ from the given one in weights only: what is between taps and outputs. */
async function headFinder(
  whole: Model,
  taps: readonly Tap[],
  outputs: readonly string[],
): Promise<(model: Model) => Model> {
  const names = new Map([...(await identify(whole))].map(([name, identity]) => [identity, name]));
  const inputs = taps.map(({ identity }) => names.get(identity) ?? "");
  return (model) => extract(model, new GraphIndex(model.graph), inputs, outputs, inferTypes(model));
}

/** What a model computes, weights included. */
async function weightsOf(model: Model): Promise<string> {
  const identities = await identify(model);
  return new GraphIndex(model.graph).outputNames.map((name) => identities.get(name)).join(" ");
}

/** The mean side of a box, in pixels of the model's input. */
function usualSize(examples: readonly Example<readonly ObjectBox[]>[], preprocessing: Preprocessing): number {
  const sides = examples.flatMap(({ size, target }) => {
    const { source, target: shown } = placeImage(size, preprocessing);
    return target.map(({ x1, y1, x2, y2 }) => {
      const wide = ((x2 - x1) * shown.width) / source.width;
      const high = ((y2 - y1) * shown.height) / source.height;
      return (wide + high) / 2;
    });
  });
  return sides.reduce((sum, side) => sum + side, 0) / Math.max(1, sides.length);
}

function settingsOf({
  epochs,
  batch,
  accumulate,
  rate,
  schedule,
  seed,
  patience,
  optimizer,
  clipNorm,
  groups,
  average,
}: FitSettings) {
  return {
    ...{ epochs, batch, rate, seed, optimizer },
    ...(accumulate !== undefined && { accumulate }),
    ...(schedule && { schedule }),
    ...(patience !== undefined && { patience }),
    ...(clipNorm !== undefined && { clipNorm }),
    ...(groups && { groups }),
    ...(average !== undefined && { average }),
  };
}
