/** Which way to a head: from the graphs alone, and measured on photos. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openEngine } from "../../src/index.js";
import { graph, type Model, model, node, valueInfo, withMetadata } from "../../src/onnx/index.js";
import { type Measured, measureWays, reasonFromGraphs, recommended } from "../../src/plan/index.js";
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
  it("all three ways stand side by side, and the forced swap is the worst", async () => {
    const { ways, skipped } = await measureWays({
      ...{ head: food, from: backbone, to: other, data, open, others: [], budgetSeconds: 600 },
      finding: await reasonFromGraphs(other, food),
      openEngine: () => openEngine(),
      files: { head: "food.onnx", backbone: "other.onnx", from: "backbone.onnx", data: "photos" },
    });
    expect(skipped).toEqual([]);
    expect(ways.map(({ way }) => way)).toEqual(["swap", "adapt", "tune"]);
    const [swap, adapt, tune] = ways;
    expect(swap?.quality.value).toBeLessThan(adapt?.quality.value ?? 0);
    for (const each of ways) {
      expect(each.measure).toBe("accuracy");
      expect(each.quality.low).toBeLessThanOrEqual(each.quality.value);
      expect(each.quality.high).toBeGreaterThanOrEqual(each.quality.value);
      expect(each.milliseconds.alone).toBeGreaterThan(0);
      expect(each.milliseconds.beside).toBeUndefined();
      expect(each.bytes).toBeGreaterThan(0);
      expect(each.files.size).toBe(1);
    }
    expect(adapt?.command).toContain("polyhead adapt --head food.onnx --from backbone.onnx --to other.onnx");
    expect(tune?.command).toContain("polyhead teach --backbone other.onnx");
  });

  it("what cannot be measured is listed with its reason", async () => {
    const { ways, skipped } = await measureWays({
      ...{ head: food, to: other, data: join(data, "fruits"), open, others: [food], budgetSeconds: 600 },
      finding: { ...(await reasonFromGraphs(other, food)), sameShape: undefined },
      openEngine: () => openEngine(),
      files: { head: "food.onnx", backbone: "other.onnx", data: "photos" },
    });
    expect(ways).toEqual([]);
    expect(skipped.map(({ way }) => way)).toEqual(["swap", "adapt", "tune"]);
    for (const { why } of skipped) expect(why).not.toBe("");
  });
});

describe("the rule", () => {
  const made = (way: Measured["way"], measure: Measured["measure"], value: number): Measured => ({
    ...{ way, measure, how: way, bytes: 1, seconds: 1, others: "none", command: "" },
    quality: { value, low: value - 0.1, high: value + 0.1 },
    milliseconds: { alone: 1, beside: undefined },
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
