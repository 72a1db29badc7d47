/**
 * What the demo makes once and keeps: the imported detector, split and proved, and a food classifier taught on
 * the same backbone. Everything goes into a folder of its own and is put in place whole.
 */
import { createHash } from "node:crypto";
import { copyFile, mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { exists, loadModel, readFileBytes, saveModel, writeFileAtomic } from "../../files/disk.js";
import { readMetadata } from "../../onnx/metadata.js";
import type { Model } from "../../onnx/model.js";
import type { OpenModel } from "../../onnx/runner.js";
import { splitModel } from "../../onnx/split.js";
import { proveSplit } from "../../onnx/verify.js";
import { teachImages } from "../../teach/teach-images.js";
import { formatShape } from "../../tensor/shape.js";
import { count, percent } from "../format.js";
import { importModel } from "../import-model.js";
import { progressBar } from "../progress.js";
import type { DemoPackages } from "./packages.js";

/** The models of the demo. */
export interface Prepared {
  readonly backbone: Model;
  readonly detector: Model;
  readonly food: Model;
  /** Whether they were there from an earlier start. */
  readonly wasCached: boolean;
}

/** Names of the food groups of the Indian food composition tables 2017, by the letter that photos begin with. */
export const FOOD_GROUPS: Readonly<Record<string, string>> = {
  A: "cereals",
  B: "legumes",
  C: "leafy vegetables",
  D: "vegetables",
  E: "fruits",
  F: "roots and tubers",
  G: "spices",
  H: "nuts and seeds",
  I: "sugars",
  J: "mushrooms",
  K: "miscellaneous",
  L: "milk",
  M: "egg dishes",
  N: "poultry",
  O: "meat",
  P: "marine fish",
  Q: "shellfish",
  R: "molluscs",
  S: "freshwater fish",
  T: "oils and fats",
};
/** Groups with fewer photos are left out. */
export const FEWEST_PHOTOS = 10;
const FOLDS = 5;

/**
 * The models, made where they are not in `folder` yet.
 * @param version of Polyhead; another version makes them anew
 */
export async function prepare(
  packages: DemoPackages,
  folder: string,
  version: string,
  open: OpenModel,
  say: (line: string) => void,
): Promise<Prepared> {
  const place = join(folder, await keyOf(packages, version));
  const names = ["backbone", "detector", "food"] as const;
  const load = async (wasCached: boolean): Promise<Prepared> => {
    const [backbone, detector, food] = await Promise.all(
      names.map((name) => loadModel(join(place, `${name}.onnx`))),
    );
    if (!backbone || !detector || !food) throw new Error("three models were asked for");
    return { backbone, detector, food, wasCached };
  };
  if (await exists(join(place, "done"))) return load(true);

  const making = `${place}.${process.pid}.part`;
  try {
    const backbone = await makeDetector(packages, making, open, say);
    await teachFood(packages, making, folder, backbone, open, say);
    await writeFileAtomic(join(making, "done"), "");
    await rm(place, { recursive: true, force: true });
    await rename(making, place);
  } finally {
    await rm(making, { recursive: true, force: true });
  }
  return load(false);
}

async function makeDetector(
  { models }: DemoPackages,
  into: string,
  open: OpenModel,
  say: (line: string) => void,
): Promise<Model> {
  const { model: whole, notes } = await importModel(join(models, "centernet.json"), { recipe: "centernet" });
  for (const note of notes) say(`  ${note}`);
  say(`imported centernet from @vladmandic/human: ${count(whole.graph.node.length)} operators`);
  const split = await splitModel(whole);
  const proof = await proveSplit(whole, split, open);
  say(`split it into a backbone with ${split.taps.length} taps and ${split.heads.length} head:`);
  for (const { name, shape, identity } of split.taps)
    say(`  ${name} ${formatShape(shape)} is ${identity.slice(0, 12)}`);
  say(
    `  proved on ${proof.inputs} random inputs: equal bit for bit; optimised, at most ${proof.maxAbsDiff.toExponential(1)} apart`,
  );
  const [head] = split.heads;
  if (!head) throw new Error("the detector has no head");
  await mkdir(into, { recursive: true });
  await saveModel(join(into, "backbone.onnx"), split.backbone);
  await saveModel(join(into, "detector.onnx"), head.model);
  return split.backbone;
}

async function teachFood(
  { photos }: DemoPackages,
  into: string,
  cache: string,
  backbone: Model,
  open: OpenModel,
  say: (line: string) => void,
): Promise<void> {
  const data = join(into, "photos");
  const all = await readdir(photos);
  for (const [letter, group] of Object.entries(FOOD_GROUPS)) {
    const names = all.filter((name) => name.startsWith(letter));
    if (names.length < FEWEST_PHOTOS) continue;
    const folder = join(data, group);
    await mkdir(folder, { recursive: true });
    for (const name of names) await copyFile(join(photos, name), join(folder, name));
  }
  const tap = readMetadata(backbone).taps?.toSorted((a, b) => Number(a.shape[2]) - Number(b.shape[2]))[0];
  const { model, report } = await teachImages({
    backbone,
    backboneName: "centernet",
    tap: tap?.name,
    data,
    open,
    cache: join(cache, "features"),
    folds: FOLDS,
    onFeature: progressBar("features"),
    onFold: progressBar("folds"),
  });
  await rm(data, { recursive: true, force: true });
  await saveModel(join(into, "food.onnx"), model);
  const [correct, spread, guess] = [report.accuracy.mean, report.accuracy.deviation, report.baseline];
  say(
    `taught ${report.labels.length} food groups from ${report.examples} photos by ${report.method}: ${percent(correct)} right in ${report.folds}-fold cross-validation (± ${percent(spread)}; always guessing the largest group: ${percent(guess)})`,
  );
}

async function keyOf({ models, photos }: DemoPackages, version: string): Promise<string> {
  const hash = createHash("sha256")
    .update(version)
    .update(await readFileBytes(join(models, "centernet.bin")));
  for (const name of await readdir(photos)) hash.update(name);
  return hash.digest("hex").slice(0, 16);
}
