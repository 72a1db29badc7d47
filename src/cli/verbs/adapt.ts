/** `polyhead adapt`: a head on a backbone that it was not made for, through a fitted adapter. */
import { availableParallelism } from "node:os";
import { basename } from "node:path";
import { type Command, Option } from "commander";
import { adaptImages } from "../../adapt/adapt-images.js";
import { ADAPTER_SHAPES, type AdapterShape, LEARNERS, type Learning } from "../../adapt/fit-options.js";
import type { AdaptImagesReport } from "../../adapt/judgement.js";
import { RUNGS, type RungName } from "../../adapt/ladder.js";
import { asOneHead } from "../../adapt/through-adapter.js";
import { loadModel, saveModel } from "../../files/disk.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { openModelOn } from "../../runtime/open-model.js";
import { Runtime } from "../../runtime/runtime.js";
import { defaultCacheFolder } from "../../teach/feature-cache.js";
import { count, interval, percent, table } from "../format.js";
import { readCount, readPositive, readShare, readWholeNumber } from "../option-numbers.js";
import { type Outcome, performs } from "../outcome.js";
import { progressBar } from "../progress.js";

interface Options {
  readonly head: string;
  readonly from?: string;
  readonly to: string;
  readonly tap?: string[];
  readonly budget?: number;
  readonly data: string;
  readonly test?: string;
  readonly out: string;
  readonly folded?: string;
  readonly fromPreprocess?: string;
  readonly toPreprocess?: string;
  readonly cache: string;
  readonly rung?: RungName;
  readonly learn?: Learning;
  readonly shape: AdapterShape;
  readonly hidden: number;
  readonly folds: number;
  readonly seed: number;
  readonly floor: number;
}

/** Each worker holds a backbone once. */
const MOST_WORKERS = 4;

/** Adds the verb. */
export function addAdapt(program: Command): void {
  const command = program
    .command("adapt")
    .description("let a head read a backbone that it was not made for, through a fitted adapter")
    .requiredOption("--head <model>", "ONNX file of the head")
    .option("--from <model>", "the backbone that the head was made for; else its stored features are used")
    .requiredOption("--to <model>", "the backbone that the head is to read")
    .option("--tap <names>", "taps to try, separated by commas; all by default", (text: string) =>
      text.split(","),
    )
    .option("--budget <flops>", "taps that cost more are not tried", readPositive)
    .requiredOption("--data <folder>", "images; no classes are needed, unless something learns from them")
    .option("--test <folder>", "other images to judge on; cross-validation without them")
    .requiredOption(
      "-o, --out <file>",
      "ONNX file for the adapter; for the new head where the head was trained as well",
    )
    .option(
      "--folded <file>",
      "ONNX file for the head with the adapter in it, folded into its first layer where that can be",
    )
    .option(
      "--from-preprocess <recipe>",
      "how images become the old backbone's input, where it does not say it",
    )
    .option("--to-preprocess <recipe>", "the same for the new one")
    .option("--cache <folder>", "folder for computed features, or none", defaultCacheFolder())
    .addOption(
      new Option("--rung <name>", "one kind of map instead of the smallest that does").choices(RUNGS),
    )
    .addOption(
      new Option(
        "--learn <parts>",
        "also learn from the images' classes: the adapter, through the frozen head, or both, which makes a new head",
      ).choices(LEARNERS),
    )
    .addOption(
      new Option("--shape <name>", "what an adapter that learns from classes is made of")
        .choices(ADAPTER_SHAPES)
        .default("linear"),
    )
    .option("--hidden <count>", "width of hidden layers", readCount, 64)
    .option("--folds <count>", "parts of the cross-validation", readWholeNumber, 5)
    .option("--seed <number>", "decides how images are dealt to the parts", readWholeNumber, 0)
    .option("--floor <share>", "share of the head's quality that has to be kept", readShare, 0.9);
  performs(command, perform);
}

