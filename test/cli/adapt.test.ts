/** The verb adapt as a process, with its files and exit statuses. */
import { access, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModel, saveModel } from "../../src/files/disk.js";
import { readMetadata } from "../../src/onnx/metadata.js";
import { foodFolder, randomBackbone } from "../teach/photos.js";
import { polyhead } from "./command.js";

let folder: string;
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  await foodFolder(at("food"), { B: "pulses", C: "leafy vegetables", E: "fruits" }, 14);
  await saveModel(at("old.onnx"), randomBackbone());
  await saveModel(at("new.onnx"), randomBackbone(8));
  const taught = await polyhead(
    ...["teach", "--backbone", at("old.onnx"), "--tap", "c2", "--data", at("food")],
    ...["-o", at("head.onnx"), "--method", "ridge", "--cache", at("cache")],
  );
  expect(taught.status).toBe(0);
});
afterAll(() => rm(folder, { recursive: true }));

describe("polyhead adapt", () => {
  const given = (out: string) => [
    ...["adapt", "--head", at("head.onnx"), "--from", at("old.onnx"), "--to", at("new.onnx")],
    ...["--data", at("food"), "-o", at(out), "--cache", at("cache")],
  ];

  it("writes adapter and folded head and prints one document", async () => {
    const run = await polyhead(...given("a.onnx"), "--floor", "0", "--folded", at("f.onnx"), "--json");
    expect(run).toMatchObject({ status: 0, stderr: "" });
    const report = JSON.parse(run.stdout);
    expect(report).toMatchObject({
      path: at("a.onnx"),
      foldedPath: at("f.onnx"),
      examples: 42,
      labelled: true,
    });
    expect(report.taps.map(({ tap }: { tap: string }) => tap)).toEqual(["c1", "c2"]);
    expect(readMetadata(await loadModel(at("a.onnx")))).toMatchObject({
      role: "adapter",
      provenance: { by: "polyhead adapt", head: "head.onnx", from: "old.onnx", to: "new.onnx" },
    });
    expect(readMetadata(await loadModel(at("f.onnx")))).toMatchObject({
      role: "head",
      labels: ["fruits", "leafy vegetables", "pulses"],
    });
  });

  it("joins into a model that answers from the new backbone", async () => {
    expect((await polyhead(...given("b.onnx"), "--floor", "0")).status).toBe(0);
    const joined = await polyhead(
      "join",
      at("new.onnx"),
      at("b.onnx"),
      at("head.onnx"),
      "-o",
      at("whole.onnx"),
    );
    expect(joined).toMatchObject({ status: 0 });
    const without = await polyhead("join", at("new.onnx"), at("head.onnx"), "-o", at("wrong.onnx"));
    expect(without.status).toBe(65);
  });

  it("prints the ladder for people", async () => {
    const { stdout } = await polyhead(...given("c.onnx"), "--floor", "0", "--tap", "c2");
    for (const word of ["procrustes", "low-rank", "least-squares", "chosen", "of its quality is kept"])
      expect(stdout).toContain(word);
  });

  it("refuses what keeps too little, and writes nothing", async () => {
    const run = await polyhead(
      ...given("d.onnx"),
      "--floor",
      "1",
      "--rung",
      "low-rank",
      "--tap",
      "c1",
      "--json",
    );
    expect(run.status).toBe(70);
    const { error } = JSON.parse(run.stdout);
    expect(error).toMatchObject({ code: "QUALITY_TOO_LOW" });
    expect(error.details.report).toBeDefined();
    await expect(access(at("d.onnx"))).rejects.toThrow();
  });

  it.each([
    ["a floor that is no share", ["--floor", "2"], 64],
    ["an unknown rung", ["--rung", "ladder"], 64],
    ["an unknown tap", ["--tap", "c9"], 66],
    ["no images", ["--data", "nowhere"], 66],
  ])("ends with its own status for %s", async (_, change, status) => {
    expect((await polyhead(...given("e.onnx"), ...change)).status).toBe(status);
  });
});
