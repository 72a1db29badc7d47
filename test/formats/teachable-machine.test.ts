/** Published Teachable Machine models: TF.js' answers, one trunk for all, labels; and exports that are refused. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-wasm";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { beforeAll, describe, expect, it } from "vitest";
import { DiskFolder } from "../../src/files/disk.js";
import { importTfjsLayers, isTeachableMachine, readTeachableMachine } from "../../src/formats/index.js";
import { openEngine } from "../../src/index.js";
import type { Model } from "../../src/onnx/model.js";
import { shareReport } from "../../src/onnx/share.js";
import { float32, type Tensor } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { loadedModel, predict } from "./layers-oracle.js";
import { randomNumbers, relativeError } from "./tfjs-oracle.js";

const NAMES = ["banknotes", "road-signs"] as const;
const folderOf = (name: string) => new DiskFolder(join(fixturesDir, "teachable-machine", name));

describe.skipIf(!hasFixtures)("two models of different authors", () => {
  let models: Map<string, Model>;
  let images: Tensor;
  beforeAll(async () => {
    const require = createRequire(import.meta.url);
    setWasmPaths(`${dirname(require.resolve("@tensorflow/tfjs-backend-wasm"))}/`);
    await tf.setBackend("wasm");
    models = new Map();
    for (const name of NAMES) models.set(name, (await importTfjsLayers(folderOf(name), "model.json")).model);
    const random = randomNumbers(5);
    images = float32(
      [2, 224, 224, 3],
      Float32Array.from({ length: 2 * 224 * 224 * 3 }, () => 2 * random() - 1),
    );
  });

  it("share one trunk, and have a head each", async () => {
    const report = await shareReport([...models].map(([name, model]) => ({ name, model })));
    expect(report.segments.map(({ usedBy }) => usedBy.join())).toEqual([
      "banknotes,road-signs",
      "banknotes",
      "road-signs",
    ]);
    const [trunk, ...heads] = report.segments;
    expect(trunk?.nodes).toBeGreaterThan(150);
    for (const head of heads) expect(head.nodes).toBeLessThan(6);
    const json = NAMES.map((name) =>
      JSON.parse(readFileSync(join(fixturesDir, "teachable-machine", name, "model.json"), "utf8")),
    );
    const head = (at: number) =>
      json[at].weightsManifest[0].weights.filter(({ name }: { name: string }) => name.startsWith("dense"));
    expect([head(0).length, head(1).length]).toEqual([3, 3]);
  });

  it("hold 263 tensors each, of which 260 are the same bytes", () => {
    const [first = [], second = []] = NAMES.map((name) => {
      const place = join(fixturesDir, "teachable-machine", name);
      const { weightsManifest } = JSON.parse(readFileSync(join(place, "model.json"), "utf8"));
      const entries: { shape: number[]; dtype: string }[] = weightsManifest[0].weights;
      expect(new Set(entries.map(({ dtype }) => dtype))).toEqual(new Set(["float32"]));
      const bytes = readFileSync(join(place, "weights.bin"));
      let offset = 0;
      return entries.map(({ shape }) => {
        offset += 4 * shape.reduce((product, size) => product * size, 1);
        return bytes.subarray(offset - 4 * shape.reduce((product, size) => product * size, 1), offset);
      });
    });
    expect([first.length, second.length]).toEqual([263, 263]);
    expect(first.filter((tensor, at) => second[at] && tensor.equals(second[at]))).toHaveLength(260);
  });

  it("are both answered from one pass of the trunk, each as TF.js answers it alone", async () => {
    const engine = await openEngine();
    try {
      for (const [name, model] of models) await engine.add(name, model);
      const answer = await engine.run(NAMES, images);
      expect(answer.ran).toHaveLength(3);
      expect(answer.ran.filter(({ usedBy }) => usedBy.length === 2)).toHaveLength(1);
      for (const name of NAMES) {
        const [expected] = await predict(await loadedModel(folderOf(name)), [images]);
        const [got] = Object.values(answer.routes[name].outputs);
        if (!got || !expected) throw new Error("There is no output.");
        expect(got.shape).toEqual(expected.shape);
        expect(relativeError(got, expected), name).toBeLessThanOrEqual(1e-4);
      }
    } finally {
      await engine.close();
    }
  });

  it("keep no transpose around a convolution", () => {
    for (const model of models.values())
      expect(model.graph.node.filter(({ opType }) => opType === "Transpose")).toHaveLength(1);
  });

  it("say their labels and the size of their images", async () => {
    const read = async (name: string) =>
      JSON.parse(new TextDecoder().decode(await folderOf(name).read("metadata.json")));
    for (const name of NAMES) expect(isTeachableMachine(await read(name))).toBe(true);
    expect(readTeachableMachine(await read("road-signs"))).toMatchObject({ imageSize: 224, isGrey: false });
    expect(readTeachableMachine(await read("banknotes")).labels).toContain("Tanpa Uang");
  });
});

describe("exports that are no image models", () => {
  it.each([
    [
      "pose",
      {
        packageName: "@teachablemachine/pose",
        tmVersion: "2.4",
        labels: ["a"],
        modelSettings: { posenet: {} },
      },
    ],
    [
      "audio",
      { tfjsSpeechCommandsVersion: "0.4.0", modelName: "TMv2", wordLabels: ["_background_noise_", "clap"] },
    ],
  ])("%s is refused by name", (kind, metadata) => {
    expect(isTeachableMachine(metadata)).toBe(true);
    expect(() => readTeachableMachine(metadata)).toThrow(
      expect.objectContaining({ code: "MODEL_UNSUPPORTED", details: { kind } }),
    );
  });

  it("metadata without labels is refused", () => {
    expect(() => readTeachableMachine({ tmVersion: "2.4" })).toThrow(/labels/);
  });
});
