/** The verb inspect as a process. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { saveModel } from "../../src/files/disk.js";
import { withMetadata } from "../../src/onnx/metadata.js";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { architecture, CLASSES } from "../onnx/architectures.js";
import { polyhead } from "./command.js";

const IDENTITY = "a".repeat(64);
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  const taps = [{ name: "features", dtype: "float32", shape: ["N", 6], identity: IDENTITY }] as const;
  await saveModel(
    join(folder, "excite.onnx"),
    withMetadata(architecture("squeeze and excite", "N"), {
      role: "head",
      task: "classification",
      labels: ["cat", "dog"],
      taps,
    }),
  );
  await writeFile(join(folder, "broken.onnx"), "not a model");
});
afterAll(() => rm(folder, { recursive: true }));

const at = (name: string) => join(folder, name);

// 6 filters of 4 x 3 x 3, 6 x 6 gates, and the classifier.
const BACKBONE = 6 * 4 * 3 * 3 + 6 * 6;
const HEAD = 6 * CLASSES + CLASSES;

describe("polyhead inspect", () => {
  it("prints one document with --json", async () => {
    const run = await polyhead("inspect", at("excite.onnx"), "--json");
    expect(run).toMatchObject({ status: 0, stderr: "" });
    const report = JSON.parse(run.stdout);
    expect(report).toMatchObject({
      file: "excite.onnx",
      producer: "polyhead",
      opsets: { "ai.onnx": 17 },
      inputs: [{ name: "x", dtype: "float32", shape: ["N", 4, 8, 8] }],
      outputs: [{ name: "logits", dtype: "float32", shape: ["N", CLASSES] }],
      operators: { Conv: 2, Gemm: 1, ReduceMean: 1, Sigmoid: 1, Mul: 1, GlobalAveragePool: 1, Flatten: 1 },
      parameters: BACKBONE + HEAD,
      metadata: {
        role: "head",
        task: "classification",
        labels: ["cat", "dog"],
        taps: [{ name: "features" }],
      },
    });
    expect(report.cuts[0]).toMatchObject({
      isDefault: true,
      values: [{ name: "features", dtype: "float32", shape: ["N", 6] }],
      backbone: { parameters: BACKBONE },
      head: { parameters: HEAD, flops: 2 * 6 * CLASSES },
    });
    expect(report.flops).toBe(report.cuts[0].backbone.flops + report.cuts[0].head.flops);
  });

  it("prints the same for people, the default cut marked", async () => {
    const run = await polyhead("inspect", at("excite.onnx"));
    expect(run).toMatchObject({ status: 0, stderr: "" });
    const lines = run.stdout.split("\n");
    expect(lines[0]).toContain(`${BACKBONE + HEAD} parameters`);
    expect(lines).toContainEqual(expect.stringMatching(/^input +x +float32 +\[N, 4, 8, 8\]$/));
    expect(lines).toContainEqual(expect.stringMatching(/^output +logits +float32 +\[N, 5\]$/));
    expect(lines).toContainEqual(expect.stringMatching(/^tap +features +float32 +\[N, 6\]$/));
    expect(lines).toContainEqual(
      expect.stringMatching(new RegExp(`^\\* +features +float32 +\\[N, 6\\] +${BACKBONE} .* ${HEAD} `)),
    );
    expect(lines).toEqual(expect.arrayContaining(["role: head", "task: classification", "labels: 2"]));
  });

  /** A model of one operator between `x` and a Relu, of the given opset. */
  async function saveWith(name: string, opType: string, opset: number) {
    const main = graph(name, {
      nodes: [node(opType, ["x"], ["h"]), node("Relu", ["h"], ["y"])],
      inputs: [valueInfo("x", "float32", ["N", 4])],
      outputs: [valueInfo("y", "float32", ["N", 4])],
      weights: [],
    });
    await saveModel(at(`${name}.onnx`), model(main, opset));
  }

  it("shows a model in training mode as split takes it, and says so", async () => {
    await saveWith("training", "Dropout", 17);
    const run = await polyhead("inspect", at("training.onnx"), "--json");
    const split = await polyhead(...["split", at("training.onnx"), "--at", "h", "-o", at("parts"), "--json"]);
    expect(run).toMatchObject({ status: 0, stderr: "" });
    const report = JSON.parse(run.stdout);
    expect(report.notes).toEqual([expect.stringContaining("Dropout")]);
    expect(JSON.parse(split.stdout).notes).toEqual(report.notes);
    expect(report.operators).toEqual({ Identity: 1, Relu: 1 });
    expect((await polyhead("inspect", at("training.onnx"))).stdout).toContain(`note: ${report.notes[0]}`);
  });

  it("reads models of other formats as import does, and says so", async () => {
    const emotion = fileURLToPath(
      new URL("../../node_modules/@vladmandic/human/models/emotion.json", import.meta.url),
    );
    const run = await polyhead("inspect", emotion, "--json");
    expect(run.status).toBe(0);
    expect(JSON.parse(run.stdout)).toMatchObject({
      file: "emotion.json",
      inputs: [{ name: "input_1", shape: ["batch", 64, 64, 1] }],
      notes: ["Read as TF.js graph model, as import does."],
    });
  });

  it("says that split refuses a model that draws random numbers", async () => {
    await saveWith("random", "RandomNormalLike", 17);
    const run = await polyhead("inspect", at("random.onnx"), "--json");
    expect(run).toMatchObject({ status: 0, stderr: "" });
    const { operators, cuts, notes } = JSON.parse(run.stdout);
    expect(operators).toEqual({ RandomNormalLike: 1, Relu: 1 });
    expect([cuts, notes]).toEqual([[], [expect.stringContaining("draws random numbers")]]);
  });

  it.each([
    ["a broken file", "broken.onnx", 65, "MODEL_MALFORMED"],
    ["no file", "nowhere.onnx", 66, "FILE_NOT_FOUND"],
  ])("fails for %s", async (_, name, status, code) => {
    const run = await polyhead("inspect", at(name), "--json");
    expect({ status: run.status, code: JSON.parse(run.stdout).error.code }).toEqual({ status, code });
  });
});
