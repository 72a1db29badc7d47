/** `polyhead plan`: which way to a head on a backbone, and why; measured on images where there are some. */
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import type { Command } from "commander";
import { PolyheadError } from "../../base/errors.js";
import { Engine } from "../../engine/index.js";
import { loadModel, saveModels, writeFileAtomic } from "../../files/disk.js";
import { toEvaluation } from "../../onnx/evaluation.js";
import type { Model } from "../../onnx/model.js";
import {
  type Finding,
  type MadeWay,
  type Measurements,
  measureWays,
  option,
  reasonFromGraphs,
  recommended,
  waysPlot,
} from "../../plan/index.js";
import { plotSvg } from "../../report/plot.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { openModelOn } from "../../runtime/open-model.js";
import { Runtime } from "../../runtime/runtime.js";
import { defaultCacheFolder } from "../../teach/feature-cache.js";
import { type ControlOptions, withControlOptions } from "../control/open-control.js";
import { interval, table } from "../format.js";
import { readPositive, readShare } from "../option-numbers.js";
import { type Outcome, performs } from "../outcome.js";
import { progressBar } from "../progress.js";
import { publish } from "../tune/publish.js";

interface Options extends ControlOptions {
  readonly backbone: string;
  readonly head: string;
  readonly from?: string;
  readonly data?: string;
  readonly test?: string;
  readonly beside?: string[];
  readonly fromPreprocess?: string;
  readonly toPreprocess?: string;
  readonly cache: string;
  readonly floor: number;
  readonly seconds: number;
  readonly plot?: string;
  readonly apply?: string;
  readonly route?: string;
}

/** The models that a plan is about, and what their graphs say. */
interface Parties {
  readonly backbone: Model;
  readonly head: Model;
  readonly from: Model | undefined;
  readonly finding: Finding;
}

/** Adds the verb. */
export function addPlan(program: Command): void {
  const command = program
    .command("plan")
    .description(
      "say which way leads a head to a backbone: swap, adapt or tune; measured where images are given",
    )
    .requiredOption("--backbone <model>", "ONNX file of the backbone")
    .requiredOption("--head <model>", "ONNX file of the head")
    .option("--from <model>", "the backbone that the head was made for")
    .option("--data <folder>", "images to measure on; folders named like the head's labels give accuracy")
    .option("--test <folder>", "other images to judge on")
    .option("--beside <models...>", "heads that live on the backbone already")
    .option(
      "--from-preprocess <recipe>",
      "how images become the head's own backbone's input, where it does not say it",
    )
    .option("--to-preprocess <recipe>", "the same for the other one")
    .option("--cache <folder>", "folder for computed features, or none", defaultCacheFolder())
    .option("--floor <share>", "agreement that is enough where classes are not known", readShare, 0.9)
    .option(
      "--seconds <number>",
      "no further way is begun after so long; a training is begun only where it fits in",
      readPositive,
      300,
    )
    .option("--plot <file>", "SVG file for a plot of quality against the cost of a request")
    .option("--apply <folder>", "write what the recommended way made into this folder")
    .option("--route <name>", "with --apply, let it answer for this route of the server or store");
  performs(withControlOptions(command, true), perform);
}

async function perform(options: Options): Promise<Outcome> {
  requireSense(options);
  const { model: backbone } = toEvaluation(await loadModel(options.backbone));
  const head = await loadModel(options.head);
  const from = options.from === undefined ? undefined : await loadModel(options.from);
  const finding = await reasonFromGraphs(backbone, head, from && toEvaluation(from).model);
  const fits = finding.way === "swap";
  const measurements = fits ? undefined : await measure(options, { backbone, head, from, finding });
  const best = measurements && recommended(measurements.ways, options.floor);
  const way = best?.way ?? finding.way;
  const command = fits
    ? `polyhead heads add ${options.head} --route ${basename(options.head, ".onnx")}`
    : (best?.command ?? hint(finding, options));
  const reasons = [...finding.reasons, ...(measurements ? reasonsOf(measurements, best) : finding.unknown)];
  const files = fits ? new Map([[basename(options.head), head]]) : (best?.files ?? new Map<string, Model>());
  const written = options.apply === undefined ? [] : await write(options.apply, files);
  const live = options.route === undefined ? undefined : await goLive(options, options.route, files);
  const { plot } = options;
  if (plot !== undefined && measurements) await writeFileAtomic(plot, plotSvg(waysPlot(measurements.ways)));
  const measured = measurements?.ways.map(({ files, ...rest }) => rest) ?? [];
  return {
    data: {
      way,
      reasons,
      measured,
      skipped: measurements?.skipped ?? [],
      command,
      written,
      ...(plot !== undefined && measurements && { plot }),
      ...(live && { live }),
    },
    text: [
      `${way}${best ? `: ${best.how}` : ""}`,
      ...reasons.map((reason) => `  ${reason}`),
      ...(measured.length > 0 ? ["", ...tableOf(measurements?.ways ?? [])] : []),
      ...(measurements?.skipped.map(({ how, why }) => `not measured: ${how}: ${why}`) ?? []),
      "",
      command,
      ...[...written, ...(plot !== undefined && measurements ? [plot] : [])].map(
        (path) => `written: ${path}`,
      ),
      ...(live ? [`answers for ${live.route}: ${live.revision}`] : []),
    ],
  };
}

