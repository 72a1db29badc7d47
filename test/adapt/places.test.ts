/** Heads that read maps, or several taps: adapted by convolutions between backbones whose true map is known. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adaptImages, headThroughAdapter } from "../../src/adapt/index.js";
import { openEngine } from "../../src/index.js";
import {
  compare,
  graph,
  identify,
  type Model,
  model,
  node,
  readMetadata,
  type Tap,
  valueInfo,
  withMetadata,
} from "../../src/onnx/index.js";
import { weight } from "../../src/onnx/weight.js";
import { decodeImage, imageTensor, preprocessingFor } from "../../src/vision/index.js";
import { useRuntime } from "../onnx/runtime.js";
import { foodFolder, randomBackbone } from "../teach/photos.js";
import { foodPhoto } from "../vision/pictures.js";
import { centreDetector, numbers, remade } from "./maps.js";

const backbone = randomBackbone();
const open = useRuntime();
const SHAPES = { c1: ["batch", 16, 12, 12], c2: ["batch", 32, 6, 6] } as const;

let folder: string;
let cache: string;
let data: string;
let detector: Model;
let twoTaps: Model;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  cache = join(folder, "cache");
  data = join(folder, "food");
  await foodFolder(data, { B: "pulses", C: "leafy vegetables", E: "fruits" }, 10);
  const identities = await identify(backbone);
  const tap = (name: "c1" | "c2"): Tap => {
    const identity = identities.get(name) ?? "";
    return { name, dtype: "float32", shape: SHAPES[name], identity };
  };
  detector = centreDetector(tap("c1"));
  twoTaps = classifierOf(tap("c1"), tap("c2"));
});
afterAll(() => rm(folder, { recursive: true }));

/** A classifier of three classes that reads two maps, through a convolution each. */
function classifierOf(first: Tap, second: Tap): Model {
  const main = graph("two", {
    nodes: [
      node("Conv", ["a", "wa"], ["fa"]),
      node("GlobalMaxPool", ["fa"], ["pa"]),
      node("Conv", ["b", "wb"], ["fb"]),
      node("GlobalMaxPool", ["fb"], ["pb"]),
      node("Add", ["pa", "pb"], ["sum"]),
      node("Flatten", ["sum"], ["scores"]),
    ],
    inputs: [valueInfo("a", "float32", first.shape), valueInfo("b", "float32", second.shape)],
    outputs: [valueInfo("scores", "float32", ["batch", 3])],
    weights: [weight("wa", numbers([3, 16, 1, 1])), weight("wb", numbers([3, 32, 1, 1]))],
  });
  return withMetadata(model(main), { role: "head", taps: [first, second], task: "classification" });
}

const adapting = (head: Model, to: Model, more = {}) =>
  adaptImages({ head, from: backbone, to, data, open, taps: ["n1"], cache, ...more });

async function picture() {
  return (await imageTensor(await decodeImage(foodPhoto("E011")), preprocessingFor(backbone))).tensor;
}

