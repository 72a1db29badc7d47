/** Trials of models that crash, that do not end and that fill the memory: the process that tried them goes on. */
import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { describe, expect, it } from "vitest";
import { inTrial } from "../../src/cli/trial/trial.js";
import { type Graph, graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { float32, int64 } from "../../src/tensor/tensor.js";

const x = new Map([["x", float32([2, 2], [1, 2, 3, 4])]]);

/** From `x` [2, 2] to `y`, beside some constants. */
function built(...nodes: Graph["node"]) {
  return model(
    graph("g", {
      nodes,
      inputs: [valueInfo("x", "float32", [2, 2])],
      outputs: [valueInfo("y", "float32")],
      weights: [
        weight("many", int64([], [2 ** 52])),
        weight("one", int64([], [1])),
        weight("least", int64([], [-(2 ** 63)])),
        weight("big", float32([64, 128], new Float32Array(64 * 128).fill(1))),
      ],
    }),
  );
}

/** A loop that does something with a value of n rows for as long as there are numbers. */
function endless(...[body]: readonly [Graph["node"][number]]) {
  const inner = graph("body", {
    nodes: [node("Identity", ["c"], ["c2"]), body],
    inputs: [valueInfo("i", "int64", []), valueInfo("c", "bool", []), valueInfo("v", "float32", ["n", 2])],
    outputs: [valueInfo("c2", "bool", []), valueInfo("v2", "float32", ["m", 2])],
    weights: [],
  });
  return built(node("Loop", ["many", "", "x"], ["y"], { body: inner }));
}

const attempt = (of: ReturnType<typeof model>) =>
  inTrial(async (open) => {
    const opened = await open(of, "all");
    return opened.run(x);
  });

/** Much for a machine that is busy: what is tried takes seconds of processor time. */
const LONG = 300_000;

describe("a trial", { timeout: LONG }, () => {
  it("runs several models, weights in files of their own included, and leaves nothing behind", async () => {
    const before = (await readdir(tmpdir())).filter((name) => name.startsWith("polyhead-trial-"));
    const sums = await inTrial(async (open) => {
      const double = await open(built(node("Add", ["x", "x"], ["y"])), "off");
      const sum = await open(
        built(node("ReduceSum", ["big"], ["all"], { keepdims: 0 }), node("Add", ["x", "all"], ["y"])),
        "all",
      );
      const values = [await double.run(x), await sum.run(x), await double.run(x)];
      await double.close();
      await sum.close();
      return values.map((outputs) => [...(outputs.get("y")?.data ?? [])]);
    });
    expect(sums).toEqual([
      [2, 4, 6, 8],
      [8193, 8194, 8195, 8196],
      [2, 4, 6, 8],
    ]);
    const after = (await readdir(tmpdir())).filter((name) => name.startsWith("polyhead-trial-"));
    expect(after.filter((name) => !before.includes(name))).toEqual([]);
  });

  it.runIf(process.arch === "x64")("outlives a crash of the runtime", async () => {
    const crashing = built(
      node("Cast", ["x"], ["whole"], { to: 7 }),
      node("Sub", ["whole", "whole"], ["nothing"]),
      node("Sub", ["nothing", "one"], ["minus"]),
      // The processor has no number for this quotient.
      node("Div", ["least", "minus"], ["part"]),
      node("Cast", ["part"], ["y"], { to: 1 }),
    );
    await expect(attempt(crashing)).rejects.toMatchObject({ code: "RUN_FAILED", details: { how: "SIGFPE" } });
  });

  it("stops what does not end", async () => {
    await expect(attempt(endless(node("Add", ["v", "v"], ["v2"])))).rejects.toMatchObject({
      code: "LIMIT_EXCEEDED",
    });
  });

  it("stops what grows without an end", async () => {
    await expect(attempt(endless(node("Concat", ["v", "v"], ["v2"], { axis: 0 })))).rejects.toMatchObject({
      code: "LIMIT_EXCEEDED",
    });
  });

  it("passes on why the runtime refuses a model, and what the caller throws", async () => {
    const refused = built(node("NoSuchOperator", ["x"], ["y"]));
    await expect(attempt(refused)).rejects.toMatchObject({ code: "LOAD_FAILED" });
    await expect(inTrial(() => Promise.reject(new RangeError("mine")))).rejects.toThrow("mine");
  });
});
