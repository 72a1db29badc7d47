/** Heads on backbones that they were not made for: fitted on photos, judged, folded, and live in an engine. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adaptImages, headFromVector, readingsOf, runOn } from "../../src/adapt/index.js";
import { gaussian, seededRandom } from "../../src/base/random.js";
import { openEngine } from "../../src/index.js";
import { compare, type Model, readMetadata, type Tap, withMetadata } from "../../src/onnx/index.js";
import { float, graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight, weightTensor } from "../../src/onnx/weight.js";
import { teachImages } from "../../src/teach/index.js";
import { float32, toNumbers } from "../../src/tensor/index.js";
import { decodeImage, imageTensor, preprocessingFor } from "../../src/vision/index.js";
import { useRuntime } from "../onnx/runtime.js";
import { foodFolder, randomBackbone } from "../teach/photos.js";
import { foodPhoto } from "../vision/pictures.js";

const GROUPS = { B: "pulses", C: "leafy vegetables", E: "fruits" };
const backbone = randomBackbone();
const open = useRuntime();

let folder: string;
let data: string;
let food: Model;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  data = join(folder, "food");
  await foodFolder(data, GROUPS, 14);
  await foodFolder(join(folder, "few"), GROUPS, 3);
  const cache = join(folder, "cache");
  food = (await teachImages({ backbone, tap: "c2", data, open, cache, method: "ridge" })).model;
});
afterAll(() => rm(folder, { recursive: true }));

/** The backbone with the filters of its last convolution in another order, and each times a number above 0. */
function turned(order: (channel: number) => number, factor: (channel: number) => number): Model {
  const kernel = backbone.graph.initializer.find(({ name }) => name === "w2");
  if (!kernel) throw new Error("no kernel");
  const value = weightTensor(kernel);
  const size = toNumbers(value).length / 32;
  const numbers = toNumbers(value);
  const moved = Float32Array.from(numbers, (_, at) => {
    const channel = Math.floor(at / size);
    return factor(channel) * (numbers[order(channel) * size + (at % size)] ?? 0);
  });
  const initializer = backbone.graph.initializer.map((each) =>
    each === kernel ? weight("w2", float32(value.shape, moved)) : each,
  );
  return Object.assign(Object.create(Object.getPrototypeOf(backbone)), backbone, {
    graph: Object.assign(Object.create(Object.getPrototypeOf(backbone.graph)), backbone.graph, {
      initializer,
    }),
  });
}

const adapting = (to: Model, more = {}) =>
  adaptImages({ head: food, from: backbone, to, taps: ["c2"], data, open, ...more });

