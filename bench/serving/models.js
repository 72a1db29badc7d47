/** What is served: the detector's backbone at a size, linear heads on it, and the same as whole models. */
import { withGraph } from "../../dist/onnx/extract.js";
import { joinModels } from "../../dist/onnx/join.js";
import { withMetadata } from "../../dist/onnx/metadata.js";
import { copyOf, valueInfo } from "../../dist/onnx/model.js";
import { splitModel } from "../../dist/onnx/split.js";
import { weight, weightTensor } from "../../dist/onnx/weight.js";
import { float32 } from "../../dist/tensor/tensor.js";
import { detector, linearHead } from "../models.js";

/** @typedef {import("../models.js").Model} Model */

/** Where heads read: the deepest stage, 480 channels at a 32nd of the picture's size. */
const TAP = "tower_0/extern1/hard_swish/mul_1";
/** What the models call their input. */
export const INPUT = "image";

/**
 * The detector's backbone up to the stage that heads read, for pictures of `size` x `size` as [batch, 3, size, size].
 * The layout of TF.js is left out, so that the first operator is a convolution: whole models then share nothing.
 * @param {number} size
 * @returns {Promise<Model>}
 */
export async function servedBackbone(size) {
  const { backbone } = await detector();
  const whole = await joinModels(backbone, linearHead(backbone, 0, TAP));
  const [transpose, ...nodes] = whole.graph.node;
  const [picture, ...others] = whole.graph.input;
  if (transpose?.opType !== "Transpose" || transpose.input[0] !== picture?.name || others.length > 0)
    throw new Error("The detector does not begin with the transposition of its one picture.");
  const renamed = nodes.map((node) =>
    copyOf(node, { input: node.input.map((name) => (name === transpose.output[0] ? INPUT : name)) }),
  );
  const input = [valueInfo(INPUT, "float32", ["batch", 3, size, size])];
  const resized = withGraph(whole, copyOf(whole.graph, { node: renamed, input, valueInfo: [] }));
  const preprocessing = { width: size, height: size, range: [0, 255] };
  const parts = await splitModel(withMetadata(resized, { preprocessing }), { at: [TAP] });
  return parts.backbone;
}

/**
 * A head of {@link servedBackbone}.
 * @param {Model} backbone
 * @param {number} seed
 */
export function servedHead(backbone, seed) {
  return linearHead(backbone, seed, TAP);
}

/**
 * Backbone and head in one model, as if it had been trained alone: the weights of its first convolution, and with
 * them the identities of all that follows, are its own.
 * @param {Model} backbone
 * @param {number} seed
 * @returns {Promise<Model>}
 */
export async function wholeModel(backbone, seed) {
  const whole = await joinModels(backbone, servedHead(backbone, seed));
  const stem = whole.graph.node.find(({ input }) => input.includes(INPUT))?.input[1];
  const initializer = whole.graph.initializer.map((each) => {
    if (each.name !== stem) return each;
    const { shape, data } = weightTensor(each);
    const moved = Float32Array.from(/** @type {Float32Array} */ (data), (value) => value * (1 + seed * 1e-5));
    return weight(each.name, float32(shape, moved));
  });
  return withGraph(whole, copyOf(whole.graph, { initializer }));
}
