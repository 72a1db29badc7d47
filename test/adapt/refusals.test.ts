/** What an adapter must not be made of: features that have nothing to do with the head's, too few, broken ones. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { adaptHead, readingsOf } from "../../src/adapt/index.js";
import { gaussian, seededRandom } from "../../src/base/random.js";
import { graph, type Model, model, node, type Tap, valueInfo, withMetadata } from "../../src/onnx/index.js";
import { weight } from "../../src/onnx/weight.js";
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

function noise(rows: number, columns: number, seed: number): Matrix {
  const random = seededRandom(seed);
  return { rows, columns, data: Float64Array.from({ length: rows * columns }, () => gaussian(random)) };
}

function adapting(source: Matrix, target: Matrix, floor?: number) {
  const head = classifier(target.columns);
  const [reading] = readingsOf(head);
  if (!reading) throw new Error("the head reads nothing");
  const pooling = { axes: [], channels: source.columns };
  const offers = [{ tap: tapOf("new", source.columns), pooling, features: source, flops: 1 }];
  return adaptHead({ head, reading, target, offers, open, ...(floor !== undefined && { floor }) });
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
