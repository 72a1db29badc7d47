/** The verbs split, join and share as processes, with their files and exit statuses. */
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModel, saveModel } from "../../src/files/disk.js";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { int64 } from "../../src/tensor/tensor.js";
import { architecture } from "../onnx/architectures.js";
import { polyhead } from "./command.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  await saveModel(join(folder, "excite.onnx"), architecture("squeeze and excite", "N"));
  await saveModel(join(folder, "dense.onnx"), architecture("dense concatenation", "N"));
});
afterAll(() => rm(folder, { recursive: true }));

const at = (...parts: string[]) => join(folder, ...parts);

describe("polyhead split", () => {
  it("writes the parts that it proved", async () => {
    const run = await polyhead("split", at("excite.onnx"), "-o", at("parts"), "--json");
    expect(run.stderr).toBe("");
    expect(JSON.parse(run.stdout)).toMatchObject({
      backbone: {
        path: at("parts", "backbone.onnx"),
        taps: [{ name: "features", shape: ["N", 6], identity: expect.stringMatching(/^[0-9a-f]{64}$/) }],
      },
      heads: [{ name: "head", path: at("parts", "head.onnx"), parameters: 6 * 5 + 5 }],
      proof: { inputs: 6, maxAbsDiff: 0, bitwise: true },
    });
    expect((await readdir(at("parts"))).sort()).toEqual(["backbone.onnx", "head.onnx"]);
    expect(run.status).toBe(0);
  });

  it.each([
    ["a value that is not there", "features,nowhere", 66, "NOT_FOUND"],
    ["a cut with a way around it", "gate", 65, "CUT_INVALID"],
  ])("writes nothing for %s", async (_, cut, status, code) => {
    const run = await polyhead("split", at("excite.onnx"), "--at", cut, "-o", at("never"), "--json");
    expect({ status: run.status, code: JSON.parse(run.stdout).error.code }).toEqual({ status, code });
    expect(await readdir(folder)).not.toContain("never");
  });

  it("writes no part when one of them cannot be written", async () => {
    await mkdir(at("taken", "head.onnx"), { recursive: true });
    const run = await polyhead("split", at("excite.onnx"), "-o", at("taken"), "--json");
    expect(run.status).toBe(73);
    expect(JSON.parse(run.stdout).error.code).toBe("FILE_NOT_WRITTEN");
    expect(await readdir(at("taken"))).toEqual(["head.onnx"]);
  });

  it("proves at the sizes that it is given, and refuses what is no size", async () => {
    const wide = model(
      graph("wide", {
        nodes: [node("Relu", ["x"], ["r"]), node("Reshape", ["r", "to"], ["y"])],
        inputs: [valueInfo("x", "float32", ["N", "length"])],
        outputs: [valueInfo("y", "float32", ["N", 2, 5])],
        weights: [weight("to", int64([3], [0, 2, 5]))],
      }),
    );
    await saveModel(at("wide.onnx"), wide);
    const cut = ["split", at("wide.onnx"), "--at", "r"];
    const run = await polyhead(...cut, "--size", "length=10", "-o", at("wide"));
    expect(run).toMatchObject({ status: 0, stderr: "" });
    expect((await polyhead(...cut, "--size", "length", "-o", at("never"))).status).toBe(64);
    expect((await polyhead(...cut, "-o", at("never"))).status).toBe(70);
    expect(await readdir(folder)).not.toContain("never");
  });

  it("writes nothing for a model that draws random numbers", async () => {
    const random = model(
      graph("random", {
        nodes: [node("RandomNormalLike", ["x"], ["noise"]), node("Add", ["x", "noise"], ["y"])],
        inputs: [valueInfo("x", "float32", ["N", 4])],
        outputs: [valueInfo("y", "float32", ["N", 4])],
        weights: [],
      }),
    );
    await saveModel(at("random.onnx"), random);
    const run = await polyhead("split", at("random.onnx"), "--at", "y", "-o", at("never"));
    expect(run.status).toBe(65);
    expect(run.stdout).toBe("");
    expect(run.stderr).toContain('RandomNormalLike "noise"');
    expect(await readdir(folder)).not.toContain("never");
  });
});

describe("polyhead join", () => {
  it("makes one model of the parts, and refuses a head of another backbone", async () => {
    for (const name of ["excite", "dense"])
      await polyhead("split", at(`${name}.onnx`), "--at", "features", "-o", at(name));
    const good = await polyhead(
      "join",
      at("dense", "backbone.onnx"),
      at("dense", "head.onnx"),
      "-o",
      at("joined.onnx"),
      "--json",
    );
    expect(JSON.parse(good.stdout)).toMatchObject({ inputs: ["x"], outputs: ["logits"] });
    expect((await loadModel(at("joined.onnx"))).graph.output.map(({ name }) => name)).toEqual(["logits"]);
    const bad = await polyhead(
      "join",
      at("excite", "backbone.onnx"),
      at("dense", "head.onnx"),
      "-o",
      at("not.onnx"),
    );
    expect(bad.status).toBe(65);
    expect(bad.stderr).toContain("HEAD_MISMATCH");
    expect(await readdir(folder)).not.toContain("not.onnx");
  });
});

describe("polyhead share", () => {
  it("prints segments and parameters", async () => {
    const run = await polyhead("share", at("excite.onnx"), at("dense.onnx"), "--json");
    const { segments, parameters } = JSON.parse(run.stdout);
    expect(segments.map(({ usedBy }: { usedBy: string[] }) => usedBy)).toEqual([["excite"], ["dense"]]);
    expect(parameters.shared).toBe(parameters.separate);
  });
});
