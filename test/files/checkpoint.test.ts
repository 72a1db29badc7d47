/** Checkpoints: what is kept comes back, of the same training only, whatever is killed or damaged in between. */
import { spawn } from "node:child_process";
import { copyFile, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Checkpoints, type TrainingIdentity } from "../../src/files/checkpoint.js";
import { float32, int64 } from "../../src/tensor/index.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
});
afterAll(() => rm(folder, { recursive: true }));

const identity: TrainingIdentity = {
  settings: { seed: 1, optimizer: { name: "adam", betas: [0.9, 0.999] }, epochs: 3, unset: undefined },
  data: "sha256:aa",
  model: "sha256:bb",
};
const state = (step: number) => ({
  step,
  arrays: new Map([
    ["weight", float32([2, 2], [1.5, -2, step, 0])],
    ["adam/weight.m", float32([2, 2], [0, 0.1, 0.2, 0.3])],
    ["count", int64([], [step])],
  ]),
  progress: { losses: [2.5, 1.25], best: 1 },
});

describe("a checkpoint", () => {
  it("comes back as it was, the last one only", async () => {
    const own = join(folder, "own");
    const checkpoints = new Checkpoints(own, identity);
    expect(await checkpoints.load()).toBeUndefined();
    await checkpoints.save(state(10));
    await checkpoints.save(state(20));
    expect(await new Checkpoints(own, identity).load()).toEqual(state(20));
    const names = await readdir(own);
    expect(names.sort()).toEqual(["checkpoint.json", expect.stringMatching(/^step-20\.[0-9a-f]{16}\.npz$/)]);
    await checkpoints.save(state(20));
    expect((await readdir(own)).sort()).toEqual(names);
    await checkpoints.clear();
    expect(await checkpoints.load()).toBeUndefined();
    expect(await readdir(own)).toEqual([]);
  });

  it("is of one training: other settings, data or models are refused by name", async () => {
    const own = join(folder, "same");
    await new Checkpoints(own, identity).save(state(5));
    const before = await readdir(own);
    const reordered = { optimizer: { betas: [0.9, 0.999], name: "adam" }, epochs: 3, seed: 1 };
    expect((await new Checkpoints(own, { ...identity, settings: reordered }).load())?.step).toBe(5);
    const others: [Partial<TrainingIdentity>, RegExp][] = [
      [{ settings: { ...identity.settings, seed: 2 } }, /seed was 1 and is 2/],
      [{ settings: { ...identity.settings, extra: true } }, /extra was nothing and is true/],
      [{ settings: { seed: 1, epochs: 3 } }, /optimizer was .* and is nothing/],
      [{ data: "sha256:cc" }, /data is not the same/],
      [{ model: "sha256:cc" }, /model is not the same/],
    ];
    for (const [change, message] of others) {
      await expect(new Checkpoints(own, { ...identity, ...change }).load()).rejects.toMatchObject({
        code: "INVALID_ARGUMENT",
        message: expect.stringMatching(message),
      });
    }
    expect(await readdir(own)).toEqual(before);
  });

  it("that is damaged is found out", async () => {
    const own = join(folder, "damaged");
    const checkpoints = new Checkpoints(own, identity);
    await checkpoints.save(state(7));
    const json = join(own, "checkpoint.json");
    const arrays = join(own, (await readdir(own)).find((name) => name.endsWith(".npz")) ?? "");
    const [goodJson, goodArrays] = [await readFile(json, "utf8"), await readFile(arrays)];
    const flipped = Uint8Array.from(goodArrays);
    flipped[200] = (flipped[200] ?? 0) ^ 1;
    const damages: (() => Promise<unknown>)[] = [
      () => writeFile(arrays, flipped),
      () => truncate(arrays, 100),
      () => rm(arrays),
      () => writeFile(json, goodJson.slice(0, 50)),
      () => writeFile(json, "[]"),
      () => writeFile(json, "null"),
      () => writeFile(json, goodJson.replace('"version": 1', '"version": 9')),
      () => writeFile(json, goodJson.replace(/"file": "[^"]+"/, '"file": "../../secret.npz"')),
      () => writeFile(json, goodJson.replace('"step": 7', '"step": "7"')),
    ];
    for (const damage of damages) {
      await damage();
      await expect(checkpoints.load(), `${damage}`).rejects.toMatchObject({ code: "DATA_MALFORMED" });
      await writeFile(json, goodJson);
      await writeFile(arrays, goodArrays);
      expect(await checkpoints.load()).toEqual(state(7));
    }
  });

  it("before its time leaves the one before: arrays without their JSON are swept away", async () => {
    const own = join(folder, "early");
    const checkpoints = new Checkpoints(own, identity);
    await checkpoints.save(state(1));
    const json = await readFile(join(own, "checkpoint.json"));
    const first = (await readdir(own)).find((name) => name.endsWith(".npz")) ?? "";
    await copyFile(join(own, first), join(folder, "kept.npz"));
    await checkpoints.save(state(2));
    // As if killed between the arrays of the second and its JSON.
    await writeFile(join(own, "checkpoint.json"), json);
    await copyFile(join(folder, "kept.npz"), join(own, first));
    await writeFile(join(own, "checkpoint.json.1234.part"), "{");
    expect(await checkpoints.load()).toEqual(state(1));
    await checkpoints.save(state(3));
    expect(await readdir(own)).toHaveLength(2);
  });

  it("survives kills at any moment", async () => {
    const own = join(folder, "killed");
    const program = `
      import { Checkpoints } from ${JSON.stringify(new URL("../../dist/files/checkpoint.js", import.meta.url).href)};
      import { float32 } from ${JSON.stringify(new URL("../../dist/tensor/index.js", import.meta.url).href)};
      const checkpoints = new Checkpoints(${JSON.stringify(own)}, ${JSON.stringify(identity)});
      let step = (await checkpoints.load())?.step ?? 0;
      process.stdout.write("ready");
      for (;;) {
        step++;
        await checkpoints.save({ step, arrays: new Map([["w", float32([50000], new Float32Array(50000).fill(step))]]), progress: step });
      }`;
    let last = 0;
    for (let round = 0; round < 6; round++) {
      const child = spawn(process.execPath, ["--input-type=module", "-e", program]);
      await new Promise((resolve) => child.stdout.once("data", resolve));
      await sleep(20 + 17 * round);
      child.kill("SIGKILL");
      await new Promise((resolve) => child.once("exit", resolve));
      const found = await new Checkpoints(own, identity).load();
      if (!found) continue;
      expect(found.step).toBeGreaterThanOrEqual(last);
      expect(found.progress).toBe(found.step);
      expect(found.arrays.get("w")).toEqual(float32([50000], new Float32Array(50000).fill(found.step)));
      last = found.step;
    }
    expect(last).toBeGreaterThan(0);
  });

  it("that cannot be written says so and leaves the one before", async () => {
    const blocked = join(folder, "file");
    await writeFile(blocked, "");
    await expect(new Checkpoints(join(blocked, "in"), identity).save(state(1))).rejects.toMatchObject({
      code: "FILE_NOT_WRITTEN",
    });
  });
});
