/** Memory of a run, told before anything runs: small files that compute something enormous are refused. */
import { describe, expect, it } from "vitest";
import { MOST_RUN_BYTES, requireMemory, runDemand } from "../../src/onnx/memory.js";
import { graph, type Model, model, type Node, node, valueInfo } from "../../src/onnx/model.js";
import { sampleInputs } from "../../src/onnx/samples.js";
import { splitModel } from "../../src/onnx/split.js";
import { proveSplit } from "../../src/onnx/verify.js";
import { weight } from "../../src/onnx/weight.js";
import type { Dimension } from "../../src/tensor/shape.js";
import { float32, int64 } from "../../src/tensor/tensor.js";
import { ARCHITECTURES, architecture } from "./architectures.js";
import { useRuntime } from "./runtime.js";

const MANY = 2 ** 20;

/** `x`, a list `s`, to `y`. */
function made(nodes: Node[], s: readonly number[], x: readonly Dimension[] = [2, 2]): Model {
  return model(
    graph("g", {
      nodes,
      inputs: [valueInfo("x", "float32", x)],
      outputs: [valueInfo("y", "float32")],
      weights: [
        weight("s", int64([s.length], s)),
        weight("zero", int64([], [0])),
        weight("end", int64([], [s[0] ?? 0])),
        weight("one", int64([], [1])),
        weight("scales", float32([2], [MANY, MANY])),
        weight("onoff", float32([2], [0, 1])),
      ],
    }),
  );
}

const ENORMOUS: Readonly<Record<string, Model>> = {
  ConstantOfShape: made([node("ConstantOfShape", ["s"], ["y"])], [MANY, MANY]),
  Expand: made([node("Expand", ["x", "s"], ["y"])], [MANY, MANY, 1, 1]),
  Tile: made([node("Tile", ["x", "s"], ["y"])], [MANY, MANY]),
  Pad: made([node("Pad", ["x", "s"], ["y"])], [MANY, MANY, MANY, MANY]),
  Range: made([node("Range", ["zero", "end", "one"], ["y"])], [2 ** 40]),
  "Resize by sizes": made([node("Resize", ["x", "", "", "s"], ["y"])], [MANY, MANY]),
  "Resize by scales": made([node("Resize", ["x", "", "scales"], ["y"])], []),
  OneHot: made(
    [node("Cast", ["x"], ["i"], { to: 7 }), node("OneHot", ["i", "end", "onoff"], ["y"])],
    [2 ** 30],
  ),
  "an outer product": made(
    [node("Reshape", ["x", "s"], ["r"]), node("Mul", ["x", "r"], ["y"])],
    [-1, 1, 1],
    [2 ** 14, 2 ** 8],
  ),
  "a shape computed from the input's": made(
    [
      node("Shape", ["x"], ["shape"]),
      node("Mul", ["shape", "s"], ["large"]),
      node("Expand", ["x", "large"], ["y"]),
    ],
    [MANY, MANY],
    ["N", 1],
  ),
  "a value that is thrown away": made(
    [node("Tile", ["x", "s"], ["t"]), node("ReduceSum", ["t"], ["y"], { keepdims: 0 })],
    [MANY, MANY],
  ),
  "a branch": made(
    [
      node("ReduceSum", ["x"], ["sum"], { keepdims: 0 }),
      node("Cast", ["sum"], ["chosen"], { to: 9 }),
      node("If", ["chosen"], ["y"], {
        then_branch: graph("then", {
          nodes: [node("Tile", ["x", "s"], ["t"]), node("ReduceSum", ["t"], ["a"], { keepdims: 0 })],
          inputs: [],
          outputs: [valueInfo("a", "float32")],
          weights: [],
        }),
        else_branch: graph("else", {
          nodes: [node("ReduceSum", ["x"], ["b"], { keepdims: 0 })],
          inputs: [],
          outputs: [valueInfo("b", "float32")],
          weights: [],
        }),
      }),
    ],
    [MANY, MANY],
  ),
};

describe("the memory of a run", () => {
  it.each(Object.entries(ENORMOUS))("%s is refused before it runs", (_, enormous) => {
    const sample = sampleInputs(enormous.graph.input, { batch: 1 }, 0);
    expect(() => requireMemory(enormous, sample)).toThrowError(
      expect.objectContaining({ name: "PolyheadError", code: "LIMIT_EXCEEDED" }),
    );
  });

  it("is that of the values that are alive at a time", () => {
    const chain = made(
      [
        node("Relu", ["x"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("Concat", ["b", "x"], ["y"], { axis: 0 }),
      ],
      [],
      ["N", 256],
    );
    // x and a, then x, a and b, then x, b and y: 1 + 1 + 2 of 1 KiB for each row.
    expect(runDemand(chain, new Map([["x", [100, 256]]])).bytes).toBe(100 * 4 * 1024);
    expect(runDemand(chain, new Map([["x", [1, 256]]])).largest).toMatchObject({ name: "y", bytes: 2048 });
  });

  it.each(ARCHITECTURES)("of a sound network is far below the limit: %s", (name) => {
    const whole = architecture(name, "N");
    const sample = sampleInputs(whole.graph.input, { batch: 3 }, 0);
    const shapes = new Map([...sample].map(([input, { shape }]) => [input, shape]));
    expect(runDemand(whole, shapes).bytes).toBeLessThan(MOST_RUN_BYTES / 10);
  });

  it("is looked at before a proof opens the model", async () => {
    const whole = made(
      [node("Relu", ["x"], ["cut"]), node("Tile", ["cut", "s"], ["t"]), node("Relu", ["t"], ["y"])],
      [MANY, MANY],
      ["N", 2],
    );
    const split = await splitModel(whole, { at: ["cut"] });
    const open = () => Promise.reject(new Error("the model was opened"));
    await expect(proveSplit(whole, split, open)).rejects.toMatchObject({ code: "LIMIT_EXCEEDED" });
  });
});

describe("a proof", () => {
  const open = useRuntime();

  it("of a network for large pictures uses the batch sizes that fit", async () => {
    const channels = 16;
    const whole = model(
      graph("g", {
        nodes: [
          node("Conv", ["x", "filter"], ["map"]),
          node("Relu", ["map"], ["active"]),
          node("GlobalAveragePool", ["active"], ["pool"]),
          node("Flatten", ["pool"], ["flat"]),
          node("Gemm", ["flat", "matrix"], ["y"]),
        ],
        inputs: [valueInfo("x", "float32", ["N", 3, 1280, 1280])],
        outputs: [valueInfo("y", "float32", ["N", 4])],
        weights: [
          weight("filter", float32([channels, 3, 1, 1], new Float32Array(channels * 3).fill(0.1))),
          weight("matrix", float32([channels, 4], new Float32Array(channels * 4).fill(0.1))),
        ],
      }),
    );
    const proof = await proveSplit(whole, await splitModel(whole), open, { inputs: 1 });
    expect(proof).toMatchObject({ batches: [1, 2], inputs: 2, bitwise: true });
  });
});

describe("samples", () => {
  it.each([
    ["of 2^40 elements", [MANY, MANY]],
    ["of a thousand axes", Array(1000).fill(2)],
    ["of thirty open axes", Array.from({ length: 30 }, (_, at) => `d${at}`)],
  ])("%s are refused", (_, shape) => {
    expect(() => sampleInputs([valueInfo("x", "float32", shape)], { batch: 1 }, 0)).toThrowError(
      expect.objectContaining({ name: "PolyheadError", code: "LIMIT_EXCEEDED" }),
    );
  });
});
