/** The verb upgrade: a backbone is trained fully on one task, and the heads of other tasks follow it, or nothing does. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { imageFolder } from "../../src/data/image-folder.js";
import { saveModel } from "../../src/files/disk.js";
import { openEngine } from "../../src/index.js";
import { joinModels, type Model, readMetadata, splitModel, withMetadata } from "../../src/onnx/index.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { Deployment } from "../../src/server/deployment.js";
import { Store } from "../../src/store/index.js";
import { teachImages } from "../../src/teach/index.js";
import { int64 } from "../../src/tensor/index.js";
import { stackRows } from "../../src/tensor/rows.js";
import { Trainer } from "../../src/train/trainer.js";
import { TrainingModel } from "../../src/train/training-model.js";
import { decodeImage, imageTensor, preprocessingFor } from "../../src/vision/index.js";
import { useRuntime } from "../onnx/runtime.js";
import { foodFolder, randomBackbone } from "../teach/photos.js";
import { polyhead } from "./command.js";

const open = useRuntime();
const old = randomBackbone();
let folder: string;
let tuned: Model;
const at = (name: string) => join(folder, name);
const store = () => ["--store", at("store"), "--json"];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  await foodFolder(at("groups"), { B: "pulses", C: "leafy vegetables", E: "fruits" }, 20);
  await foodFolder(at("task"), { D: "vegetables", M: "eggs" }, 8);
  await foodFolder(at("few"), { B: "pulses", C: "leafy vegetables", E: "fruits" }, 3);
  const teach = async (data: string, tap: string) =>
    (await teachImages({ backbone: old, tap, data: at(data), open, method: "ridge" })).model;
  const groups = await teach("groups", "c2");
  const early = await teach("groups", "c1");
  const task = await teach("task", "c2");
  tuned = await trainedFully(await joinModels(old, task), at("task"));
  for (const [name, model] of Object.entries({ old, tuned, groups, early, task }))
    await saveModel(at(`${name}.onnx`), model);
  for (const name of ["old", "groups", "early"]) {
    const route = name === "old" ? [] : ["--route", name];
    expect((await polyhead("heads", "add", at(`${name}.onnx`), ...route, ...store())).status).toBe(0);
  }
});
afterAll(() => rm(folder, { recursive: true }));

/** A monolith of one task trained on its images, everything in it; its backbone, with the same taps. */
async function trainedFully(monolith: Model, data: string): Promise<Model> {
  const { files } = await imageFolder(data);
  const preprocessing = preprocessingFor(old);
  const tensors = [];
  for (const { path } of files)
    tensors.push((await imageTensor(await decodeImage(path), preprocessing)).tensor);
  const model = new TrainingModel(monolith);
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    const trainer = new Trainer(runtime, model, { optimizer: { kind: "adam" } });
    const target = int64(
      [files.length],
      files.map(({ classIndex }) => classIndex),
    );
    const batch = {
      inputs: new Map([["image", stackRows(tensors)]]),
      terms: [{ loss: { kind: "cross-entropy" as const }, target, output: "logits" }],
    };
    const losses: number[] = [];
    for (let step = 0; step < 30; step++) losses.push(await trainer.step(batch, 5e-4));
    expect(losses.at(-1)).toBeLessThan(0.95 * (losses[0] ?? 0));
    const trained = model.withValues(await trainer.parameters());
    await trainer.close();
    const { backbone } = await splitModel(trained, { at: ["c1", "c2"] });
    return withMetadata(backbone, { preprocessing: readMetadata(old).preprocessing });
  } finally {
    await runtime.close();
  }
}

const upgrade = (data: string, ...more: string[]) => upgradeOn([at(data)], ...more);
const upgradeOn = (data: readonly string[], ...more: string[]) =>
  polyhead(
    ...["upgrade", "--from", at("old.onnx"), "--to", at("tuned.onnx"), "--data", ...data],
    ...["--cache", at("cache"), ...more],
  );
const listed = async () => JSON.parse((await polyhead("heads", "ls", ...store())).stdout).routes;

