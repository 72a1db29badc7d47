/** Which way to a head: from the graphs alone, and measured on photos. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openEngine } from "../../src/index.js";
import { graph, type Model, model, node, valueInfo, withMetadata } from "../../src/onnx/index.js";
import {
  type Measured,
  measureWays,
  option,
  reasonFromGraphs,
  recommended,
  waysPlot,
} from "../../src/plan/index.js";
import { plotSvg } from "../../src/report/plot.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { teachImages } from "../../src/teach/index.js";
import { useRuntime } from "../onnx/runtime.js";
import { foodFolder, randomBackbone } from "../teach/photos.js";

const backbone = randomBackbone();
const other = randomBackbone(8);
const open = useRuntime();

let folder: string;
let data: string;
let food: Model;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  data = join(folder, "food");
  await foodFolder(data, { B: "pulses", C: "leafy vegetables", E: "fruits" }, 14);
  food = (await teachImages({ backbone, tap: "c2", data, open, method: "ridge" })).model;
});
afterAll(() => rm(folder, { recursive: true }));

describe("the graphs say", () => {
  it("swap, when the backbone makes what the head reads, whatever its names", async () => {
    const finding = await reasonFromGraphs(backbone, food);
    expect(finding).toMatchObject({ way: "swap", unknown: [] });
    expect(finding.reasons[0]).toContain("it fits as it is");
  });

  it("adapt, when a tap has the same shape but is another value, and name the tap", async () => {
    const finding = await reasonFromGraphs(other, food, backbone);
    expect(finding).toMatchObject({ way: "adapt", sameShape: { c2: "c2" } });
    expect(finding.reasons.join(" ")).toMatch(/that shape but the identity [0-9a-f]{12}: other features/);
    expect(finding.reasons.join(" ")).toContain("no layer in common");
    expect(finding.unknown).toHaveLength(1);
  });

  it("adapt, when no tap has the width", async () => {
    const narrow = withMetadata(
      model(
        graph("narrow", {
          nodes: [node("Relu", ["image"], ["r"])],
          inputs: [valueInfo("image", "float32", [1, 3, 48, 48])],
          outputs: [valueInfo("r", "float32", [1, 3, 48, 48])],
          weights: [],
        }),
      ),
      { role: "backbone" },
    );
    const finding = await reasonFromGraphs(narrow, food);
    expect(finding).toMatchObject({ way: "adapt", sameShape: undefined });
    expect(finding.reasons[0]).toContain("makes nothing of that shape");
  });

  it("tune, for a head that does not say what it reads", async () => {
    const stranger = withMetadata(food, { taps: undefined });
    expect(await reasonFromGraphs(backbone, stranger)).toMatchObject({ way: "tune" });
  });
});

describe("measured on photos", () => {
  const measuring = {
    openEngine: () => openEngine(),
    openTrainer: () => Runtime.open(() => OrtWorker.start()),
    files: { head: "food.onnx", backbone: "other.onnx", from: "backbone.onnx", data: "photos" },
  };

  it("all ways stand side by side, and the forced swap is worse than an adapter", async () => {
    const { ways, skipped } = await measureWays({
      ...{ ...measuring, head: food, from: backbone, to: other, data, open, others: [], budgetSeconds: 600 },
      finding: await reasonFromGraphs(other, food),
    });
    expect(skipped).toEqual([]);
    expect(ways.map(({ way }) => way)).toEqual(["swap", "adapt", "adapt", "tune", "tune", "tune"]);
    const [swap, adapt, learned, tune, branch, full] = ways;
    expect(swap?.quality.value).toBeLessThan(adapt?.quality.value ?? 0);
    expect(learned).toMatchObject({ data: "42 images with classes" });
    expect(learned?.command).toContain("--learn adapter");
    expect(branch?.command).toContain("polyhead tune other.onnx --way branch");
    expect(full?.command).toContain("polyhead tune other.onnx --way full");
    for (const each of ways) {
      expect(each.measure).toBe("accuracy");
      expect(each.quality.low).toBeLessThanOrEqual(each.quality.value);
      expect(each.quality.high).toBeGreaterThanOrEqual(each.quality.value);
      expect(each.milliseconds.alone).toBeGreaterThan(0);
      expect(each.milliseconds.beside).toBeUndefined();
      expect(each.bytes).toBeGreaterThan(0);
      expect(each.files.size).toBe(each.command.includes("--backbone-out") ? 2 : 1);
      expect(each.judgedOn).not.toBe("");
    }
    const svg = plotSvg(waysPlot(ways));
    for (const { name } of ways) expect(svg).toContain(name);
    expect(svg.match(/stroke-opacity/g)).toHaveLength(ways.length);
    expect(adapt?.command).toContain("polyhead adapt --head food.onnx --to other.onnx --from backbone.onnx");
    expect(tune?.command).toContain("polyhead teach --backbone other.onnx");
  });

  it("what there is no time for is listed with how long it would take", async () => {
    const { ways, skipped } = await measureWays({
      ...{ ...measuring, head: food, from: backbone, to: other, data, open, others: [], budgetSeconds: 1e-9 },
      finding: await reasonFromGraphs(other, food),
    });
    expect(ways).toEqual([]);
    expect(skipped).toHaveLength(6);
    for (const { why, estimatedSeconds } of skipped) {
      expect(why).toContain("raise --seconds");
      expect(estimatedSeconds).toBeGreaterThan(0);
    }
  });

  it("what cannot be measured is listed with its reason", async () => {
    const { ways, skipped } = await measureWays({
      ...{ ...measuring, head: food, to: other, data: join(data, "fruits"), open, budgetSeconds: 600 },
      finding: { ...(await reasonFromGraphs(other, food)), sameShape: undefined },
      others: [{ name: "food", head: food }],
    });
    expect(ways).toEqual([]);
    expect(skipped.map(({ way }) => way)).toEqual(["swap", "adapt", "adapt", "tune", "tune", "tune"]);
    for (const { why } of skipped) expect(why).not.toBe("");
  });
});

describe("a line for the shell", () => {
  it("quotes what the shell would take apart, and leaves the rest as it is", () => {
    expect(option("from", undefined)).toBe("");
    expect(option("from", "models/old.onnx")).toBe(" --from models/old.onnx");
    expect(option("preprocess", '{"height":48}')).toBe(` --preprocess '{"height":48}'`);
    expect(option("data", "Tom's photos")).toBe(" --data 'Tom'\\''s photos'");
  });
});

describe("the rule", () => {
  const made = (way: Measured["way"], measure: Measured["measure"], value: number): Measured => ({
    ...{ way, measure, how: way, bytes: 1, seconds: 1, others: "none", command: "" },
    quality: { value, low: value - 0.1, high: value + 0.1 },
    milliseconds: { alone: 1, beside: undefined },
    ...{ judgedOn: "", data: "", name: way },
  });

  it("takes the way that changes least among those within the interval of the best", () => {
    const [swap, adapt, tune] = [
      made("swap", "accuracy", 0.2),
      made("adapt", "accuracy", 0.75),
      made("tune", "accuracy", 0.8),
    ];
    expect(recommended([swap, adapt, tune], 0.9)).toBe(adapt);
    expect(recommended([swap, made("adapt", "accuracy", 0.6), tune], 0.9)).toBe(tune);
  });

  it("by agreement alone asks for the floor", () => {
    const adapt = made("adapt", "agreement", 0.85);
    expect(recommended([adapt], 0.9)).toBeUndefined();
    expect(recommended([adapt], 0.8)).toBe(adapt);
  });

  it("never takes a way that is worse than the interval of the best", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 5 }),
        (values) => {
          const ways = values.map((value) => made("tune", "accuracy", value));
          const chosen = recommended(ways, 0.9);
          expect(chosen?.quality.value).toBeGreaterThanOrEqual(Math.max(...values) - 0.1 - 1e-12);
        },
      ),
    );
  });
});
