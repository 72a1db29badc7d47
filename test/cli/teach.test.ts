/** The verb teach as a process, with its files and exit statuses. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModel, saveModel } from "../../src/files/disk.js";
import { readMetadata } from "../../src/onnx/metadata.js";
import { foodFolder, randomBackbone } from "../teach/photos.js";
import { polyhead } from "./command.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  await foodFolder(join(folder, "food"), { B: "pulses", C: "leafy vegetables", E: "fruits" }, 14);
  await saveModel(join(folder, "backbone.onnx"), randomBackbone());
});
afterAll(() => rm(folder, { recursive: true }));

describe("polyhead teach", () => {
  const given = () => [
    ...["teach", "--backbone", join(folder, "backbone.onnx"), "--data", join(folder, "food")],
    ...["-o", join(folder, "head.onnx"), "--cache", join(folder, "command-cache")],
  ];

  it("writes a head and prints its report as one document", async () => {
    const run = await polyhead(...given(), "--tap", "c2", "--folds", "4", "--seed", "2", "--json");
    expect(run).toMatchObject({ status: 0, stderr: "" });
    const report = JSON.parse(run.stdout);
    expect(report).toMatchObject({ path: join(folder, "head.onnx"), examples: 42, folds: 4, seed: 2 });
    expect(report.accuracy.folds).toHaveLength(4);
    expect(report.confusion.flat().reduce((sum: number, value: number) => sum + value, 0)).toBe(42);
    const head = await loadModel(join(folder, "head.onnx"));
    expect(readMetadata(head).quality).toMatchObject({ accuracy: report.accuracy.mean });
  });

  it("prints accuracy, classes and confusions for people", async () => {
    const { stdout, stderr } = await polyhead(...given(), "--tap", "c2");
    expect(stderr).toBe("");
    expect(stdout).toMatch(/accuracy \d+\.\d % ± \d+\.\d % over 5 folds; the largest class alone 33\.3 %/);
    expect(stdout).toMatch(/leafy vegetables +0\.\d{3} +0\.\d{3} +0\.\d{3} +14/);
    expect(stdout).toContain("confusion (row: is, column: called)");
    for (const line of stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(110);
  });

  it.each([
    ["an unknown tap", ["--tap", "c9"], 66],
    ["an unknown method", ["--tap", "c2", "--method", "luck"], 64],
    ["folds that are no number", ["--tap", "c2", "--folds", "many"], 64],
    ["a single fold", ["--tap", "c2", "--folds", "1"], 64],
  ])("ends with its own status for %s", async (_, change, status) => {
    const run = await polyhead(...given(), ...change);
    expect(run.status).toBe(status);
    expect(run.stdout).toBe("");
    expect(run.stderr).not.toBe("");
  });
});
