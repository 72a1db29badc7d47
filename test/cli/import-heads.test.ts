/** PyTorch heads through the command: bound to a backbone on the user's word, and run behind it. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModel, saveModel } from "../../src/files/disk.js";
import { identify } from "../../src/onnx/identity.js";
import { readMetadata } from "../../src/onnx/metadata.js";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { readNpz, writeNpz } from "../../src/tensor/npz.js";
import { float32 } from "../../src/tensor/tensor.js";
import { polyhead } from "./command.js";

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/torch/${name}`, import.meta.url));
let folder: string;
const at = (name: string) => join(folder, name);

/** A backbone that doubles its input: taps `features` [N, 6] and `map` [N, 6, 1, 1]. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  const made = graph("doubling", {
    nodes: [node("Mul", ["x", "two"], ["features"]), node("Unsqueeze", ["features", "axes"], ["map"])],
    inputs: [valueInfo("x", "float32", ["N", 6])],
    outputs: [valueInfo("features", "float32", ["N", 6]), valueInfo("map", "float32", ["N", 6, 1, 1])],
    weights: [
      weight("two", float32([], [2])),
      weight("axes", { dtype: "int64", shape: [2], data: BigInt64Array.of(2n, 3n) }),
    ],
  });
  await saveModel(at("backbone.onnx"), model(made));
});
afterAll(() => rm(folder, { recursive: true }));

describe("polyhead import of PyTorch heads", { timeout: 240_000 }, () => {
  it("binds a head to the tap that it fits, says whose word that is, and runs it there", async () => {
    const run = await polyhead(
      ...["import", fixture("part_of_checkpoint.pth"), "--head", "fc", "-o", at("head.onnx")],
      ...["--for", at("backbone.onnx"), "--task", "classification", "--json"],
    );
    expect({ status: run.status, stderr: run.stderr }).toEqual({ status: 0, stderr: "" });
    expect(JSON.parse(run.stdout).notes).toEqual([
      expect.stringMatching(/"features" of backbone\.onnx on your word/),
    ]);
    const { role, taps, provenance, task } = readMetadata(await loadModel(at("head.onnx")));
    const identities = await identify(await loadModel(at("backbone.onnx")));
    expect([role, task]).toEqual(["head", "classification"]);
    expect(taps).toEqual([
      { name: "features", dtype: "float32", shape: ["N", 6], identity: identities.get("features") },
    ]);
    expect(provenance).toMatchObject({
      file: "part_of_checkpoint.pth",
      format: "torch",
      part: "fc",
      fit: { tap: "features", backbone: "backbone.onnx", by: "the user's word" },
    });

    const goldens = readNpz(await readFile(fixture("goldens.npz")));
    const golden = (name: string) => goldens.get(`part_of_checkpoint/${name}`) ?? expect.fail(name);
    const halved = Float32Array.from(golden("x").data as Float32Array, (value) => value / 2);
    await writeFile(at("in.npz"), writeNpz({ x: float32(golden("x").shape, halved) }));
    const joined = await polyhead(
      ...[
        "run",
        at("backbone.onnx"),
        at("head.onnx"),
        "--npz",
        at("in.npz"),
        "--out",
        at("out.npz"),
        "--json",
      ],
    );
    expect({ status: joined.status, stderr: joined.stderr }).toEqual({ status: 0, stderr: "" });
    const answer = readNpz(await readFile(at("out.npz"))).get("output") ?? expect.fail("no output");
    expect(answer.shape).toEqual(golden("y").shape);
    const differences = [...(answer.data as Float32Array)].map((value, place) =>
      Math.abs(value - Number(golden("y").data[place])),
    );
    expect(Math.max(...differences)).toBeLessThan(1e-5);
  });

  it("refuses a tap of another type, an unknown one, and options of other formats", async () => {
    const cases: [given: string[], code: string, says: RegExp][] = [
      [
        [fixture("state_zip.pth"), "--for", at("backbone.onnx"), "--tap", "map"],
        "HEAD_MISMATCH",
        /\[batch, 6\].*map/,
      ],
      [[fixture("state_zip.pth"), "--for", at("backbone.onnx"), "--tap", "c5"], "NOT_FOUND", /c5/],
      [[fixture("state_zip.pth"), "--tap", "features"], "INVALID_ARGUMENT", /--for/],
      [[at("backbone.onnx"), "--head", "fc"], "INVALID_ARGUMENT", /PyTorch/],
      [[fixture("state_zip.pth"), "--head", "fc"], "NOT_FOUND", /fc/],
      [[fixture("chain.pth"), "--hidden", "swoosh"], "INVALID_ARGUMENT", /swoosh/],
      [[fixture("described.pth"), "--architecture", '["Linear", "GELU"'], "INVALID_ARGUMENT", /not JSON/],
      [[fixture("described.pth"), "--architecture", '["Linear", "Linear"]'], "INVALID_ARGUMENT", /3\.weight/],
      [
        [fixture("described.pth"), "--architecture", '["Linear","GELU",{"type":"Dropout","q":1},"Linear"]'],
        "INVALID_ARGUMENT",
        /"q"/,
      ],
    ];
    for (const [given, code, says] of cases) {
      const run = await polyhead("import", ...given, "-o", at("never.onnx"), "--json");
      const { error } = JSON.parse(run.stdout);
      expect({ given, code: error.code }).toEqual({ given, code });
      expect(error.message).toMatch(says);
    }
  });
});
