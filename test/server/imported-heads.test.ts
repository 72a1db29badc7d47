/** Heads from PyTorch, bound to a real backbone's tap on the user's word: in the engine and behind HTTP, switched, against PyTorch. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { importModel } from "../../src/cli/import-model.js";
import { saveModel } from "../../src/files/disk.js";
import { openEngine } from "../../src/index.js";
import { readMetadata } from "../../src/onnx/metadata.js";
import type { Model } from "../../src/onnx/model.js";
import { modelBytes } from "../../src/onnx/write.js";
import { startHttp } from "../../src/server/http/start-http.js";
import { readNpz } from "../../src/tensor/npz.js";
import { float32, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { relativeError } from "../formats/tfjs-oracle.js";
import { deploy, endDeployments, newFolder } from "./small-deployment.js";

const fixtures = fileURLToPath(new URL("../fixtures/usual-cases/", import.meta.url));
const goldens = readNpz(await readFile(join(fixtures, "goldens.npz")));
const golden = (name: string): Tensor => goldens.get(name) ?? expect.fail(`no golden ${name}`);

let folder: string;
let [trunk, classification, detection]: Model[] = [];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "imported-"));
  const backbone = join(folder, "trunk.onnx");
  trunk = (await importModel(join(fixtures, "backbone.onnx"))).model;
  await saveModel(backbone, trunk);
  classification = (await importModel(join(fixtures, "head_classification.pth"), { backbone })).model;
  detection = (await importModel(join(fixtures, "head_detection.pth"), { backbone })).model;
});
afterAll(() => rm(folder, { recursive: true }));
afterEach(endDeployments);

function bytesOf(model: Model | undefined): Uint8Array {
  return model ? modelBytes(model) : expect.fail("no model");
}
function expectGolden(got: Tensor | undefined, name: string): void {
  if (!got) throw new Error("There is no output.");
  expect(got.shape).toEqual(golden(name).shape);
  expect(relativeError(got, golden(name)), name).toBeLessThanOrEqual(1e-5);
}

describe("PyTorch heads that were imported for a backbone", () => {
  it("name its tap by content", () => {
    if (!classification || !detection) throw new Error("There is no head.");
    const [one, other] = [classification, detection].map((head) => readMetadata(head).taps ?? []);
    expect(one).toMatchObject([{ name: "features", shape: ["batch", 64] }]);
    expect(other).toEqual(one);
  });

  it("answer in the engine from one pass, and are switched on features that are there", async () => {
    if (!trunk || !classification || !detection) throw new Error("There is no model.");
    const engine = await openEngine();
    try {
      await engine.load(trunk);
      const one = await engine.add("main", classification);
      const other = await engine.add("boxes", detection);
      const both = await engine.run(["main", "boxes"], golden("images"));
      expect(both.ran).toHaveLength(3);
      expectGolden(both.routes.main?.outputs.output, "classification");
      expectGolden(both.routes.boxes?.outputs.output, "detection");
      await engine.switch({ main: other });
      const after = await engine.run(["main"], golden("images"));
      expect([after.cached, after.routes.main?.revision]).toEqual([true, other]);
      expectGolden(after.routes.main?.outputs.output, "detection");
      await engine.switch({ main: one });
      expectGolden(
        (await engine.run(["main"], golden("images"))).routes.main?.outputs.output,
        "classification",
      );
    } finally {
      await engine.close();
    }
  });

  it("are served, and switched over HTTP", async () => {
    const author = { by: "test" };
    const deployment = await deploy(await newFolder());
    await deployment.addModel(bytesOf(trunk), "trunk", author);
    const one = await deployment.addModel(bytesOf(classification), "main", author);
    const other = await deployment.addModel(bytesOf(detection), "main", author);
    const server = await startHttp(deployment, { port: 0, logger: pino({ level: "silent" }) });
    const post = async (path: string, body: object): Promise<Response> => {
      const headers = { "content-type": "application/json" };
      const answer = await fetch(server.address + path, {
        method: "POST",
        headers,
        body: JSON.stringify(body),
      });
      if (!answer.ok) throw new Error(await answer.text());
      return answer;
    };
    const { shape } = golden("images");
    const input = { name: "image", shape, datatype: "FP32", data: [...toNumbers(golden("images"))] };
    const ask = async () => {
      const answer = (await (await post("/v2/models/main/infer", { inputs: [input] })).json()) as {
        model_version: string;
        parameters: { cached: boolean };
        outputs: { shape: number[]; data: number[] }[];
      };
      const [output] = answer.outputs;
      const { model_version: revision, parameters } = answer;
      return { revision, cached: parameters.cached, output: output && float32(output.shape, output.data) };
    };
    try {
      const before = await ask();
      expect(before).toMatchObject({ revision: one, cached: false });
      expectGolden(before.output, "classification");
      await post("/polyhead/v1/switch", { targets: { main: other } });
      const after = await ask();
      expect(after).toMatchObject({ revision: other, cached: true });
      expectGolden(after.output, "detection");
    } finally {
      await server.close();
    }
  });
});
