/** Model files dropped into a folder: what goes live, what is left alone, and what a restart makes of it. */
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import { readModel } from "../../src/onnx/read.js";
import { revisionOf } from "../../src/onnx/revision.js";
import { modelBytes } from "../../src/onnx/write.js";
import type { Deployment } from "../../src/server/deployment.js";
import { watchFolder } from "../../src/server/watch-folder.js";
import { Store } from "../../src/store/index.js";
import { backbone, deploy, endDeployments, head, image, newFolder, scoresOf } from "./small-deployment.js";

const watches: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of watches.splice(0)) await end();
  await endDeployments();
});

const LOOK = 20;
const PATIENCE = { timeout: 20_000 };

type Event = Readonly<Record<string, unknown>>;

async function watched() {
  const [store, folder] = [await newFolder(), await newFolder()];
  const trunk = await backbone();
  const running = await deploy(store);
  const log: Event[] = [];
  const watch = async (of: Deployment) => {
    const end = await watchFolder(folder, of, (event) => log.push(event), LOOK);
    watches.push(end);
    return end;
  };
  const put = (name: string, bytes: Uint8Array) => writeFile(join(folder, name), bytes);
  const revisions = (route: string) =>
    running
      .routes()
      .flatMap(({ name, revisions: [main] }) => (name === route && main ? [main.revision] : []));
  return { store, folder, trunk, running, log, watch, put, revisions };
}

describe("a watched folder", () => {
  it("makes a head answer for the route of its name, and its next version after it", async () => {
    const { trunk, running, log, watch, put, folder } = await watched();
    await put("trunk.onnx", modelBytes(trunk));
    await watch(running);
    const [one, two] = [head(trunk, [1, 0, 0, 1]), head(trunk, [0, 1, 1, 0])];
    await put("food.part", modelBytes(one));
    await rename(join(folder, "food.part"), join(folder, "food.onnx"));
    const answer = async () =>
      scoresOf((await running.infer({ routes: ["food"], inputs: { image } })).routes.food?.outputs);
    await expect.poll(answer, PATIENCE).toEqual([1, 3]);
    await put("food.onnx", modelBytes(two));
    await expect.poll(answer, PATIENCE).toEqual([3, 1]);
    expect(running.history("food")).toMatchObject([
      { action: "switch", by: "watch", reason: "the file food.onnx" },
      { action: "add", by: "watch", reason: "the file food.onnx" },
    ]);
    expect(log.filter(({ level }) => level === "info")).toContainEqual(
      expect.objectContaining({
        what: "watch",
        file: "food.onnx",
        route: "food",
        revision: await revisionOf(two),
      }),
    );
    await rm(join(folder, "food.onnx"));
    await put("other.onnx", modelBytes(one));
    await expect.poll(() => running.routes().map(({ name }) => name), PATIENCE).toContain("other");
    expect(await answer()).toEqual([3, 1]);
  });

  it("leaves what does not prove valid alone and says why, until it changes", async () => {
    const { store, trunk, running, log, watch, put, revisions, folder } = await watched();
    await running.addModel(modelBytes(trunk), "trunk", { by: "test" });
    const main = await running.addModel(modelBytes(head(trunk, [1, 0, 0, 1])), "food", { by: "test" });
    await watch(running);
    const whole = modelBytes(head(trunk, [0, 1, 1, 0]));
    await put("food.onnx", whole.subarray(0, whole.length / 2));
    const stranger = withMetadata(head(trunk, [1, 1, 1, 1]), {
      taps: (readMetadata(trunk).taps ?? []).map((tap) => ({ ...tap, identity: "0".repeat(64) })),
    });
    await put("stranger.onnx", modelBytes(stranger));
    await put("no good name.onnx", whole);
    await put("readme.txt", whole);
    await put(".hidden.onnx", whole);
    await mkdir(join(folder, "folder.onnx"));
    const refused = (file: string) => log.filter((event) => event.file === file && event.level === "error");
    for (const file of ["food.onnx", "stranger.onnx", "no good name.onnx"])
      await expect.poll(() => refused(file), PATIENCE).toHaveLength(1);
    expect(refused("stranger.onnx")[0]).toMatchObject({ code: "HEAD_MISMATCH", message: expect.any(String) });
    expect(revisions("food")).toEqual([main]);
    expect(
      running
        .routes()
        .map(({ name }) => name)
        .sort(),
    ).toEqual(["food", "trunk"]);
    const kept = await (await Store.open(store, { readOnly: true })).models();
    expect(kept.map(({ revision }) => revision)).not.toContain(await revisionOf(await readModel(whole)));
    await put("food.onnx", whole);
    await expect.poll(() => revisions("food"), PATIENCE).not.toEqual([main]);
    for (const file of ["food.onnx", "no good name.onnx"]) expect(refused(file)).toHaveLength(1);
    expect(log.map(({ file }) => file)).not.toContain("readme.txt");
    expect(log.map(({ file }) => file)).not.toContain(".hidden.onnx");
  });

  it("takes a head again that came before its backbone", async () => {
    const { trunk, running, log, watch, put, revisions } = await watched();
    await watch(running);
    await put("a-head.onnx", modelBytes(head(trunk, [1, 0, 0, 1])));
    await expect.poll(() => log.map(({ code }) => code), PATIENCE).toContain("HEAD_MISMATCH");
    await put("trunk.onnx", modelBytes(trunk));
    await expect.poll(() => revisions("a-head"), PATIENCE).toHaveLength(1);
  });

  it("does not undo a rollback when the server starts again, but takes the file when it is put there anew", async () => {
    const { store, trunk, running, watch, put, revisions } = await watched();
    await running.addModel(modelBytes(trunk), "trunk", { by: "test" });
    const main = await running.addModel(modelBytes(head(trunk, [1, 0, 0, 1])), "food", { by: "test" });
    const end = await watch(running);
    const next = modelBytes(head(trunk, [0, 1, 1, 0]));
    await put("food.onnx", next);
    await expect.poll(() => revisions("food"), PATIENCE).not.toEqual([main]);
    await running.rollback("food", { by: "test" });
    await end();
    await running.close();

    const again = await deploy(store);
    await put("marker.onnx", modelBytes(head(trunk, [5, 0, 0, 5])));
    await watch(again);
    // Files are taken in the order of their names: when this one is live, the other has been looked at.
    await expect.poll(() => again.routes().map(({ name }) => name), PATIENCE).toContain("marker");
    expect(again.route("food").revisions).toMatchObject([{ revision: main }]);
    await put("food.onnx", next);
    await expect.poll(() => again.route("food").revisions[0]?.revision, PATIENCE).not.toBe(main);
  });

  it("has to be a folder", async () => {
    const { running, folder } = await watched();
    await expect(watchFolder(join(folder, "none"), running, () => {})).rejects.toMatchObject({
      code: "FILE_NOT_FOUND",
    });
  });
});
