/** Rungs that are trained: against maps whose truth is known, and against the closed form they begin as. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adapterModel } from "../../src/adapt/adapter-model.js";
import { applyMap, type FeatureMap } from "../../src/adapt/feature-map.js";
import type { HeadReading } from "../../src/adapt/head-reading.js";
import { adaptImages, headThroughAdapter, readingsOf } from "../../src/adapt/index.js";
import { climb } from "../../src/adapt/ladder.js";
import { climbTrained } from "../../src/adapt/trained-rungs.js";
import { gaussian, seededRandom } from "../../src/base/random.js";
import { openEngine } from "../../src/index.js";
import { type Model, readMetadata, revisionOf, type Tap, withMetadata } from "../../src/onnx/index.js";
import { weightBytes } from "../../src/onnx/weight.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { type Matrix, teachImages, transpose } from "../../src/teach/index.js";
import { float32, toNumbers } from "../../src/tensor/index.js";
import { decodeImage, imageTensor, preprocessingFor } from "../../src/vision/index.js";
import { useRuntime } from "../onnx/runtime.js";
import { foodFolder, randomBackbone } from "../teach/photos.js";
import { foodPhoto } from "../vision/pictures.js";

const open = useRuntime();
const openTrainer = () => Runtime.open(() => OrtWorker.start());
const backbone = randomBackbone();
const other = randomBackbone(8);
let trainer: Runtime;
let folder: string;
let data: string;
let food: Model;
beforeAll(async () => {
  trainer = await openTrainer();
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  data = join(folder, "food");
  await foodFolder(data, { B: "pulses", C: "leafy vegetables", E: "fruits" }, 14);
  food = (await teachImages({ backbone, tap: "c2", data, open, method: "ridge" })).model;
});
afterAll(async () => {
  await trainer.close();
  await rm(folder, { recursive: true });
});

function noise(rows: number, columns: number, random: () => number): Matrix {
  return { rows, columns, data: Float64Array.from({ length: rows * columns }, () => gaussian(random)) };
}

/** A map with a hidden layer and random numbers. */
function bentMap(source: number, target: number, hidden: number, seed: number): FeatureMap {
  const random = seededRandom(seed);
  return {
    weights: noise(target, source, random),
    bias: noise(1, target, random).data,
    hidden: {
      inward: { weights: noise(hidden, source, random), bias: noise(1, hidden, random).data },
      outward: noise(target, hidden, random),
    },
  };
}

const dealt = (examples: number) => Array.from({ length: examples }, (_, at) => at % 4);
const residualOf = async (source: Matrix, target: Matrix, seed = 0) => {
  const pairs = { source, target, folds: dealt(source.rows) };
  const [start] = climb(pairs, ["least-squares"]);
  if (!start) throw new Error("no rung");
  const [residual] = await climbTrained(["residual"], {
    ...{ pairs, start, head: food, truth: undefined, runtime: trainer, hidden: 32, seed },
  });
  if (!residual) throw new Error("no rung");
  return { start, residual };
};

describe("the residual rung", () => {
  it("explains on held-out examples what no affine map can", async () => {
    const source = noise(600, 6, seededRandom(1));
    const { start, residual } = await residualOf(source, applyMap(bentMap(6, 4, 5, 2), source));
    expect(residual.steps).toBeGreaterThan(0);
    expect(1 - residual.explained).toBeLessThan(0.5 * (1 - start.explained));
  });

  it("stays what it began as where there is no more to learn", async () => {
    const source = noise(80, 5, seededRandom(3));
    const affine = { ...bentMap(5, 3, 1, 4), hidden: undefined };
    const { start, residual } = await residualOf(source, applyMap(affine, source));
    expect(start.explained).toBeGreaterThan(0.999999);
    expect(residual.explained).toBeGreaterThan(0.99999);
  });

  it("is the same for the same seed", async () => {
    const source = noise(90, 4, seededRandom(5));
    const target = applyMap(bentMap(4, 4, 3, 6), source);
    const [one, two] = [await residualOf(source, target, 9), await residualOf(source, target, 9)];
    expect(one.residual.heldOut.data).toEqual(two.residual.heldOut.data);
  });
});

