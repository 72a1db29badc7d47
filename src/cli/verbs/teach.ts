/** `polyhead teach`: a classification head from folders of images, with its cross-validated accuracy. */
import { availableParallelism } from "node:os";
import { basename } from "node:path";
import { type Command, Option } from "commander";
import { loadModel, saveModel } from "../../files/disk.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { openModelOn } from "../../runtime/open-model.js";
import { Runtime } from "../../runtime/runtime.js";
import { METHODS, type Method } from "../../teach/classifier.js";
import type { FoldAccuracy } from "../../teach/cross-validation.js";
import { defaultCacheFolder } from "../../teach/feature-cache.js";
import type { ChannelPlace } from "../../teach/pooling.js";
import { type TeachImagesReport, teachImages } from "../../teach/teach-images.js";
import { percent, table } from "../format.js";
import { readWholeNumber } from "../option-numbers.js";
import { type Outcome, performs } from "../outcome.js";
import { progressBar } from "../progress.js";

interface Options {
  readonly backbone: string;
  readonly tap?: string;
  readonly data: string;
  readonly out: string;
  readonly preprocess?: string;
  readonly cache: string;
  readonly folds: number;
  readonly seed: number;
  readonly method: Method | "auto";
  readonly channels?: ChannelPlace;
}

/** Each worker holds the backbone once. */
const MOST_WORKERS = 4;
/** Columns that the widest table may take. */
const WIDTH = 110;

/** Adds the verb. */
export function addTeach(program: Command): void {
  const command = program
    .command("teach")
    .description("make a classification head from folders of images, one folder a class")
    .requiredOption("--backbone <model>", "ONNX file that computes the features")
    .option("--tap <name>", "value that the head reads; needed where the backbone has several")
    .requiredOption("--data <folder>", "folder with one folder of images a class")
    .requiredOption("-o, --out <file>", "ONNX file for the head")
    .option("--preprocess <recipe>", "how images become the input, where the backbone does not say it")
    .option("--cache <folder>", "folder for computed features, or none", defaultCacheFolder())
    .option("--folds <count>", "parts of the cross-validation", readWholeNumber, 5)
    .option("--seed <number>", "decides how images are dealt to the parts", readWholeNumber, 0)
    .addOption(new Option("--method <name>", "how to learn").choices(["auto", ...METHODS]).default("auto"))
    .addOption(new Option("--channels <place>", "where the tap has its channels").choices(["first", "last"]));
  performs(command, perform);
}

async function perform(options: Options): Promise<Outcome> {
  const { tap, data, out, preprocess, cache, folds, seed, method, channels } = options;
  const backbone = await loadModel(options.backbone);
  const workers = Math.min(MOST_WORKERS, availableParallelism());
  const runtime = await Runtime.open(() => OrtWorker.start(), { workers });
  try {
    const { model, report } = await teachImages({
      backbone,
      backboneName: basename(options.backbone),
      tap,
      data,
      open: openModelOn(runtime),
      preprocess,
      cache: cache === "none" ? undefined : cache,
      channels,
      folds,
      seed,
      method: method === "auto" ? undefined : method,
      inFlight: workers + 2,
      onFeature: progressBar("features"),
      onFold: progressBar("learning"),
    });
    await saveModel(out, model);
    return { data: { path: out, ...report }, text: describe(out, report) };
  } finally {
    await runtime.close();
  }
}

function describe(out: string, report: TeachImagesReport): string[] {
  const { labels, perClass, confusion, methods, strength } = report;
  const rate = (value: number) => value.toFixed(3);
  const numbers = labels.map((_, at) => String(at + 1));
  const matrix = table([
    ["", ...numbers],
    ...confusion.map((counts, at) => [`${at + 1} ${shortened(labels[at] ?? "", 24)}`, ...counts]),
  ]);
  const isReadable = matrix.every((line) => line.length <= WIDTH);
  return [
    ...report.notes.map((note) => `note: ${note}`),
    `${report.examples} images, ${labels.length} classes, ${report.features} features of ${report.tap} (${report.cached} from the cache)`,
    `accuracy ${plusMinus(report.accuracy)} over ${report.folds} folds; the largest class alone ${percent(report.baseline)}`,
    ...methods.map((each) => `  ${each.method} ${plusMinus(each.accuracy)}`),
    `balanced accuracy ${percent(report.balancedAccuracy)}, log loss ${rate(report.logLoss)} (a guess: ${rate(Math.log(labels.length))}), calibration error ${percent(report.calibrationError)}`,
    "",
    ...table([
      ["class", "precision", "recall", "f1", "images"],
      ...perClass.map(({ label, precision, recall, f1, support }) => [
        shortened(label, 40),
        rate(precision).padStart("precision".length),
        rate(recall).padStart("recall".length),
        rate(f1),
        support,
      ]),
    ]),
    "",
    ...(isReadable ? ["confusion (row: is, column: called)", ...matrix] : commonConfusions(report)),
    "",
    `${out}: ${report.method}${strength === undefined ? "" : `, strength ${strength}`}`,
  ];
}

/** For matrices too wide to read: what was confused most often. */
function commonConfusions({ labels, confusion }: TeachImagesReport): string[] {
  const wrong = confusion.flatMap((counts, is) =>
    counts.flatMap((times, called) => (is === called || times === 0 ? [] : [{ is, called, times }])),
  );
  const rows = wrong
    .sort((a, b) => b.times - a.times)
    .slice(0, 15)
    .map(({ is, called, times }) => [
      shortened(labels[is] ?? "", 40),
      shortened(labels[called] ?? "", 40),
      times,
    ]);
  return [
    "most often confused (the whole matrix is in --json)",
    ...table([["is", "called", "times"], ...rows]),
  ];
}

function plusMinus({ mean, deviation }: FoldAccuracy): string {
  return `${percent(mean)} ± ${percent(deviation)}`;
}

function shortened(text: string, most: number): string {
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}
