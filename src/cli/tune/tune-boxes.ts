/** `polyhead tune --way detect --data`: a detector from images with boxes. */
import { rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { PolyheadError } from "../../base/errors.js";
import { parseAugmentation } from "../../data/augmentation.js";
import { asBoxes, openSource } from "../../data/source.js";
import { loadModel, requireWritable, saveModel, writeFileAtomic } from "../../files/disk.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { Runtime } from "../../runtime/runtime.js";
import { detectorReportPage } from "../../tune/detect/detector-report.js";
import { type DetectorReport, tuneDetector } from "../../tune/detect/tune-detector.js";
import { table } from "../format.js";
import { versions } from "../manifest.js";
import type { Outcome } from "../outcome.js";
import { progressBar, trainingBar } from "../progress.js";
import { checkpointFolder } from "./checkpoint-folder.js";
import { groupsOfRate, optimizerOf, scheduleOf, type TuneOptions } from "./options.js";
import { type Published, publish } from "./publish.js";

const TRAINING = { epochs: 20, batch: 8, rate: 2e-3, clip: 10, patience: 5 } as const;

/**
 * Trains a detector and writes it: a head, or with `--freeze none` a whole model.
 * @throws PolyheadError as `tuneDetector` does; INVALID_ARGUMENT for a branch; ALREADY_EXISTS for a training that was interrupted and is not gone on with
 */
export async function tuneBoxes(path: string, data: string, options: TuneOptions): Promise<Outcome> {
  const { out, seed, threads, freeze } = options;
  if (freeze !== "auto" && freeze !== "none") {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "With --way detect --freeze takes none (train all) or is left out (train the head).",
      { freeze },
    );
  }
  const checkpoints = await checkpointFolder(options);
  await requireWritable(out);
  const backbone = await loadModel(path);
  const listing = asBoxes(data, await openSource(data));
  const rate = options.lr ?? TRAINING.rate;
  const augment = options.augment ?? "boxes";
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    const bar = trainingBar();
    const tuned = await tuneDetector({
      ...{ backbone, listing, runtime, threads, seed, checkpoints },
      recompute: options.recompute,
      taps: options.tap?.split(",").map((name) => name.trim()),
      preprocess: options.preprocess,
      trains: freeze === "none" ? "all" : "head",
      width: options.hidden,
      validation: options.validation,
      epochs: options.epochs ?? TRAINING.epochs,
      batch: options.batch ?? TRAINING.batch,
      rate,
      optimizer: optimizerOf(options),
      schedule: scheduleOf(options, { kind: "cosine", warmup: 20 }),
      ...(options.accumulate > 1 && { accumulate: options.accumulate }),
      clipNorm: options.clip ?? TRAINING.clip,
      average: options.average,
      norms: options.norms,
      groups: groupsOfRate(options.group, rate),
      patience: options.patience ?? TRAINING.patience,
      augmentation: augment === "none" ? undefined : parseAugmentation(augment),
      dataSet: {
        progress: progressBar("images"),
        ...(options.bad !== undefined && { mostProblems: options.bad }),
      },
      checkpointSteps: options.checkpointSteps,
      onStep: ({ quality, ...step }) =>
        bar({ ...step, quality: quality === undefined ? undefined : `AP50 ${shown(quality)}` }),
      provenance: {
        backbone: basename(path),
        file: basename(resolve(data)),
        versions,
      },
    });
    const { model, report } = tuned;
    await saveModel(out, model);
    const page = options.report ?? `${join(dirname(out), basename(out, ".onnx"))}.html`;
    if (page !== "none") {
      const names = { model: basename(out), data: basename(resolve(data)) };
      await writeFileAtomic(page, await detectorReportPage(tuned, names, versions));
    }
    const published =
      options.publish === undefined
        ? undefined
        : await publish(options.publish, { model, title: basename(out) }, undefined, options);
    await rm(checkpoints, { recursive: true, force: true });
    return {
      data: {
        ...{ path: out, way: "detect" },
        ...(page !== "none" && { page }),
        ...(published && { published }),
        ...report,
      },
      text: describe(page === "none" ? [out] : [out, page], report, published),
    };
  } finally {
    await runtime.close();
  }
}

function describe(
  written: readonly string[],
  report: DetectorReport,
  published: Published | undefined,
): string[] {
  const { labels, images, objects, quality, deviation, losses, taps, stride, epoch } = report;
  return [
    ...[...report.notes, ...report.problems.map(({ id, problem }) => `${id}: ${problem}`)].map(
      (note) => `note: ${note}`,
    ),
    `${images.training} images with ${objects.training} objects to learn from, ${images.validation} with ${objects.validation} held back`,
    `reads ${taps.join(", ")}; one cell is ${stride} pixels; ${losses.length} steps, epoch ${epoch} is kept`,
    `average precision ${shown(quality.ap)} ± ${shown(deviation.ap)}, at 0.50 ${shown(quality.ap50)} ± ${shown(deviation.ap50)}, at 0.75 ${shown(quality.ap75)}`,
    "",
    ...table([
      ["class", "AP", "AP50", "objects"],
      ...quality.perClass.map((each, at) => [
        labels[at] ?? "",
        shown(each.ap),
        shown(each.ap50),
        each.objects,
      ]),
    ]),
    "",
    ...written,
    ...(published ? [`${published.route} answers with it: revision ${published.revision}`] : []),
  ];
}

function shown(value: number | undefined): string {
  return value === undefined ? "-" : value.toFixed(3);
}
