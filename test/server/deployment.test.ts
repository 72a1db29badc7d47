/** The service over a real engine and a real store: routes, switches, shadows, canaries, restarts, other processes. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";
import { afterEach, describe, expect, it, vi } from "vitest";
import { loadModel } from "../../src/files/disk.js";
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import { readModel } from "../../src/onnx/read.js";
import { revisionOf } from "../../src/onnx/revision.js";
import { modelBytes } from "../../src/onnx/write.js";
import type { Deployment } from "../../src/server/deployment.js";
import { Store } from "../../src/store/index.js";
import { readNpz } from "../../src/tensor/npz.js";
import { toNumbers } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { backbone, deploy, endDeployments, head, image, newFolder, scoresOf } from "./small-deployment.js";

afterEach(endDeployments);

const author = { by: "test" };

describe("a deployment", () => {
  it("gives heads routes, switches and rolls back, and has it all again after a restart", async () => {
    const folder = await newFolder();
    const trunk = await backbone();
    const first = await deploy(folder);
    await first.addModel(modelBytes(trunk), "trunk", author);
    const one = await first.addModel(modelBytes(head(trunk, [1, 0, 0, 1])), "food", author);
    const two = await first.addModel(modelBytes(head(trunk, [0, 1, 1, 0])), "food", author);
    expect(first.model("food").versions).toEqual([one, two]);
    const ask = (of: Deployment, version?: string) =>
      of.infer({ routes: ["food"], inputs: { image }, version });
    expect(scoresOf((await ask(first)).routes.food?.outputs)).toEqual([1, 3]);
    expect(scoresOf((await ask(first, two)).routes.food?.outputs)).toEqual([3, 1]);
    await first.setTargets({ food: { revisions: [{ revision: two, weight: 1 }], shadows: [] } }, author);
    expect((await ask(first)).routes.food?.revision).toBe(two);
    await first.close();

    const second = await deploy(folder);
    expect((await ask(second)).routes.food?.revision).toBe(two);
    await second.rollback("food", author);
    expect(second.history("food").map(({ action, by }) => [action, by])).toEqual([
      ["rollback", "test"],
      ["switch", "test"],
      ["add", "test"],
      ["add", "test"],
    ]);
    expect((await ask(second)).routes.food?.revision).toBe(one);
    await second.removeRoute("food", author);
    await expect(ask(second)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect(await second.repositoryIndex(false)).toContainEqual(
      expect.objectContaining({ name: "food", state: "UNAVAILABLE" }),
    );
    await second.repositoryLoad("food", undefined, author);
    expect((await ask(second)).routes.food?.revision).toBe(one);
  });

  it("keeps what was added to a route ready, over restarts and switches, and rolls back past it", async () => {
    const folder = await newFolder();
    const trunk = await backbone();
    const first = await deploy(folder);
    await first.addModel(modelBytes(trunk), "trunk", author);
    const add = (of: Deployment, factor: number) =>
      of.addModel(modelBytes(head(trunk, [factor, 0, 0, factor])), "food", author);
    const [one, two, three] = [await add(first, 1), await add(first, 2), await add(first, 3)];
    const target = (revision: string) => ({ food: { revisions: [{ revision, weight: 1 }], shadows: [] } });
    await first.setTargets(target(two), author);
    const four = await add(first, 4);
    await first.close();

    const second = await deploy(folder);
    expect(second.model("food").versions).toEqual(expect.arrayContaining([two, three, four]));
    const ask = async (version?: string) =>
      scoresOf((await second.infer({ routes: ["food"], inputs: { image }, version })).routes.food?.outputs);
    expect(await ask(three)).toEqual([3, 9]);
    expect(await ask(four)).toEqual([4, 12]);
    await second.rollback("food", author);
    expect(second.route("food").revisions).toEqual([{ revision: one, weight: 1 }]);
    expect(second.model("food").versions).toEqual(expect.arrayContaining([three, four]));
    const [last] = second.history("food");
    expect(last).toMatchObject({ action: "rollback", before: { revisions: [{ revision: two }] } });
    for (let factor = 5; factor < 22; factor++) await add(second, factor);
    expect(second.model("food").versions).not.toContain(three);
    expect(await ask()).toEqual([1, 3]);
  });

  it("refuses images of more pixels than it is told to take, before it decodes them", async () => {
    const trunk = withMetadata(await backbone(), {
      preprocessing: { width: 2, height: 2, range: [0, 1] },
    });
    const running = await deploy(await newFolder(), { imagePixels: 100 });
    await running.addModel(modelBytes(trunk), "trunk", author);
    const png = (width: number, height: number) =>
      sharp({ create: { width, height, channels: 3, background: "white" } })
        .png()
        .toBuffer();
    await expect(running.inferImage({ routes: ["trunk"], image: await png(101, 1) })).rejects.toMatchObject({
      code: "LIMIT_EXCEEDED",
    });
    // This one is decoded, and found to have a channel too many.
    await expect(running.inferImage({ routes: ["trunk"], image: await png(100, 1) })).rejects.toMatchObject({
      code: "INPUT_MISMATCH",
    });
  });

  it("has the backbones of its store as models, though no head reads them, and takes heads for them", async () => {
    const folder = await newFolder();
    const trunk = await backbone();
    const first = await deploy(folder);
    await first.addModel(modelBytes(trunk), undefined, author, "trunk.onnx");
    const other = withMetadata(trunk, { notes: ["another file of the same name"] });
    const revision = await first.addModel(modelBytes(other), undefined, author, "trunk.onnx");
    const names = ["trunk", `trunk-${revision.slice(0, 12)}`];
    expect(first.models().map(({ name }) => name)).toEqual(names);
    await first.close();

    const second = await deploy(folder);
    expect(second.models().map(({ name }) => name)).toEqual(names);
    const taps = await second.infer({ routes: ["trunk"], inputs: { image } });
    expect(taps.routes.trunk?.outputs.mean?.shape).toEqual([1, 2, 1, 1]);
    await second.addModel(modelBytes(head(trunk, [1, 0, 0, 1])), "food", author);
    const answer = await second.infer({ routes: ["food"], inputs: { image } });
    expect(scoresOf(answer.routes.food?.outputs)).toEqual([1, 3]);
  });

  it("gives a model that its store has to a route, and follows a backbone that another process adds", async () => {
    const folder = await newFolder();
    const trunk = await backbone();
    const running = await deploy(folder);
    const store = await Store.open(folder);
    await store.put(trunk, { title: "trunk.onnx" });
    await vi.waitFor(() => expect(running.models().map(({ name }) => name)).toEqual(["trunk"]), 10_000);
    const one = await store.put(head(trunk, [1, 0, 0, 1]), { title: "one.onnx" });
    const listed = async () => (await running.repositoryIndex(false)).map(({ name, state }) => [name, state]);
    expect(await listed()).toEqual([
      ["trunk", "READY"],
      ["one", "UNAVAILABLE"],
    ]);
    expect(await running.addKept(one, "food", author)).toBe(one);
    expect(await listed()).toEqual([
      ["trunk", "READY"],
      ["food", "READY"],
    ]);
    await expect(running.addKept("0".repeat(64), "food", author)).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
  });

  it("refuses a head of other features with the way to them, in names of its own", async () => {
    const trunk = await backbone();
    const running = await deploy(await newFolder());
    await running.addModel(modelBytes(trunk), "trunk", author);
    const own = head(trunk, [1, 0, 0, 1]);
    const taps = (readMetadata(own).taps ?? []).map((tap) => ({ ...tap, identity: "0".repeat(64) }));
    const stranger = modelBytes(withMetadata(own, { taps }));
    await expect(running.addModel(stranger, "food", author)).rejects.toMatchObject({
      code: "HEAD_MISMATCH",
      message: expect.stringContaining('The way to "trunk" is adapt: polyhead plan --backbone trunk.onnx'),
      details: {
        plan: {
          backbone: "trunk",
          way: "adapt",
          reasons: [expect.stringContaining("of which the head would talk nonsense")],
          command: expect.stringContaining("--head food.onnx"),
        },
      },
    });
    expect(running.routes().map(({ name }) => name)).not.toContain("food");
  });

  it("shows how good a head is, as its file says", async () => {
    const trunk = await backbone();
    const running = await deploy(await newFolder());
    await running.addModel(modelBytes(trunk), "trunk", author);
    const quality = { measure: "agreement", kept: 0.93 };
    const judged = withMetadata(head(trunk, [1, 0, 0, 1]), { quality });
    const revision = await running.addModel(modelBytes(judged), "food", author);
    expect(running.route("food").quality).toEqual(quality);
    expect(await revisionOf(await readModel(await running.modelFile(revision)))).toBe(revision);
  });

  it("compares shadows, and counts what it answered", async () => {
    const trunk = await backbone();
    const running = await deploy(await newFolder());
    await running.addModel(modelBytes(trunk), "trunk", author);
    const main = await running.addModel(modelBytes(head(trunk, [1, 0, 0, 1])), "food", author);
    const shadow = await running.addModel(modelBytes(head(trunk, [0, 1, 1, 0])), "food", author);
    const twin = await running.addModel(modelBytes(head(trunk, [2, 0, 0, 2])), "food", author);
    await running.setTargets(
      { food: { revisions: [{ revision: main, weight: 1 }], shadows: [shadow, twin] } },
      author,
    );
    for (let at = 0; at < 3; at++) await running.infer({ routes: ["food"], inputs: { image }, cache: false });
    const [opposite, same] = running.route("food").comparisons;
    expect(opposite).toMatchObject({ revision: shadow, rows: 3, agreement: 0, maxDifference: 2, failed: 0 });
    expect(same).toMatchObject({ revision: twin, rows: 3, agreement: 1, maxDifference: 3 });
    expect(running.statistics("food")).toMatchObject([
      { version: main, inferenceCount: 3, success: { count: 3 } },
    ]);
    expect(running.metrics()).toContain(
      `polyhead_requests_total{route="food",revision="${main.slice(0, 12)}"} 3`,
    );
  });

  it("promotes a canary, and rolls one back that crosses its limits", async () => {
    const trunk = await backbone();
    const running = await deploy(await newFolder());
    await running.addModel(modelBytes(trunk), "trunk", author);
    const main = await running.addModel(modelBytes(head(trunk, [1, 0, 0, 1])), "food", author);
    const canary = await running.addModel(modelBytes(head(trunk, [0, 1, 1, 0])), "food", author);
    const revisions = [
      { revision: main, weight: 1 },
      { revision: canary, weight: 1e6 },
    ];
    await running.setTargets({ food: { revisions, shadows: [] } }, author);
    expect((await running.infer({ routes: ["food"], inputs: { image } })).routes.food?.revision).toBe(canary);
    await running.promote("food", author);
    expect(running.route("food").revisions).toEqual([{ revision: canary, weight: 1 }]);
    await expect(running.promote("food", author)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    const limits = { requests: 1, latency: 1e-9 };
    const slow = [
      { revision: canary, weight: 1 },
      { revision: main, weight: 1e6 },
    ];
    await running.setTargets({ food: { revisions: slow, shadows: [], limits } }, author);
    await running.infer({ routes: ["food"], inputs: { image } });
    await running.setTargets({}, author); // behind the rollback, because changes go one after the other
    expect(running.route("food").revisions).toEqual([{ revision: canary, weight: 1 }]);
    expect(running.history("food")[0]).toMatchObject({
      by: "polyhead",
      reason: expect.stringMatching(/limits/),
    });
  });

  it("follows a store that another process changes, and says what does not load", async () => {
    const folder = await newFolder();
    const trunk = await backbone();
    const running = await deploy(folder);
    await running.addModel(modelBytes(trunk), "trunk", author);
    const store = await Store.open(folder);
    const revision = await store.put(head(trunk, [1, 2, 3, 4]), { title: "other.onnx" });
    const stranger = await store.put(
      withMetadata(head(trunk, [1, 1, 1, 1]), {
        taps: (readMetadata(trunk).taps ?? []).map((tap) => ({ ...tap, identity: "0".repeat(64) })),
      }),
    );
    await store.change(
      (routes) => {
        routes.set("other", { targets: [{ revision, weight: 1 }] });
        routes.set("stranger", { targets: [{ revision: stranger, weight: 1 }] });
      },
      { by: "elsewhere", reason: "test" },
    );
    await expect.poll(() => running.routes().map(({ name }) => name), { timeout: 20_000 }).toContain("other");
    expect(await running.repositoryIndex(false)).toContainEqual(
      expect.objectContaining({
        name: "stranger",
        state: "UNAVAILABLE",
        reason: expect.stringMatching(/identity/),
      }),
    );
    expect(
      scoresOf((await running.infer({ routes: ["other"], inputs: { image } })).routes.other?.outputs),
    ).toEqual([10, 14]);
  });

  it.skipIf(!hasFixtures)(
    "answers several models of a family as their goldens say, together and alone",
    async () => {
      const running = await deploy(await newFolder());
      const goldens = readNpz(await readFile(join(fixturesDir, "family", "goldens.npz")));
      const input = goldens.get("input");
      if (!input) throw new Error("no input");
      const names = ["animals", "flowers", "weather"];
      for (const name of names) {
        const whole = await loadModel(join(fixturesDir, "family", `${name}.onnx`));
        await running.addModel(modelBytes(whole), name, author);
      }
      const inputs = { input };
      const { routes } = await running.infer({ routes: names, inputs });
      for (const name of names) {
        const expected = toNumbers(goldens.get(name) ?? input);
        for (const result of [routes[name], (await running.infer({ routes: [name], inputs })).routes[name]]) {
          const got = toNumbers(result?.outputs.logits ?? input);
          expect(got.length).toBe(expected.length);
          for (const [at, value] of got.entries()) expect(value).toBeCloseTo(expected[at] ?? Number.NaN, 4);
        }
      }
    },
  );
});
