/** `polyhead upgrade`: all live heads of a backbone to another one, in one generation or not at all. */
import { availableParallelism } from "node:os";
import { basename } from "node:path";
import type { Command } from "commander";
import { type LiveHead, type UpgradedRoute, upgradeHeads, upgradeRefused } from "../../adapt/upgrade.js";
import { PolyheadError } from "../../base/errors.js";
import { loadModel } from "../../files/disk.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { openModelOn } from "../../runtime/open-model.js";
import { Runtime } from "../../runtime/runtime.js";
import { defaultCacheFolder } from "../../teach/feature-cache.js";
import type { Control } from "../control/control.js";
import { type ControlOptions, openControl, withControlOptions } from "../control/open-control.js";
import { interval, percent, table } from "../format.js";
import { readShare, readWholeNumber } from "../option-numbers.js";
import { type Outcome, performs } from "../outcome.js";
import { progressBar } from "../progress.js";

interface Options extends ControlOptions {
  readonly from: string;
  readonly to: string;
  readonly data: readonly string[];
  readonly test: readonly string[];
  readonly fromPreprocess?: string;
  readonly toPreprocess?: string;
  readonly cache: string;
  readonly folds: number;
  readonly seed: number;
  readonly floor: number;
  readonly leave?: boolean;
  readonly dryRun?: boolean;
}

/** Each worker holds a backbone once. */
const MOST_WORKERS = 4;

/** Adds the verb. */
export function addUpgrade(program: Command): void {
  const command = program
    .command("upgrade")
    .description("bring all live heads of a backbone to another one, in one generation or not at all")
    .requiredOption("--from <model>", "the backbone that they read")
    .requiredOption("--to <model>", "the backbone that they shall read")
    .requiredOption("--data <folders...>", "images for all heads, or ROUTE=FOLDER for one")
    .option("--test <folders...>", "other images to judge on, given alike", [])
    .option(
      "--from-preprocess <recipe>",
      "how images become the old backbone's input, where it does not say it",
    )
    .option("--to-preprocess <recipe>", "the same for the new one")
    .option("--cache <folder>", "folder for computed features, or none", defaultCacheFolder())
    .option("--folds <count>", "parts of the cross-validation", readWholeNumber, 5)
    .option("--seed <number>", "decides how images are dealt to the parts", readWholeNumber, 0)
    .option("--floor <share>", "share of each head's quality that has to be kept", readShare, 0.9)
    .option("--leave", "heads that keep too little stay on the old backbone")
    .option("--dry-run", "show the table and publish nothing");
  performs(withControlOptions(command, true), perform);
}

async function perform(options: Options): Promise<Outcome> {
  const { from, to, cache, leave, dryRun, fromPreprocess, toPreprocess, folds, seed, floor } = options;
  const reason = options.reason ?? `upgrade from ${basename(from)} to ${basename(to)}`;
  const control = await openControl({ ...options, reason }, dryRun ? "read" : "change");
  const [fromModel, toModel] = [await loadModel(from), await loadModel(to)];
  const heads = await liveHeads(control, options);
  const workers = Math.min(MOST_WORKERS, availableParallelism());
  const runtime = await Runtime.open(() => OrtWorker.start(), { workers });
  const upgrade = await upgradeHeads({
    ...{ from: fromModel, to: toModel, heads, fromPreprocess, toPreprocess, folds, seed, floor },
    open: openModelOn(runtime),
    cache: cache === "none" ? undefined : cache,
    inFlight: workers + 2,
    onHead: (route) => process.stderr.write(`${route}\n`),
    onFeature: progressBar("features"),
    onTap: progressBar("fitting"),
  }).finally(() => runtime.close());
  const { routes } = upgrade;
  if (routes.every(({ becomes }) => becomes === "other")) {
    throw new PolyheadError(
      "NOT_FOUND",
      `No route reads ${basename(from)}; it has ${routes.map(({ route }) => route).join(", ") || "no routes"}.`,
      { routes: routes.map(({ route }) => route) },
    );
  }
  const isWhole = routes.every(({ becomes }) => becomes !== "refused");
  if (!isWhole && !leave && !dryRun) throw upgradeRefused(routes, floor);
  if (dryRun || upgrade.heads.size === 0)
    return { data: { routes, published: false }, text: [...describe(routes), "nothing was published"] };
  // All models are kept and tried out before any route moves; the routes then move in one generation.
  await control.add(toModel, basename(to), undefined);
  const targets: Record<string, string> = {};
  for (const [route, head] of upgrade.heads)
    targets[route] = await control.add(head, `${route}.onnx`, undefined);
  const generation = await control.switch(targets);
  return {
    data: { routes, published: true, generation, targets },
    text: [
      ...describe(routes),
      `holds from generation ${generation} on; back again with: polyhead switch --rollback ${Object.keys(targets).join(" ")}`,
    ],
  };
}

/** The heads that answer, with their images. */
async function liveHeads(control: Control, { data, test }: Options): Promise<LiveHead[]> {
  const listed = await control.routes();
  const [folders, others] = [data, test].map((words) =>
    foldersOf(
      words,
      listed.map(({ name }) => name),
    ),
  );
  const heads: LiveHead[] = [];
  for (const { name, revisions, shadows } of listed) {
    const [main, ...canaries] = revisions;
    if (!main) continue;
    const head = await control.model(main.revision);
    if (canaries.length > 0 || shadows.length > 0) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `The route ${JSON.stringify(name)} has a canary or a shadow; promote it or take it away before the backbone changes.`,
        { route: name },
      );
    }
    heads.push({ route: name, head, data: folders?.(name) ?? "", test: others?.(name) });
  }
  return heads;
}

/** The folder of each route. @throws PolyheadError INVALID_ARGUMENT for several folders for all */
function foldersOf(
  words: readonly string[],
  routes: readonly string[],
): (route: string) => string | undefined {
  const own = new Map<string, string>();
  const common: string[] = [];
  for (const word of words) {
    const [, route, folder] = /^([^=]+)=(.+)$/.exec(word) ?? [];
    if (route !== undefined && folder !== undefined && routes.includes(route)) own.set(route, folder);
    else common.push(word);
  }
  if (common.length <= 1) return (route) => own.get(route) ?? common[0];
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `${common.join(", ")} are several folders for all routes; expected one, and ROUTE=FOLDER for the others of ${routes.join(", ")}.`,
    { got: common, expected: routes },
  );
}

function describe(routes: readonly UpgradedRoute[]): string[] {
  const words = {
    fits: "fits as it is",
    adapt: "adapted",
    refused: "refused",
    other: "reads something else",
  };
  return [
    ...table([
      ["route", "becomes", "map", "kept", "agreement", "accuracy", "before", "without adapter", "adds"],
      ...routes.map(({ route, becomes, quality, chosen, unadapted, added }) => [
        route,
        words[becomes],
        chosen ? `${chosen.rung} on ${chosen.tap}` : "",
        quality ? percent(quality.kept) : "",
        quality?.interval ? interval(quality.interval) : quality ? percent(quality.agreement) : "",
        quality?.accuracy ? interval(quality.accuracy) : "",
        quality?.nativeAccuracy ? percent(quality.nativeAccuracy.value) : "",
        unadapted ? `${percent(unadapted.kept)} kept` : "",
        added === undefined ? "" : `${(100 * added).toFixed(2)} %`,
      ]),
    ]),
    ...routes.flatMap(({ route, why }) => (why === undefined ? [] : [`${route}: ${why}`])),
  ];
}
