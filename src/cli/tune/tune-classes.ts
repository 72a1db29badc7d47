/** `polyhead tune --data`: a head, a branch or a whole backbone from images of some classes. */
import { rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { PolyheadError } from "../../base/errors.js";
import { parseAugmentation } from "../../data/augmentation.js";
import { asClasses, openSource } from "../../data/source.js";
import { loadModel, requireWritable, saveModels, writeFileAtomic } from "../../files/disk.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { Runtime } from "../../runtime/runtime.js";
import { FOLDS, HELD_BACK, HIDDEN, TUNING } from "../../tune/defaults.js";
import type { OtherHead } from "../../tune/other-heads.js";
import { type ClassLoss, DECAYS } from "../../tune/train-head.js";
import { type TunedImages, tuneImages } from "../../tune/tune-images.js";
import { tuneReportPage } from "../../tune/tune-report.js";
import { percent, table } from "../format.js";
import { lossOf } from "../loss-option.js";
import { versions } from "../manifest.js";
import type { Outcome } from "../outcome.js";
import { progressBar, trainingBar } from "../progress.js";
import { checkpointFolder } from "./checkpoint-folder.js";
import { type ClassTuneOptions, groupsOfRate, optimizerOf, scheduleOf, type TuneOptions } from "./options.js";
import { type Published, publish } from "./publish.js";

const WIDTH = 24;

/**
 * Trains on images and writes what came out, all of it or nothing.
 * @throws PolyheadError as `tuneImages` does; ALREADY_EXISTS for a training that was interrupted and is not gone on with
 */
export async function tuneClasses(path: string, data: string, options: ClassTuneOptions): Promise<Outcome> {
  const { out, way, seed, threads, balance = false, weightDecay } = options;
  const stem = join(dirname(out), basename(out, ".onnx"));
  const checkpoints = await checkpointFolder(options);
  await requireWritable(out);
  const backbone = await loadModel(path);
  const loss = classLoss(options);
  const names = { backbone: basename(path), data: basename(resolve(data)) };
  const listing = asClasses(data, await openSource(data));
  const others = await Promise.all((options.other ?? []).map(otherHead));
  const rate = options.lr ?? TUNING.rate;
  const augment = options.augment ?? (way === "full" ? "light" : "none");
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    const bar = trainingBar();
    const tuned = await tuneImages({
      ...{ way, backbone, listing, names, others, runtime, threads, versions, checkpoints },
      recompute: options.recompute,
      ...{ tap: options.tap, preprocess: options.preprocess, channels: options.channels },
      cache: options.cache === "none" ? undefined : options.cache,
      freeze: options.freeze === "auto" ? { depths: options.depths } : options.freeze,
      judging: judgingOf(options),
      head: {
        shape: { kind: options.head, hidden: options.hidden ?? HIDDEN },
        decays: way === "head" && weightDecay !== undefined ? [weightDecay] : DECAYS,
        ...{ loss, seed, isBalanced: balance },
      },
      tuning: {
        epochs: options.epochs ?? TUNING.epochs,
        batch: options.batch ?? TUNING.batch,
        rate,
        optimizer: optimizerOf(options),
        schedule: scheduleOf(options, { kind: "cosine", warmup: 0 }),
        ...(options.accumulate > 1 && { accumulate: options.accumulate }),
        clipNorm: options.clip,
        average: options.average,
        norms: options.norms,
        groups: groupsOfRate(options.group, rate),
        patience: options.patience ?? TUNING.patience,
        augmentation: augment === "none" ? undefined : parseAugmentation(recordOrName(augment)),
      },
      mostProblems: options.bad,
      checkpointSteps: options.checkpointSteps,
      onImage: progressBar("images"),
      onFeature: progressBar("features"),
      onStep: ({ quality, ...step }) =>
        bar({ ...step, quality: quality === undefined ? undefined : `accuracy ${percent(quality)}` }),
    });
    const backboneOut = tuned.backbone && (options.backboneOut ?? `${stem}-backbone.onnx`);
    await saveModels([
      ...(tuned.backbone && backboneOut !== undefined ? [[backboneOut, tuned.backbone] as const] : []),
      [out, tuned.head],
    ]);
    const report = options.report ?? `${stem}.html`;
    if (report !== "none") {
      await writeFileAtomic(
        report,
        await tuneReportPage(tuned, { model: basename(out), data: names.data }, versions),
      );
    }
    const published =
      options.publish === undefined
        ? undefined
        : await publish(
            options.publish,
            { model: tuned.head, title: basename(out) },
            tuned.backbone && { model: tuned.backbone, title: basename(backboneOut ?? "") },
            options,
          );
    await rm(checkpoints, { recursive: true, force: true });
    const written = { path: out, ...(backboneOut !== undefined && { backbone: backboneOut }) };
    const page = report === "none" ? {} : { page: report };
    return {
      data: { ...written, ...page, ...(published && { published }), ...tuned.report },
      text: describe(tuned, Object.values({ ...written, ...page }), published),
    };
  } finally {
    await runtime.close();
  }
}

