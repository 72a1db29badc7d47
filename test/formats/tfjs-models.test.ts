/** Published models, against TF.js itself. */
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-wasm";
import { createRequire } from "node:module";
import { dirname } from "node:path";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { importTfjsGraph } from "../../src/formats/index.js";
import type { Runtime } from "../../src/runtime/runtime.js";
import { expectAgreement, humanFolder, openRuntime } from "./tfjs-oracle.js";

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

  it("handtrack, which has loops, is refused with all that is in the way", async () => {
    const attempt = importTfjsGraph(humanFolder("handtrack"), "handtrack.json");
    await expect(attempt).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      details: {
        operators: expect.arrayContaining(["Enter", "Exit", "LoopCond", "Merge", "TensorListReserve"]),
      },
    });
  });
});
