/**
 * The ways that train more than a head: a branch of the backbone, and all of it, as `polyhead tune` does with its own
 * defaults. They are begun only when there is time for them, and end when it is over.
 */
import { basename } from "node:path";
import { shareOf } from "../adapt/agreement.js";
import { picturesIn } from "../adapt/examples.js";
import { PolyheadError } from "../base/errors.js";
import { AUGMENTATIONS } from "../data/augmentation.js";
import { listFolder } from "../data/source.js";
import { readMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { HELD_BACK, HIDDEN, TUNING } from "../tune/defaults.js";
import { DECAYS } from "../tune/train-head.js";
import { type TunedImages, tuneImages } from "../tune/tune-images.js";
import {
  accuracyOn,
  type Known,
  type MeasureOptions,
  noClasses,
  option,
  tapNames,
  type WayToTry,
} from "./way-to-try.js";

/** Depths of a branch that are tried: a quarter of the work after the stem, and a half of it. */
const DEPTHS = 2;
/** What the two of them train, in backbones. */
const BRANCHES = 0.75;
/** A step forward, back and onward, in passes of the network. */
const STEP = 4;
/** Seconds that the heads before the training take. */
const HEADS = 10;

/** A branch of the backbone, at the depth that pays. */
export function branched(options: MeasureOptions): WayToTry {
  return {
    way: "tune",
    name: "branch",
    how: "a branch of the backbone",
    isLong: true,
    estimate: (known) => passes(known, 1 + DEPTHS + TUNING.epochs * STEP * BRANCHES) + HEADS,
    make: (known) => trained(options, known, "branch"),
  };
}

/** All of the backbone, trained into a new one. */
export function trainedFully(options: MeasureOptions): WayToTry {
  return {
    way: "tune",
    name: "new backbone",
    how: "a new backbone, trained fully",
    isLong: true,
    estimate: (known) => passes(known, 1 + TUNING.epochs * STEP) + HEADS,
    make: (known) => trained(options, known, "full"),
  };
}

/** Seconds of so many passes over all images. */
function passes({ images, forward }: Known, count: number): number {
  return (count * images * forward) / 1000;
}

async function trained(options: MeasureOptions, known: Known, way: "branch" | "full") {
  const { head, files, to, data, test, others, openTrainer } = options;
  const { truth } = await picturesIn(data, readMetadata(head).labels);
  if (!truth) throw noClasses();
  if (!openTrainer) throw new PolyheadError("INVALID_ARGUMENT", "there is nothing to train with", {});
  const tap = known.tap ?? tapNames(options).at(-1);
  const name = basename(files.head, ".onnx");
  const runtime = await openTrainer();
  const begun = performance.now();
  try {
    const tuned = await tuneImages({
      ...{ way, backbone: to, tap, runtime, preprocess: options.toPreprocess, cache: options.cache },
      ...{ threads: options.threads ?? 1, versions: {}, freeze: { depths: DEPTHS } },
      listing: await listFolder(data),
      names: { backbone: basename(files.backbone), data: basename(data) },
      judging: { by: "held-back", share: HELD_BACK },
      head: {
        shape: { kind: "linear", hidden: HIDDEN },
        ...{ decays: DECAYS, isBalanced: false, seed: options.seed ?? 0 },
      },
      tuning: {
        ...{ ...TUNING, optimizer: { kind: "adam" }, schedule: { kind: "cosine" } },
        augmentation: way === "full" ? AUGMENTATIONS.light : undefined,
      },
      others: others.map((other) => ({ ...other, data })),
      onStep: ({ step, steps }) => endInTime(known, begun, step / steps),
    });
    const quality =
      test === undefined
        ? shareOf(tuned.report.quality.accuracy, tuned.report.quality.examples)
        : await accuracyOn(tuned.head, tuned.backbone ?? to, test, options);
    const out = `${name}-${way}.onnx`;
    const isNew = tuned.backbone !== undefined && tuned.report.choice?.kept !== "head";
    const backboneOut = `${name}-${way}-backbone.onnx`;
    return {
      quality,
      measure: "accuracy" as const,
      judgedOn: test === undefined ? `${tuned.report.quality.examples} images held back` : "the test images",
      data: `${known.images} images with classes`,
      how: howOf(tuned, way),
      ...(isNew && { others: lossesOf(tuned) }),
      files: new Map<string, Model>([
        ...(isNew && tuned.backbone ? [[backboneOut, tuned.backbone] as const] : []),
        [out, tuned.head],
      ]),
      candidate: { head: tuned.head, ...(isNew && { backbone: tuned.backbone }) },
      command: `polyhead tune ${files.backbone} --way ${way} --tap ${tap} --data ${files.data}${option("preprocess", options.toPreprocess)}${isNew ? ` --backbone-out ${backboneOut}` : ""} -o ${out}`,
    };
  } finally {
    await runtime.close();
  }
}

function howOf({ report }: TunedImages, way: "branch" | "full"): string {
  if (report.choice?.kept === "head" || report.from === report.tap)
    return `a new head; training a ${way === "branch" ? "branch" : "whole backbone"} made it no better`;
  return way === "branch"
    ? `a branch of the backbone from ${report.from} on`
    : "a new backbone, trained fully";
}

/** What becomes of the heads that live on the old backbone. */
function lossesOf({ report }: TunedImages): string {
  const kept = (report.others ?? []).map(
    (each) => `${each.name} would keep ${(100 * each.kept).toFixed(1)} % on the new backbone as it is`,
  );
  return [
    "none while both backbones run; to follow the new one they are adapted with polyhead upgrade",
    ...kept,
  ].join("; ");
}

/** @throws PolyheadError LIMIT_EXCEEDED when the time is over, with how long it would have taken */
function endInTime({ end }: Known, begun: number, share: number): void {
  const now = performance.now();
  if (now <= end || share >= 1) return;
  const estimatedSeconds = (now - begun) / 1000 / Math.max(share, 1e-3);
  throw new PolyheadError(
    "LIMIT_EXCEEDED",
    `it was not done when the time budget was used up: ${(100 * share).toFixed(0)} % of the training, of about ${Math.ceil(estimatedSeconds)} s in all; raise --seconds`,
    { estimatedSeconds },
  );
}
