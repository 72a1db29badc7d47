/** `polyhead demo`: the main job on real photos. */
import { join } from "node:path";
import type { Command } from "commander";
import { openEngine } from "../../index.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { openModelOn } from "../../runtime/open-model.js";
import { Runtime } from "../../runtime/runtime.js";
import { demoPackages } from "../demo/packages.js";
import { prepare } from "../demo/prepare.js";
import { loadHeads, type Shown, showPhoto } from "../demo/show.js";
import { percent, table } from "../format.js";
import { type Outcome, performs } from "../outcome.js";

interface Options {
  readonly out: string;
  readonly cache: string;
}

/** Photos on which both heads have something to say. */
const PHOTOS = ["E003", "E010", "D030", "M010", "P020", "A010"];

/** Adds the verb. */
export function addDemo(program: Command): void {
  const command = program
    .command("demo")
    .description(
      "one backbone, two heads: detect and classify real photos, switching without running it again",
    )
    .argument("[photos...]", "photos of your own instead of the packaged ones")
    .option("-o, --out <folder>", "folder for annotated pictures", join("out", "demo"))
    .option("--cache <folder>", "folder for prepared models", join(".cache", "polyhead", "demo"));
  performs(command, (photos: readonly string[], options: Options) =>
    perform(photos, options, program.version() ?? ""),
  );
}

async function perform(
  photos: readonly string[],
  { out, cache }: Options,
  version: string,
): Promise<Outcome> {
  const packages = demoPackages();
  const say = (line: string) => process.stderr.write(`${line}\n`);
  const prepared = await withRuntime((runtime) =>
    prepare(packages, cache, version, openModelOn(runtime), say),
  );
  if (prepared.wasCached) say(`prepared models are in ${cache}`);
  const engine = await openEngine();
  try {
    const revisions = await loadHeads(engine, prepared);
    const paths = photos.length > 0 ? photos : PHOTOS.map((name) => join(packages.photos, `${name}.jpeg`));
    const shown: Shown[] = [];
    for (const path of paths) shown.push(await showPhoto(engine, prepared, revisions, path, out));
    return { data: { photos: shown, revisions }, text: describe(shown, out) };
  } finally {
    await engine.close();
  }
}

function describe(shown: readonly Shown[], out: string): string[] {
  const milliseconds = (value: number) => value.toFixed(value < 10 ? 2 : 0);
  return [
    "",
    ...table([
      ["photo", "decode", "backbone + detector", "(backbone)", "switch", "classifier", "features"],
      ...shown.map((each) => [
        each.photo,
        ...[each.decode, each.detector, each.backbone, each.switch, each.classifier].map(
          (value) => `${milliseconds(value)} ms`,
        ),
        each.cached ? "from cache" : "computed",
      ]),
    ]),
    "",
    ...shown.flatMap(({ photo, detections, classes }) => [
      `${photo}`,
      `  detector:   ${list(detections) || "nothing it knows"}`,
      `  classifier: ${list(classes)}`,
    ]),
    "",
    `annotated pictures are in ${out}`,
  ];
}

function list(found: readonly { readonly label: string; readonly score: number }[]): string {
  return found
    .slice(0, 5)
    .map(({ label, score }) => `${label} ${percent(score)}`)
    .join(", ");
}

async function withRuntime<T>(work: (runtime: Runtime) => Promise<T>): Promise<T> {
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    return await work(runtime);
  } finally {
    await runtime.close();
  }
}
