/**
 * A linear layer with its weights inside the model against one that takes them as inputs, in ONNX Runtime itself:
 * what the engine pays for loading such heads without compiling anything, and why it leaves large ones whole
 * (`src/onnx/template.ts`).
 */
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { graph, model, node, valueInfo } from "../dist/onnx/model.js";
import { weight, weightDtype, weightShape, weightTensor } from "../dist/onnx/weight.js";
import { modelBytes } from "../dist/onnx/write.js";
import { float32 } from "../dist/tensor/tensor.js";
import { digits, interleave, spread, table } from "./measure.js";
import { numbers } from "./models.js";

const LAYERS = [
  { width: 480, classes: 14 },
  { width: 2048, classes: 1000 },
];
const BATCHES = [1, 8, 32];

/** @param {{ quick: boolean }} options */
export async function measureTables({ quick }) {
  const options = { executionProviders: ["cpu"], intraOpNumThreads: 1, interOpNumThreads: 1 };
  const rows = [];
  const all = /** @type {Record<string, object>} */ ({});
  for (const { width, classes } of LAYERS) {
    const whole = linearLayer(width, classes);
    const bytes = modelBytes(whole);
    const inside = await InferenceSession.create(bytes, options);
    const outside = await InferenceSession.create(modelBytes(withoutWeights(whole)), options);
    const tensors = whole.graph.initializer.map((each) => {
      const { data, shape } = weightTensor(each);
      return [each.name, new OrtTensor("float32", /** @type {Float32Array} */ (data), shape)];
    });
    const cases = /** @type {Record<string, () => Promise<unknown>>} */ ({
      "load, weights inside": async () => (await InferenceSession.create(bytes, options)).release(),
    });
    for (const batch of BATCHES) {
      const feature = new OrtTensor("float32", numbers(batch * width, batch), [batch, width]);
      const feeds = Object.fromEntries([["feature", feature], ...tensors]);
      cases[`batch ${batch}, weights inside`] = () => inside.run({ feature });
      cases[`batch ${batch}, weights as inputs`] = () => outside.run(feeds);
    }
    const results = await interleave(cases, { rounds: quick ? 50 : 400, warmUp: 10 });
    for (const [name, summary] of Object.entries(results))
      rows.push([`${width} x ${classes}: ${name}`, spread(summary)]);
    for (const batch of BATCHES) {
      const [baked, table] = ["inside", "as inputs"].map(
        (way) => results[`batch ${batch}, weights ${way}`]?.median ?? 0,
      );
      rows.push([`${width} x ${classes}: batch ${batch}, ratio`, digits((table ?? 0) / (baked ?? 0))]);
    }
    all[`${width} x ${classes}`] = results;
    await inside.release();
    await outside.release();
  }
  return {
    title: "One linear layer, one thread: weights inside the model, or as inputs",
    table: table([["case", "ms: median (quartiles)"], ...rows]),
    results: all,
    targets: [],
  };
}

/**
 * @param {number} width
 * @param {number} classes
 */
function linearLayer(width, classes) {
  const main = graph("linear", {
    nodes: [node("Gemm", ["feature", "weight", "bias"], ["scores"])],
    inputs: [valueInfo("feature", "float32", ["batch", width])],
    outputs: [valueInfo("scores", "float32", ["batch", classes])],
    weights: [
      weight("weight", float32([width, classes], numbers(width * classes, 1))),
      weight("bias", float32([classes], numbers(classes, 2))),
    ],
  });
  return model(main);
}

/**
 * The layer with its weights as inputs, whatever their size.
 * @param {import("../dist/onnx/model.js").Model} whole
 */
function withoutWeights({ graph: { node: nodes, input, output, initializer } }) {
  const given = initializer.map((each) => valueInfo(each.name, weightDtype(each), weightShape(each)));
  return model(graph("linear", { nodes, inputs: [...input, ...given], outputs: output, weights: [] }));
}
