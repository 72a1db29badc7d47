/** Parameters and operations against counts made by hand from the definitions. */
import { describe, expect, it } from "vitest";
import { costOf } from "../../src/onnx/cost.js";
import { GraphIndex } from "../../src/onnx/graph.js";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { inferTypes } from "../../src/onnx/shapes.js";
import { weight } from "../../src/onnx/weight.js";
import { elementCount, type SymbolicShape } from "../../src/tensor/shape.js";
import { float32, int64, type Tensor } from "../../src/tensor/tensor.js";

const zeros = (...shape: number[]) => float32(shape, new Float32Array(elementCount(shape)));

function cost(
  opType: string,
  shapes: readonly SymbolicShape[],
  constants: Readonly<Record<string, Tensor>> = {},
  attributes: Parameters<typeof node>[3] = {},
) {
  const inputs = shapes.map((shape, place) => valueInfo(`x${place}`, "float32", shape));
  const names = [...inputs.map(({ name }) => name), ...Object.keys(constants)];
  const made = model(
    graph("g", {
      nodes: [node(opType, names, ["out"], attributes)],
      inputs,
      outputs: [valueInfo("out", "float32")],
      weights: Object.entries(constants).map(([name, value]) => weight(name, value)),
    }),
  );
  return costOf(made.graph.node, new GraphIndex(made.graph), inferTypes(made));
}

describe("costOf", () => {
  it("counts a multiply-accumulate of a convolution as two operations", () => {
    // 6 x 8 x 8 results of 4 x 3 x 3 terms each.
    expect(cost("Conv", [["N", 4, 10, 10]], { w: zeros(6, 4, 3, 3), b: zeros(6) })).toEqual({
      parameters: 6 * 4 * 3 * 3 + 6,
      flops: 2 * 6 * 8 * 8 * 4 * 3 * 3,
    });
  });

  it("knows that a depthwise convolution has one channel per result", () => {
    const { flops } = cost("Conv", [[1, 4, 10, 10]], { w: zeros(4, 1, 3, 3) }, { group: 4 });
    expect(flops).toBe(2 * 4 * 8 * 8 * 9);
  });

  it("counts a transposed convolution by its input", () => {
    const { flops } = cost("ConvTranspose", [[1, 4, 5, 5]], { w: zeros(4, 6, 2, 2) }, { strides: [2, 2] });
    expect(flops).toBe(2 * 4 * 5 * 5 * 6 * 2 * 2);
  });

  it.each([
    ["Gemm", [["N", 7]], zeros(3, 7), { transB: 1 }, 2 * 3 * 7],
    ["Gemm", [[7, "N"]], zeros(7, 3), { transA: 1 }, 2 * 3 * 7],
    ["MatMul", [["N", 5, 7]], zeros(7, 3), {}, 2 * 5 * 7 * 3],
    ["Einsum", [["N", 5, 7]], zeros(7, 3), { equation: "nij,jk->nik" }, 2 * 5 * 7 * 3],
  ] as const)("counts the terms of %s", (opType, shapes, w, attributes, flops) => {
    expect(cost(opType, shapes, { w }, attributes)).toEqual({ parameters: 21, flops });
  });

  it("counts one operation per element where there is no product, none where elements only move", () => {
    expect(cost("Relu", [["N", 4, 5]]).flops).toBe(20);
    expect(cost("Transpose", [["N", 4, 5]]).flops).toBe(0);
    expect(cost("GlobalAveragePool", [["N", 4, 5, 5]]).flops).toBe(100);
  });

  it("takes a folded batch for one row", () => {
    const folded = cost("Reshape", [["N", 4, 5]], { shape: int64([2], [-1, 5]) });
    expect(folded).toEqual({ parameters: 0, flops: 0 });
    expect(cost("Relu", [["4*N", 5]]).flops).toBe(20);
  });

  it("counts a weight that two nodes read once, and no indices or lone numbers", () => {
    const made = model(
      graph("g", {
        nodes: [
          node("MatMul", ["x", "w"], ["a"]),
          node("MatMul", ["a", "w"], ["b"]),
          node("Mul", ["b", "scale"], ["c"]),
          node("Gather", ["c", "place"], ["out"]),
        ],
        inputs: [valueInfo("x", "float32", ["N", 3])],
        outputs: [valueInfo("out", "float32")],
        weights: [weight("w", zeros(3, 3)), weight("scale", zeros()), weight("place", int64([2], [0, 0]))],
      }),
    );
    expect(costOf(made.graph.node, new GraphIndex(made.graph), inferTypes(made)).parameters).toBe(9);
  });
});