describe("an adapter of a trained map", () => {
  const tap = (shape: Tap["shape"]): Tap => ({ name: "t", dtype: "float32", shape, identity: "" });
  const kinds: [HeadReading["kind"], number[], number[]][] = [
    ["vector", [2, 3], [2, 4]],
    ["tokens", [2, 5, 3], [2, 5, 4]],
    ["map", [2, 3, 2, 2], [2, 4, 2, 2]],
  ];

  it.each(kinds)("computes the map on a %s", async (kind, given, made) => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), fc.boolean(), fc.boolean(), async (seed, isBent, isRectified) => {
        const whole = bentMap(3, 4, 2, seed);
        const map = { ...whole, isRectified, ...(!isBent && { hidden: undefined }) };
        const channelAxis = kind === "map" ? 1 : given.length - 1;
        const reading: HeadReading = {
          ...{ input: "in", tap: tap(["batch", ...made.slice(1)]), kind, channelAxis, width: 4 },
          vector: kind === "vector" ? "in" : undefined,
        };
        const source = { ...tap(["batch", ...given.slice(1)]), name: "x" };
        const axes = [...given.keys()].filter((axis) => axis > 0 && axis !== channelAxis);
        const pooling = kind === "vector" ? { axes: [], channels: 3 } : { axes, channels: 3 };
        const count = given.reduce((a, b) => a * b, 1);
        const values = noise(count / 3, 3, seededRandom(seed + 1));
        const expected = applyMap(map, values);
        // A map has its channels before its places.
        const arranged = (matrix: Matrix): Float64Array => {
          if (kind !== "map") return matrix.data;
          const images = [0, 1].map((image) => ({
            ...{ rows: 4, columns: matrix.columns },
            data: matrix.data.slice(image * 4 * matrix.columns, (image + 1) * 4 * matrix.columns),
          }));
          return Float64Array.from(images.flatMap((each) => [...transpose(each).data]));
        };
        const opened = await open(adapterModel([{ source, pooling, reading, map }]), "all");
        const [got] = (await opened.run(new Map([["x", float32(given, arranged(values))]]))).values();
        await opened.close();
        expect(got?.shape).toEqual(made);
        const wanted = arranged(expected);
        toNumbers(got ?? float32([0], [])).forEach((value, at) => {
          expect(value).toBeCloseTo(wanted[at] ?? Number.NaN, 3);
        });
      }),
      { numRuns: 8 },
    );
  });
});

describe("learning from classes", () => {
  const adapting = (more: object) =>
    adaptImages({
      ...{ head: food, from: backbone, to: other, taps: ["c2"], data, open, openTrainer, floor: 0 },
      ...more,
    });

  it.each(["linear", "relu", "residual"] as const)(
    "trains a %s adapter through the frozen head, which stays bit for bit what it was",
    async (shape) => {
      const before = await revisionOf(food);
      const { adapter, report } = await adapting({ learn: "adapter", rungs: ["trained"], shape });
      expect(await revisionOf(food)).toBe(before);
      expect(report).toMatchObject({ chosen: { tap: "c2", rung: "trained" }, chosenBy: "accuracy" });
      expect(report.quality.accuracy?.low).toBeLessThan(report.quality.accuracy?.high ?? 0);
      if (!adapter) throw new Error("no adapter was made");
      expect(readMetadata(adapter)).toMatchObject({ role: "adapter", produces: readMetadata(food).taps });
      const whole = headThroughAdapter(food, adapter);
      for (const each of food.graph.initializer) {
        const found = whole.graph.initializer.find(({ name }) => name === each.name);
        expect(found && weightBytes(found)).toEqual(weightBytes(each));
      }
      const engine = await openEngine();
      await engine.add("backbone", other);
      await engine.load(adapter);
      await engine.add("food", food);
      const { tensor } = await imageTensor(await decodeImage(foodPhoto("E011")), preprocessingFor(other));
      const { routes } = await engine.run(["food"], tensor);
      await engine.close();
      expect(toNumbers(routes.food.outputs.probabilities ?? float32([0], [])).every(Number.isFinite)).toBe(
        true,
      );
    },
  );

  it("stands beside the rungs without classes, and is chosen only for more than noise", async () => {
    const { report } = await adapting({ learn: "both" });
    const [own] = report.taps;
    const names = own?.rungs.map(({ name }) => name);
    expect(names).toEqual([
      ...["scaling", "procrustes", "low-rank", "least-squares"],
      ...["residual", "trained", "together"],
    ]);
    const accuracies = own?.rungs.map(({ accuracy }) => accuracy?.value ?? 0) ?? [];
    const best = Math.max(...accuracies);
    const enough = best - Math.sqrt((best * (1 - best)) / report.examples);
    const first = accuracies.findIndex((each) => each >= enough);
    expect(report.chosen.rung).toBe(names?.[first]);
  });

  it("with the head makes a new head, which reads the new backbone itself", async () => {
    const { adapter, folded, report } = await adapting({ learn: "both", rungs: ["together"] });
    expect(adapter).toBeUndefined();
    expect(report.chosen.rung).toBe("together");
    if (!folded) throw new Error("no head was made");
    expect(readMetadata(folded)).toMatchObject({ role: "head", labels: readMetadata(food).labels });
    const engine = await openEngine();
    await engine.add("backbone", other);
    await engine.add("food", folded);
    await engine.close();
    expect(readingsOf(folded)[0]?.tap.identity).not.toBe(readingsOf(food)[0]?.tap.identity);
  });

  it("needs classes", async () => {
    const unnamed = adapting({ learn: "adapter", head: withMetadata(food, { labels: ["a", "b", "c"] }) });
    await expect(unnamed).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining("folders"),
    });
  });
});