async function perform(options: Options): Promise<Outcome> {
  const { head, from, to, out, folded, cache, rung, tap, ...rest } = options;
  const workers = Math.min(MOST_WORKERS, availableParallelism());
  const [headModel, toModel] = [await loadModel(head), await loadModel(to)];
  const fromModel = from === undefined ? undefined : await loadModel(from);
  const runtime = await Runtime.open(() => OrtWorker.start(), { workers });
  try {
    const adapted = await adaptImages({
      ...rest,
      head: headModel,
      from: fromModel,
      to: toModel,
      taps: tap,
      open: openModelOn(runtime),
      cache: cache === "none" ? undefined : cache,
      rungs: rung && [rung],
      learn: options.learn ?? (rung && LEARNS[rung]),
      openTrainer: () => Runtime.open(() => OrtWorker.start()),
      inFlight: workers + 2,
      names: { head: basename(head), to: basename(to), ...(from !== undefined && { from: basename(from) }) },
      onFeature: progressBar("features"),
      onTap: progressBar("fitting"),
    });
    await saveModel(out, adapted.adapter ?? asOneHead(headModel, adapted));
    if (folded !== undefined) await saveModel(folded, asOneHead(headModel, adapted));
    const paths = { path: out, ...(folded !== undefined && { foldedPath: folded }) };
    const isNewHead = adapted.adapter === undefined;
    return {
      data: { ...paths, makes: isNewHead ? "head" : "adapter", ...adapted.report },
      text: describe(options, adapted.report, isNewHead),
    };
  } finally {
    await runtime.close();
  }
}

function describe({ out, folded }: Options, report: AdaptImagesReport, isNewHead: boolean): string[] {
  const { taps, chosen, quality, floor, judgedOn } = report;
  const rows = taps.flatMap(({ tap, flops, rungs, enough }) =>
    rungs.map((rung, at) => [
      at === 0 ? tap : "",
      at === 0 ? count(flops) : "",
      `${rung.name}${rung.rank === undefined ? "" : ` ${rung.rank}`}`,
      count(rung.parameters),
      percent(rung.explained),
      rung.interval ? interval(rung.interval) : percent(rung.agreement),
      rung.accuracy ? interval(rung.accuracy) : "",
      rung.name === enough ? (tap === chosen.tap ? "chosen" : "enough here") : "",
    ]),
  );
  return [
    ...report.notes.map((note) => `note: ${note}`),
    `${report.examples} images${report.labelled ? ", classes known" : ""} (${report.cached} from the cache)`,
    ...table([
      ["tap", "FLOPs", "map", "parameters", "explained", "agreement", report.labelled ? "accuracy" : "", ""],
      ...rows,
    ]),
    "",
    ...(quality.nativeAccuracy && quality.accuracy
      ? [
          `the head on its own backbone is ${interval(quality.nativeAccuracy)} right, adapted ${interval(quality.accuracy)}`,
        ]
      : []),
    `${percent(quality.kept)} of its quality is kept by ${chosen.rung} on ${chosen.tap} (${judgedOn}; floor ${percent(floor)})`,
    out,
    endOf(report, folded, isNewHead),
  ];
}

function endOf(report: AdaptImagesReport, folded: string | undefined, isNewHead: boolean): string {
  if (isNewHead)
    return "this is a new head, trained together with its adapter; it reads the new backbone itself";
  if (report.folded)
    return `adapter and head are also one head, at no further cost, ${report.folded.difference.toExponential(1)} apart${folded === undefined ? "; write it with --folded" : `: ${folded}`}`;
  const why = TRAINED_LAYERS.includes(report.chosen.rung)
    ? "what was trained is more than one linear layer"
    : "the head does not begin with a linear layer on one vector";
  return `${why}, so that the adapter stays a layer of its own${folded === undefined ? "" : `, in front of the head: ${folded}`}`;
}

/** Rungs that may have more than one linear layer. */
const TRAINED_LAYERS: readonly RungName[] = ["residual", "trained"];

/** What learns, where a rung that does was asked for. */
const LEARNS: Partial<Record<RungName, Learning>> = { trained: "adapter", together: "both" };