describe("polyhead upgrade", () => {
  it("publishes nothing when a head would lose too much, and says which", async () => {
    const before = await listed();
    const run = await upgrade("few", ...store());
    expect(run.status).toBe(70);
    const { error } = JSON.parse(run.stdout);
    expect(error).toMatchObject({
      code: "QUALITY_TOO_LOW",
      message: expect.stringContaining("Nothing was published"),
    });
    expect(error.details.routes).toMatchObject([
      { route: "groups", becomes: "refused", why: expect.stringContaining("9 different examples") },
      { route: "early", becomes: "refused" },
    ]);
    expect(await listed()).toEqual(before);
  });

  it("shows the table without publishing", async () => {
    const { status, stdout } = await upgrade("few", "--dry-run", "--store", at("store"));
    expect(status).toBe(0);
    expect(stdout).toContain("without adapter");
    expect(stdout).toContain("nothing was published");
  });

  it("leaves heads that lose too much on the old backbone when told so", async () => {
    const before = await listed();
    const run = await upgradeOn([at("groups"), `groups=${at("few")}`], "--leave", ...store());
    expect(run.status).toBe(0);
    const { routes, targets } = JSON.parse(run.stdout);
    expect(routes).toMatchObject([
      { route: "groups", becomes: "refused" },
      { route: "early", becomes: "adapt" },
    ]);
    expect(Object.keys(targets)).toEqual(["early"]);
    const running = await Deployment.open(await Store.open(at("store")), await openEngine());
    const { tensor } = await imageTensor(
      await decodeImage(at("groups/fruits/E003.jpeg")),
      preprocessingFor(old),
    );
    const answer = await running.infer({ routes: ["groups", "early"], inputs: { image: tensor } });
    expect(answer.routes.early?.revision).toBe(targets.early);
    await running.close();
    expect((await polyhead("switch", "--rollback", "early", ...store())).status).toBe(0);
    expect(await listed()).toEqual(before);
  });

  it("moves all heads in one generation, at under 1 % of the work, and goes back in one call", async () => {
    const before = await listed();
    const run = await upgrade("groups", ...store());
    expect(run.status).toBe(0);
    const { routes, published, targets, generation } = JSON.parse(run.stdout);
    expect(published).toBe(true);
    expect(Object.keys(targets).sort()).toEqual(["early", "groups"]);
    for (const row of routes) {
      expect(row).toMatchObject({ becomes: "adapt" });
      expect(row.quality.kept).toBeGreaterThanOrEqual(0.9);
      expect(row.added).toBeLessThan(0.01);
    }
    const groups = routes.find(({ route }: { route: string }) => route === "groups");
    expect(groups.unadapted.kept).toBeLessThan(groups.quality.kept);
    const history = JSON.parse((await polyhead("heads", "history", ...store())).stdout).history;
    const own = history.filter((change: { generation: number }) => change.generation === generation);
    expect(own.map(({ route }: { route: string }) => route).sort()).toEqual(["early", "groups"]);

    const running = await Deployment.open(await Store.open(at("store")), await openEngine());
    const { tensor } = await imageTensor(
      await decodeImage(at("groups/fruits/E003.jpeg")),
      preprocessingFor(old),
    );
    const answer = await running.infer({ routes: ["groups", "early"], inputs: { image: tensor } });
    expect(answer.routes.groups?.revision).toBe(targets.groups);
    expect(running.route("groups").quality).toMatchObject({ kept: groups.quality.kept, floor: 0.9 });
    await running.close();

    const back = await polyhead("switch", "--rollback", "groups", "early", ...store());
    expect(back.status).toBe(0);
    const after = await listed();
    expect(after).toEqual(before);
  });

  it("says so when no route reads the old backbone", async () => {
    const { status, stderr } = await polyhead(
      ...["upgrade", "--from", at("tuned.onnx"), "--to", at("old.onnx"), "--data", at("groups")],
      ...["--store", at("store")],
    );
    expect(status).toBe(66);
    expect(stderr).toContain("No route reads tuned.onnx");
  });
});
