/** What an adapter must not be made of: features that have nothing to do with the head's, too few, broken ones. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { adaptHead, readingsOf } from "../../src/adapt/index.js";
import { gaussian, seededRandom } from "../../src/base/random.js";
import { graph, type Model, model, node, type Tap, valueInfo, withMetadata } from "../../src/onnx/index.js";
import { weight } from "../../src/onnx/weight.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import type { Matrix } from "../../src/teach/index.js";
import { float32 } from "../../src/tensor/index.js";
import { useRuntime } from "../onnx/runtime.js";

const open = useRuntime();
const CLASSES = 5;

const tapOf = (name: string, width: number): Tap => ({
  name,
  dtype: "float32",
  shape: ["batch", width],
  identity: "a".repeat(64),
});

/** A linear classifier of vectors with random weights. */
function classifier(width: number): Model {
  const random = seededRandom(1);
  const values = Float32Array.from({ length: width * CLASSES }, () => gaussian(random));
  const main = graph("classifier", {
    nodes: [node("MatMul", ["old", "matrix"], ["scores"])],
    inputs: [valueInfo("old", "float32", ["batch", width])],
    outputs: [valueInfo("scores", "float32", ["batch", CLASSES])],
    weights: [weight("matrix", float32([width, CLASSES], values))],
  });
  return withMetadata(model(main), { role: "head", taps: [tapOf("old", width)], task: "classification" });
}

/** The classes that the classifier gives, by its own matrix. */
function answers(features: Matrix): number[] {
  const random = seededRandom(1);
  const matrix = Float32Array.from({ length: features.columns * CLASSES }, () => gaussian(random));
  return Array.from({ length: features.rows }, (_, example) => {
    const scores = Array.from({ length: CLASSES }, (__, at) =>
      Array.from({ length: features.columns }).reduce<number>(
        (sum, ___, column) =>
          sum +
          (features.data[example * features.columns + column] ?? 0) * (matrix[column * CLASSES + at] ?? 0),
        0,
      ),
    );
    return scores.indexOf(Math.max(...scores));
  });
}

function noise(rows: number, columns: number, seed: number): Matrix {
  const random = seededRandom(seed);
  return { rows, columns, data: Float64Array.from({ length: rows * columns }, () => gaussian(random)) };
}

function adapting(source: Matrix, target: Matrix, floor?: number, more = {}) {
  const head = classifier(target.columns);
  const [reading] = readingsOf(head);
  if (!reading) throw new Error("the head reads nothing");
  const pooling = { axes: [], channels: source.columns };
  const offers = [{ tap: tapOf("new", source.columns), pooling, features: source, flops: 1 }];
  return adaptHead({ head, reading, target, offers, open, ...(floor !== undefined && { floor }), ...more });
}

describe("the floor refuses", () => {
  it("random features, whatever their number and width", async () => {
    const sizes = fc.record({
      examples: fc.integer({ min: 30, max: 80 }),
      width: fc.integer({ min: 2, max: 40 }),
      seed: fc.integer({ min: 1 }),
    });
    await fc.assert(
      fc.asyncProperty(sizes, async ({ examples, width, seed }) => {
        const made = adapting(noise(examples, width, seed), noise(examples, 8, seed + 1));
        await expect(made).rejects.toMatchObject({ code: "QUALITY_TOO_LOW" });
      }),
      { numRuns: 8 },
    );
  });

  it("features that never change", async () => {
    const still = { rows: 40, columns: 6, data: new Float64Array(240).fill(3) };
    await expect(adapting(still, noise(40, 8, 2))).rejects.toMatchObject({ code: "QUALITY_TOO_LOW" });
  });
});

describe("training gets around nothing", () => {
  const learning = (examples: number) => ({
    openTrainer: () => Runtime.open(() => OrtWorker.start()),
    learn: "both",
    truth: Array.from({ length: examples }, (_, at) => at % CLASSES),
  });

  it("random features stay refused, whatever learns from their classes", async () => {
    // The head is right more often than not, so that there is something to keep.
    const target = noise(60, 8, 11);
    const { report } = await adapting(target, target, 0, { rungs: ["scaling"] });
    expect(report.quality.kept).toBe(1);
    const classes = answers(target);
    const more = { ...learning(60), truth: classes };
    await expect(adapting(noise(60, 12, 12), target, 0.9, more)).rejects.toMatchObject({
      code: "QUALITY_TOO_LOW",
      details: { report: { chosenBy: "accuracy", quality: { nativeAccuracy: { value: 1 } } } },
    });
  });

  it.each([
    ["features that never change", { rows: 40, columns: 6, data: new Float64Array(240).fill(3) }],
    ["copies of one example", { rows: 40, columns: 6, data: new Float64Array(240).map((_, at) => at % 6) }],
    ["more features than examples", noise(40, 120, 13)],
  ])("%s give finite maps of every trained rung", async (_, source) => {
    const more = { ...learning(40), rungs: ["residual", "trained", "together"] };
    const { report } = await adapting(source, noise(40, 8, 14), 0, more);
    expect(report.taps[0]?.rungs.map(({ name }) => name)).toEqual(["residual", "trained", "together"]);
    for (const { agreement, explained } of report.taps[0]?.rungs ?? []) {
      expect(Number.isFinite(agreement)).toBe(true);
      expect(Number.isFinite(explained)).toBe(true);
    }
  });
});

describe("nothing is fitted", () => {
  it("on ten examples", async () => {
    const ten = noise(10, 8, 3);
    await expect(adapting(ten, ten)).rejects.toMatchObject({ code: "DATA_MALFORMED", details: { got: 10 } });
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])("on features with %s, and it says where", async (bad) => {
    const broken = noise(40, 8, 4);
    broken.data[3 * 8 + 2] = bad;
    await expect(adapting(broken, noise(40, 8, 5))).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      details: { example: 3, feature: 2 },
    });
  });
});

describe("a stable answer is given", () => {
  it("for fewer examples than features, where one is a mixture of the other", async () => {
    const few = noise(40, 200, 6);
    const first = { ...few, columns: 8, data: few.data.filter((_, at) => at % 200 < 8) };
    const { report } = await adapting(few, first, 0);
    expect(Number.isFinite(report.quality.kept)).toBe(true);
    const again = await adapting(few, first, 0);
    expect(again.report.quality).toEqual(report.quality);
  });

  it("for the features themselves, all of which is kept", async () => {
    const same = noise(40, 8, 7);
    const { report } = await adapting(same, same);
    expect(report.quality.kept).toBe(1);
    expect(report.chosen.rung).toBe("scaling");
  });
});