describe("a detection head", () => {
  it.each([
    ["of the same stride whose channels stand in another order", remade("same")],
    ["of half the stride", remade("finer")],
    ["of half the stride with its channels last", remade("finer", "nhwc")],
  ])("is adapted to maps %s, and finds what it found", async (_, to) => {
    const { report, adapter } = await adapting(detector, to);
    expect(report.chosen.tap).toBe("n1");
    expect(report.quality.agreement).toBeGreaterThan(0.99);
    expect(report.quality.interval?.low).toBeLessThanOrEqual(report.quality.agreement);
    expect(adapter && readMetadata(adapter)).toMatchObject({
      role: "adapter",
      produces: readMetadata(detector).taps,
    });
  });

  it("is refused by an engine on maps of another stride, and live there through the adapter and as one head", async () => {
    const to = remade("finer");
    const { adapter } = await adapting(detector, to, { rungs: ["least-squares"] });
    if (!adapter) throw new Error("no adapter was made");
    const tensor = await picture();
    const own = await openEngine();
    await own.add("backbone", backbone);
    await own.add("objects", detector);
    const expected = (await own.run(["objects"], tensor)).routes.objects.outputs;
    await own.close();

    const engine = await openEngine();
    await engine.add("backbone", to);
    await expect(engine.load(detector)).rejects.toMatchObject({ code: "HEAD_MISMATCH" });
    await engine.add("one", headThroughAdapter(detector, adapter));
    await engine.load(adapter);
    await engine.add("pair", detector);
    const { routes } = await engine.run(["one", "pair"], tensor);
    await engine.close();
    for (const [name, value] of Object.entries(expected)) {
      expect(compare(value, routes.pair.outputs[name]).relative).toBeLessThan(1e-2);
      const pair = routes.pair.outputs[name];
      expect(pair && compare(pair, routes.one.outputs[name]).relative).toBeLessThan(1e-6);
    }
  });

  it("loses what coarser maps do not tell, is told so, and is refused", async () => {
    const refused = adapting(detector, remade("coarser"), { rungs: ["least-squares"] });
    await expect(refused).rejects.toMatchObject({
      code: "QUALITY_TOO_LOW",
      details: { report: { taps: [{ rungs: [{ explained: expect.closeTo(0.5, 0) }] }] } },
    });
  });

  it("is refused on a backbone that has nothing to do with its own", async () => {
    await expect(adapting(detector, randomBackbone(8), { taps: ["c1"] })).rejects.toMatchObject({
      code: "QUALITY_TOO_LOW",
    });
  });

  it("is judged on images that were kept aside", async () => {
    const test = join(folder, "test");
    await foodFolder(test, { D: "fruits" }, 6);
    const { report } = await adapting(detector, remade("finer"), { test, rungs: ["least-squares"] });
    expect(report).toMatchObject({ judgedOn: "test examples", examples: 30 });
    expect(report.quality.agreement).toBeGreaterThan(0.99);
  });

  it("cannot be judged where it finds nothing", async () => {
    const { decoding } = readMetadata(detector);
    const blind = withMetadata(detector, { decoding: { ...decoding, scoreThreshold: 1 } });
    await expect(adapting(blind, remade("same"))).rejects.toMatchObject({ code: "DATA_MALFORMED" });
  });

  it("is adapted from features on disk when its own backbone is gone", async () => {
    const { preprocessing } = readMetadata(backbone);
    const head = withMetadata(detector, { preprocessing });
    await adapting(head, remade("same"), { rungs: ["least-squares"] });
    const gone = { head, to: remade("same"), taps: ["n1"], data, open, rungs: ["least-squares" as const] };
    const { report } = await adaptImages({ ...gone, cache });
    expect(report).toMatchObject({ examples: 30, cached: 30 });
    expect(report.quality.agreement).toBeGreaterThan(0.99);
  });
});

describe("a head on two taps", () => {
  it("is given the tap that explains each input best", async () => {
    const { report, adapter } = await adapting(twoTaps, remade("same"), { taps: undefined });
    expect(report.chosen.tap).toBe("n1 + n2");
    expect(report.quality.agreement).toBe(1);
    if (!adapter) throw new Error("no adapter was made");
    const joined = headThroughAdapter(twoTaps, adapter);
    expect(readMetadata(joined).taps?.map(({ name }) => name)).toEqual(["n1", "n2"]);
  });
});

describe("nothing stands in", () => {
  it("for a map where the backbone makes vectors only", async () => {
    const main = graph("flat", {
      nodes: [node("GlobalAveragePool", ["image"], ["pooled"]), node("Flatten", ["pooled"], ["vector"])],
      inputs: [valueInfo("image", "float32", [1, 3, 48, 48])],
      outputs: [valueInfo("vector", "float32", [1, 3])],
      weights: [],
    });
    const { preprocessing } = readMetadata(backbone);
    const flat = withMetadata(model(main), { role: "backbone", preprocessing });
    await expect(adapting(detector, flat, { taps: undefined })).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      message: expect.stringContaining('"vector" [batch, 3]'),
    });
  });
});
