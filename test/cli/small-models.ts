/** A small backbone with heads, made by splitting monoliths that share it, for the verbs about routes. */
import { join } from "node:path";
import { saveModel } from "../../src/files/disk.js";
import { withMetadata } from "../../src/onnx/metadata.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { splitModel } from "../../src/onnx/split.js";
import { weight } from "../../src/onnx/weight.js";
import { float32 } from "../../src/tensor/tensor.js";

/** The backbone doubles `x`, and the head adds `offset`: the answer `y` is `2 x + offset`. */
function monolith(offset: number, factor = 2): Model {
  const main = graph("small", {
    nodes: [node("Mul", ["x", "factor"], ["features"]), node("Add", ["features", "offset"], ["y"])],
    inputs: [valueInfo("x", "float32", ["batch", 3])],
    outputs: [valueInfo("y", "float32", ["batch", 3])],
    weights: [
      weight("factor", float32([3], [factor, factor, factor])),
      weight("offset", float32([3], [offset, offset, offset])),
    ],
  });
  return withMetadata(model(main), { task: "regression" });
}

/** Writes `backbone.onnx`, `one.onnx` and `ten.onnx`, which add 1 and 10, and `alien.onnx` for another backbone. */
export async function writeSmallModels(folder: string): Promise<void> {
  const parts = { one: monolith(1), ten: monolith(10), alien: monolith(1, 3) };
  for (const [name, whole] of Object.entries(parts)) {
    const { backbone, heads } = await splitModel(whole, { at: ["features"] });
    if (name === "one") await saveModel(join(folder, "backbone.onnx"), backbone);
    for (const head of heads) await saveModel(join(folder, `${name}.onnx`), head.model);
  }
}
