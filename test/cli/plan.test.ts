/** The verb plan as a process: what it prints, and what it writes. */
import { mkdtemp, rm } from "node:fs/promises";
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

describe("polyhead plan", () => {
  it("prints way, reasons, nothing measured and the line that does it for a head that fits", async () => {
    const run = await polyhead("plan", "--backbone", at("old.onnx"), "--head", at("head.onnx"), "--json");
    expect(run).toMatchObject({ status: 0, stderr: "" });
    expect(JSON.parse(run.stdout)).toEqual({
      way: "swap",
      reasons: [expect.stringContaining("it fits")],
      measured: [],
      skipped: [],
      command: `polyhead heads add ${at("head.onnx")} --route head`,
      written: [],
    });
  });

  it("measures, recommends, and with --apply writes what it recommends", async () => {
    const run = await polyhead(
      ...["plan", "--backbone", at("new.onnx"), "--head", at("head.onnx"), "--from", at("old.onnx")],
      ...["--data", at("food"), "--cache", at("cache"), "--apply", at("made"), "--json"],
    );
    expect(run).toMatchObject({ status: 0, stderr: "" });
    const plan = JSON.parse(run.stdout);
    expect(plan.measured).toHaveLength(3);
    expect(plan.measured[1]).toMatchObject({
      way: "adapt",
      measure: "accuracy",
      quality: { value: expect.any(Number), low: expect.any(Number), high: expect.any(Number) },
      milliseconds: { alone: expect.any(Number) },
      bytes: expect.any(Number),
      seconds: expect.any(Number),
      others: expect.any(String),
      command: expect.stringContaining("polyhead adapt"),
    });
    const chosen = plan.measured.find((each: { way: string }) => each.way === plan.way);
    expect(plan.command).toBe(chosen.command);
    expect(plan.written).toHaveLength(1);
    const fits = await polyhead("plan", "--backbone", at("new.onnx"), "--head", plan.written[0], "--json");
    expect(JSON.parse(fits.stdout).way).toBe("swap");
    expect(readMetadata(await loadModel(plan.written[0])).labels).toEqual([
      "fruits",
      "leafy vegetables",
      "pulses",
    ]);
  });

  it.each([
    ["no such head", ["--head", "nowhere.onnx"], 66],
    ["a floor that is no share", ["--floor", "-1"], 64],
    ["no time", ["--seconds", "0"], 64],
  ])("ends with its own status for %s", async (_, change, status) => {
    const given = ["plan", "--backbone", at("new.onnx"), "--head", at("head.onnx"), ...change];
    expect((await polyhead(...given)).status).toBe(status);
  });
});