function classLoss(options: ClassTuneOptions): ClassLoss {
  const loss = lossOf(options);
  if (loss.kind === "cross-entropy" || loss.kind === "focal") return loss;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `Images with one class each are learned by --loss cross-entropy or focal; got ${loss.kind}.`,
    { got: loss.kind, expected: ["cross-entropy", "focal"] },
  );
}

function judgingOf({ way, folds, validation }: TuneOptions) {
  if (folds !== undefined && validation !== undefined) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "--folds and --validation were both given; expected one of them.",
      {},
    );
  }
  if (folds !== undefined && folds < 2) {
    throw new PolyheadError("INVALID_ARGUMENT", `Got ${folds} folds; expected at least 2.`, { got: folds });
  }
  const byFolds = folds !== undefined || (way === "head" && validation === undefined);
  if (byFolds) return { by: "folds" as const, folds: folds ?? FOLDS };
  return { by: "held-back" as const, share: validation ?? HELD_BACK };
}

/** `HEAD:FOLDER`; on Windows a path may have a colon of its own, so the last one counts. */
async function otherHead(words: string): Promise<OtherHead> {
  const at = words.lastIndexOf(":");
  const [path, data] = [words.slice(0, at), words.slice(at + 1)];
  if (at > 0 && data !== "") return { name: basename(path), head: await loadModel(path), data };
  throw new PolyheadError("INVALID_ARGUMENT", `--other takes HEAD:FOLDER; got ${JSON.stringify(words)}.`, {
    got: words,
  });
}

function recordOrName(text: string): unknown {
  if (!text.trim().startsWith("{")) return text;
  try {
    return JSON.parse(text);
  } catch {
    throw new PolyheadError("INVALID_ARGUMENT", `The augmentation ${text.slice(0, 100)} is not JSON.`, {});
  }
}

function describe(
  { report }: TunedImages,
  written: readonly string[],
  published: Published | undefined,
): string[] {
  const { accuracy, quality, cost, stem, depths = [], others = [], problems } = report;
  const spread = accuracy.deviation === undefined ? "" : ` ± ${percent(accuracy.deviation)}`;
  const { low, high } = quality.interval;
  return [
    ...problems.map(({ id, problem }) => `left out: ${id}: ${problem}`),
    ...report.notes.map((note) => `note: ${note}`),
    `${report.examples} images, ${report.labels.length} classes; ${report.parameters.length} parameters trained from ${report.from} on`,
    `accuracy ${percent(accuracy.mean)}${spread} (${percent(low)} to ${percent(high)}) by ${report.how}; the largest class alone ${percent(quality.baseline)}`,
    `a request costs ${cost.milliseconds.toFixed(2)} ms ${stem ? `after the stem, which has ${percent(stem.share)} of the work` : "for the whole network"}; ${(cost.bytes / 2 ** 20).toFixed(2)} MiB of weights`,
    ...(depths.length === 0
      ? []
      : [
          "",
          ...table([
            ["frozen up to", "operations after", "ms", "MiB", "accuracy", "seconds", ""],
            ...depths.map((each) => [
              shortened(each.from),
              each.flops.toExponential(2),
              each.milliseconds.toFixed(2),
              (each.bytes / 2 ** 20).toFixed(2),
              `${percent(each.accuracy)} ± ${percent(each.error)}`,
              each.seconds.toFixed(0),
              `${each.isTaken ? "taken" : ""}${each.keptHead ? " head kept" : ""}`.trim(),
            ]),
          ]),
          "",
        ]),
    ...others.map(
      ({ name, kept, nativeAccuracy, accuracy: now, images }) =>
        `${name} on the new backbone keeps ${percent(kept)} of its quality on ${images} images${nativeAccuracy && now ? ` (${percent(nativeAccuracy.value)} right before, ${percent(now.value)} now)` : ""}`,
    ),
    ...written,
    ...(published ? [`${published.route} -> ${published.revision}`] : []),
  ];
}

function shortened(text: string): string {
  return text.length <= WIDTH ? text : `…${text.slice(1 - WIDTH)}`;
}