async function measure(
  options: Options,
  { backbone, head, from, finding }: Parties,
): Promise<Measurements | undefined> {
  const { data, test, cache, fromPreprocess, toPreprocess, seconds } = options;
  if (data === undefined) return undefined;
  const workers = Math.min(4, availableParallelism());
  const runtime = await Runtime.open(() => OrtWorker.start(), { workers });
  try {
    return await measureWays({
      ...{ head, from, to: backbone, finding },
      ...{ data, test, fromPreprocess, toPreprocess, budgetSeconds: seconds },
      cache: cache === "none" ? undefined : cache,
      open: openModelOn(runtime),
      inFlight: workers + 2,
      others: await Promise.all(
        (options.beside ?? []).map(async (path) => ({ name: basename(path), head: await loadModel(path) })),
      ),
      openTrainer: () => Runtime.open(() => OrtWorker.start()),
      threads: availableParallelism(),
      openEngine: async () =>
        Engine.open(await Runtime.open(() => OrtWorker.start()), { threads: availableParallelism() }),
      files: { head: options.head, backbone: options.backbone, from: options.from, data },
      onFeature: progressBar("features"),
      onWay: (how) => {
        if (process.stderr.isTTY) process.stderr.write(`${how}\n`);
      },
    });
  } finally {
    await runtime.close();
  }
}

function reasonsOf({ ways }: Measurements, best: MadeWay | undefined): string[] {
  const said = ways.map(({ how, measure, quality }) => `${how}: ${measure} ${interval(quality)}.`);
  const chosen = best
    ? `Of the ways whose quality is within the interval of the best, ${best.how} changes least.`
    : "No way reaches the floor; more images, or training more of the network, may.";
  return [...said, chosen];
}

/** What to do next where nothing was measured, or nothing was good enough. */
function hint({ way }: Finding, { head, backbone, from, data = "FOLDER" }: Options): string {
  return way === "adapt"
    ? `polyhead plan --backbone ${backbone} --head ${head}${option("from", from)} --data ${data}`
    : `polyhead teach --backbone ${backbone} --data ${data} -o ${basename(head, ".onnx")}-new.onnx`;
}

async function write(folder: string, files: ReadonlyMap<string, Model>): Promise<string[]> {
  const written = [...files].map(([name, model]) => [join(folder, basename(name)), model] as const);
  await saveModels(written);
  return written.map(([path]) => path);
}

/** Adds what was made, a backbone of its own first, and points the route to the head. */
async function goLive(options: Options, route: string, files: ReadonlyMap<string, Model>) {
  const made = [...files].map(([name, model]) => ({ title: basename(name), model }));
  const head = made.pop();
  return head && publish(route, head, made[0], options);
}

/** @throws PolyheadError INVALID_ARGUMENT for options that take others */
function requireSense({ route, apply, plot, data }: Options): void {
  if (route !== undefined && apply === undefined) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "--route goes with --apply, which names a folder for the head.",
      { route },
    );
  }
  if (plot !== undefined && data === undefined) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "--plot goes with --data: without images nothing is measured.",
      {
        plot,
      },
    );
  }
}

function tableOf(ways: readonly MadeWay[]): string[] {
  const milliseconds = (value: number | undefined) => (value === undefined ? "" : `${value.toFixed(2)} ms`);
  return table([
    [
      "way",
      "how",
      "quality",
      "judged on",
      "request",
      "beside others",
      "bytes",
      "to make",
      "made of",
      "other heads",
    ],
    ...ways.map(
      ({ way, how, quality, measure, judgedOn, milliseconds: cost, bytes, seconds, data, others }) => [
        way,
        how,
        `${measure} ${interval(quality)}`,
        judgedOn,
        milliseconds(cost.alone),
        milliseconds(cost.beside),
        String(bytes),
        `${seconds.toFixed(1)} s`,
        data,
        others,
      ],
    ),
  ]);
}
