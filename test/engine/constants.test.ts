/** Outputs that depend on no input: weights, and what is computed of weights alone. */
import { afterEach, describe, expect, it } from "vitest";
import type { Engine } from "../../src/engine/index.js";
import { openEngine } from "../../src/index.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { float32, type Tensor, tensor, toNumbers } from "../../src/tensor/tensor.js";

let engine: Engine;
afterEach(() => engine?.close());

/** A model with anchors computed of its weights, a table of texts, and its input's double. */
function withConstants(factor: number): Model {
  return model(
    graph("constants", {
      nodes: [
        node("Mul", ["x", "factor"], ["y"]),
        node("Add", ["grid", "grid"], ["doubled"]),
        node("Sqrt", ["doubled"], ["anchors"]),
        node("Identity", ["names"], ["classes"]),
      ],
      inputs: [valueInfo("x", "float32", ["batch", 2])],
      outputs: [
        valueInfo("y", "float32", ["batch", 2]),
        valueInfo("anchors", "float32", [3]),
        valueInfo("classes", "string", [2]),
        valueInfo("grid", "float32", [3]),
      ],
      weights: [
        weight("factor", float32([1, 1], [factor])),
        weight("grid", float32([3], [2, 8, 18])),
        weight("names", tensor("string", [2], ["cat", "dog"])),
      ],
    }),
  );
}

const valuesOf = (outputs: Readonly<Record<string, Tensor>>) =>
  Object.fromEntries(
    Object.entries(outputs).map(([name, { dtype, shape, data }]) => [
      name,
      [shape, dtype === "string" ? data : [...toNumbers({ dtype, shape, data })]],
    ]),
  );

describe("outputs that depend on no input", () => {
  it("are in every answer, whatever the batch and whoever runs beside it", async () => {
    engine = await openEngine();
    await engine.add("double", withConstants(2));
    await engine.add("triple", withConstants(3));
    const constants = {
      anchors: [[3], [2, 4, 6]],
      classes: [[2], ["cat", "dog"]],
      grid: [[3], [2, 8, 18]],
    };
    const answers = await Promise.all(
      [1, 2, 3].map((rows) =>
        engine.run(["double", "triple"], { x: float32([rows, 2], Array(rows * 2).fill(rows)) }),
      ),
    );
    for (const [at, { routes }] of answers.entries()) {
      const rows = at + 1;
      const all = (factor: number) => [[rows, 2], Array(rows * 2).fill(rows * factor)];
      expect(valuesOf(routes.double.outputs)).toEqual({ y: all(2), ...constants });
      expect(valuesOf(routes.triple.outputs)).toEqual({ y: all(3), ...constants });
    }
  });

  it("are the caller's to change", async () => {
    engine = await openEngine();
    await engine.add("double", withConstants(2));
    const x = float32([1, 2], [1, 1]);
    const first = await engine.run(["double"], { x });
    for (const { data } of Object.values(first.routes.double.outputs))
      if (data instanceof Float32Array) data.fill(0);
    const second = await engine.run(["double"], { x });
    expect(valuesOf(second.routes.double.outputs)).toMatchObject({
      anchors: [[3], [2, 4, 6]],
      grid: [[3], [2, 8, 18]],
    });
  });
});