describe("a head is adapted", () => {
  it("by scales alone to a backbone whose features were scaled, and keeps everything", async () => {
    const { report } = await adapting(
      turned(
        (channel) => channel,
        (channel) => 1 + channel / 8,
      ),
    );
    expect(report.chosen).toEqual({ tap: "c2", rung: "scaling" });
    expect(report.quality.kept).toBe(1);
    expect(report.taps[0]?.rungs[0]?.explained).toBeGreaterThan(0.999999);
    expect(report.labelled).toBe(true);
  });

  it("by a rotation to a backbone whose features stand in another order", async () => {
    const { report } = await adapting(
      turned(
        (channel) => (channel * 5 + 3) % 32,
        () => 1,
      ),
    );
    expect(report.chosen).toEqual({ tap: "c2", rung: "procrustes" });
    expect(report.quality.kept).toBe(1);
    const [scaling, procrustes] = report.taps[0]?.rungs ?? [];
    expect(scaling?.agreement).toBeLessThan(0.9);
    expect(procrustes?.explained).toBeGreaterThan(0.999);
  });

  it("from features that are on disk, when its own backbone is gone", async () => {
    const to = turned(
      (channel) => 31 - channel,
      () => 1,
    );
    const cache = join(folder, "cache");
    const { report } = await adaptImages({ head: food, to, taps: ["c2"], data, open, cache });
    expect(report.examples).toBe(42);
    const nowhere = join(folder, "empty");
    await expect(
      adaptImages({ head: food, to, taps: ["c2"], data, open, cache: nowhere }),
    ).rejects.toMatchObject({ code: "NOT_FOUND" });
  });

  it("to the cheapest of the taps that do as well, within a budget", async () => {
    const other = randomBackbone(8);
    const all = await adapting(other, { taps: undefined, floor: 0 });
    expect(all.report.taps.map(({ tap }) => tap)).toEqual(["c1", "c2"]);
    const [first, second] = all.report.taps;
    expect(first && second && first.flops < second.flops).toBe(true);
    const budget = first?.flops ?? 0;
    const { report } = await adapting(other, { taps: undefined, floor: 0, budget });
    expect(report.taps.map(({ tap }) => tap)).toEqual(["c1"]);
    await expect(adapting(other, { taps: undefined, budget: 1 })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });

  it("and judged on images that were kept aside", async () => {
    const test = join(folder, "few");
    const { report } = await adapting(
      turned(
        (channel) => 31 - channel,
        () => 1,
      ),
      { test },
    );
    expect(report.judgedOn).toBe("test examples");
    expect(report.quality.interval?.low).toBeLessThan(report.quality.interval?.high ?? 0);
  });
});

describe("an adapted head", () => {
  it("goes live beside the heads of its new backbone, and folded it costs no session more", async () => {
    const to = turned(
      (channel) => (channel * 5 + 3) % 32,
      (channel) => 1 + channel / 8,
    );
    const { adapter, folded } = await adapting(to);
    if (!folded || !adapter) throw new Error("a linear head can be folded");
    const [tap] = readMetadata(folded).taps ?? [];
    const { tensor } = await imageTensor(await decodeImage(foodPhoto("E011")), preprocessingFor(backbone));
    const own = await openEngine();
    await own.add("backbone", backbone);
    await own.add("food", food);
    const expected = (await own.run(["food"], tensor)).routes.food.outputs;
    await own.close();

    const engine = await openEngine();
    await engine.add("backbone", to);
    await expect(engine.load(food)).rejects.toMatchObject({ code: "HEAD_MISMATCH" });
    await engine.load(folded);
    const alone = engine.segments.length;
    await engine.load(adapter);
    await engine.add("pair", food);
    await engine.add("folded", folded);
    const { routes } = await engine.run(["pair", "folded"], tensor, { cache: false });
    expect(engine.segments.length).toBeGreaterThan(alone);
    await engine.close();
    for (const [name, value] of Object.entries(expected)) {
      expect(compare(value, routes.pair.outputs[name]).relative).toBeLessThan(1e-3);
      const pair = routes.pair.outputs[name];
      expect(pair && compare(pair, routes.folded.outputs[name]).relative).toBeLessThan(1e-5);
    }
    expect(tap?.identity).not.toBe(readMetadata(food).taps?.[0]?.identity);
    expect(readMetadata(adapter)).toMatchObject({ role: "adapter", produces: readMetadata(food).taps });
    expect(readMetadata(adapter).quality).toMatchObject({ kept: expect.any(Number), floor: 0.9 });
  });

  it.each<[string, HeadForm]>([
    ["a Gemm with its matrix turned and factors", { layer: "gemm", pool: "reduce" }],
    ["a MatMul and an Add behind a global pool and a Flatten", { layer: "matmul", pool: "global" }],
    ["a MatMul without bias", { layer: "bare", pool: "global" }],
  ])("folds %s", async (_, form) => {
    const tap = readMetadata(food).taps?.[0];
    if (!tap) throw new Error("no tap");
    const head = smallHead(form, tap);
    const to = randomBackbone(8);
    const { folded, report } = await adapting(to, { head, floor: 0 });
    expect(report.folded?.difference).toBeLessThan(1e-5);
    expect(folded && readMetadata(folded).taps?.[0]?.name).toBe("c2");
  });

  it("keeps its adapter as a layer of its own when it begins with something else", async () => {
    const tap = readMetadata(food).taps?.[0];
    if (!tap) throw new Error("no tap");
    const head = smallHead({ layer: "curved", pool: "reduce" }, tap);
    const { folded, report } = await adapting(
      turned(
        (channel) => 31 - channel,
        () => 1,
      ),
      { head, floor: 0 },
    );
    expect(folded).toBeUndefined();
    expect(report.folded).toBeUndefined();
    const [reading] = readingsOf(head);
    expect(reading?.kind).toBe("pooled");
    if (!reading) return;
    const vectors = { rows: 2, columns: 32, data: new Float64Array(64).fill(0.5) };
    const outputs = await runOn(headFromVector(head, reading), vectors, open);
    expect([...outputs.values()][0]?.shape).toEqual([2, 3]);
  });
});

describe("nothing is made", () => {
  it("of features that have nothing to do with the head's", async () => {
    const blind = withMetadata(
      turned(
        (channel) => channel,
        () => 0,
      ),
      {},
    );
    await expect(adapting(blind)).rejects.toMatchObject({ code: "QUALITY_TOO_LOW" });
  });

  it("from nine photos", async () => {
    await expect(adapting(randomBackbone(8), { data: join(folder, "few") })).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      details: { got: 9, expected: 30 },
    });
  });

  it("for a head of another backbone than the one that is given as its own", async () => {
    await expect(adapting(backbone, { from: randomBackbone(8) })).rejects.toMatchObject({
      code: "HEAD_MISMATCH",
    });
  });
});

interface HeadForm {
  readonly layer: "gemm" | "matmul" | "bare" | "curved";
  readonly pool: "reduce" | "global";
}

/** A head with three classes over the pooled tap, made by hand in one of the forms that exporters write. */
function smallHead({ layer, pool }: HeadForm, tap: Tap): Model {
  const random = seededRandom(4);
  const values = (count: number) => Float32Array.from({ length: count }, () => gaussian(random));
  const nodes =
    pool === "reduce"
      ? [node("ReduceMean", ["in"], ["flat"], { axes: [2, 3], keepdims: 0 })]
      : [node("GlobalAveragePool", ["in"], ["pooled"]), node("Flatten", ["pooled"], ["flat"])];
  const matrix = weight("matrix", float32(layer === "gemm" ? [3, 32] : [32, 3], values(96)));
  const bias = weight("bias", float32([3], values(3)));
  const layers = {
    gemm: [node("Gemm", ["flat", "matrix", "bias"], ["y"], { transB: 1, alpha: float(0.5), beta: float(2) })],
    matmul: [node("MatMul", ["flat", "matrix"], ["product"]), node("Add", ["bias", "product"], ["y"])],
    bare: [node("MatMul", ["flat", "matrix"], ["y"])],
    curved: [node("Tanh", ["flat"], ["bent"]), node("MatMul", ["bent", "matrix"], ["y"])],
  };
  const main = graph("small", {
    nodes: [...nodes, ...layers[layer]],
    inputs: [valueInfo("in", "float32", tap.shape)],
    outputs: [valueInfo("y", "float32", ["batch", 3])],
    weights: layer === "gemm" || layer === "matmul" ? [matrix, bias] : [matrix],
  });
  return withMetadata(model(main), { role: "head", taps: [tap], task: "classification" });
}
