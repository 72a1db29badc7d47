/**
 * A backbone with heads for a server, and what each head must answer: computed by ONNX Runtime itself on the whole
 * model, before it was split, so that nothing of Polyhead's running is in it.
 */
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { withMetadata } from "../../dist/onnx/metadata.js";
import { graph, model, node, valueInfo } from "../../dist/onnx/model.js";
import { revisionOf } from "../../dist/onnx/revision.js";
import { splitModel } from "../../dist/onnx/split.js";
import { weight } from "../../dist/onnx/weight.js";
import { modelBytes } from "../../dist/onnx/write.js";
import { float32 } from "../../dist/tensor/tensor.js";
import { numbers } from "../models.js";

const CLASSES = 6;
const CHANNELS = 16;

/**
 * @typedef {{ file: Uint8Array, revision: string, expected: readonly Float32Array[] }} Head with what it must answer to
 *   each input
 * @typedef {{ side: number, inputs: readonly Float32Array[], backbone: Uint8Array, heads: readonly Head[],
 *   alien: Uint8Array, broken: readonly Uint8Array[] }} World
 */

/**
 * @param {{ heads: number, inputs?: number, side?: number, width?: number, depth?: number }} size
 * @returns {Promise<World>}
 */
export async function makeWorld({
  heads: count,
  inputs: inputCount = 4,
  side = 16,
  width = CHANNELS,
  depth = 0,
}) {
  const inputs = Array.from({ length: inputCount }, (_, at) => numbers(3 * side * side, 1000 + at));
  const shape = { side, width, depth };
  let backbone;
  const heads = [];
  for (let seed = 1; seed <= count; seed++) {
    const whole = monolith({ ...shape, trunk: 1, seed });
    const parts = await splitModel(whole, { at: ["features"] });
    backbone ??= parts.backbone;
    const head = parts.heads[0]?.model;
    if (!head) throw new Error("the model did not split");
    const expected = await answers(whole, inputs, side);
    heads.push({ file: modelBytes(head), revision: await revisionOf(head), expected });
  }
  if (!backbone) throw new Error("a world needs heads");
  const { heads: strangers } = await splitModel(monolith({ ...shape, trunk: 2, seed: 1 }), {
    at: ["features"],
  });
  const alien = modelBytes(strangers[0]?.model ?? backbone);
  const whole = modelBytes(monolith({ ...shape, trunk: 3, seed: 1 }));
  const broken = [
    Buffer.from("this is not a model"),
    whole.subarray(0, Math.floor(whole.length / 2)),
    modelBytes(monolith({ ...shape, trunk: 3, seed: 1, last: "NoSuchOperator" })),
  ];
  return { side, inputs, backbone: modelBytes(backbone), heads, alien, broken };
}

/**
 * Convolutions (the trunk) and a linear classifier (the head).
 * @param {{ side: number, width: number, depth: number, trunk: number, seed: number, last?: string }} options
 */
function monolith({ side, width, depth, trunk, seed, last = "Gemm" }) {
  const square = 9 * width * width;
  const layers = Array.from({ length: depth }, (_, at) => at);
  const scaled = (/** @type {number} */ length, /** @type {number} */ at) =>
    numbers(length, at).map((value) => value * Math.sqrt(3 / width / 9));
  const main = graph("served", {
    nodes: [
      node("Conv", ["image", "w0"], ["c0"], { strides: [2, 2], pads: [1, 1, 1, 1] }),
      node("Relu", ["c0"], ["r0"]),
      ...layers.flatMap((at) => [
        node("Conv", [`r${at}`, `w${at + 1}`], [`c${at + 1}`], { pads: [1, 1, 1, 1] }),
        node("Relu", [`c${at + 1}`], [`r${at + 1}`]),
      ]),
      node("GlobalAveragePool", [`r${depth}`], ["mean"]),
      node("Flatten", ["mean"], ["features"]),
      node(last, ["features", "matrix"], ["scores"]),
    ],
    inputs: [valueInfo("image", "float32", ["batch", 3, side, side])],
    outputs: [valueInfo("scores", "float32", ["batch", CLASSES])],
    weights: [
      weight("w0", float32([width, 3, 3, 3], numbers(27 * width, trunk))),
      ...layers.map((at) =>
        weight(`w${at + 1}`, float32([width, width, 3, 3], scaled(square, 100 * trunk + at))),
      ),
      weight("matrix", float32([width, CLASSES], numbers(width * CLASSES, 5000 + seed))),
    ],
  });
  return withMetadata(model(main), { task: "classification" });
}

/**
 * @param {import("../../dist/onnx/model.js").Model} whole
 * @param {readonly Float32Array[]} inputs
 * @param {number} side
 */
async function answers(whole, inputs, side) {
  const session = await InferenceSession.create(modelBytes(whole), { logSeverityLevel: 3 });
  const made = [];
  for (const input of inputs) {
    const { scores } = await session.run({ image: new OrtTensor("float32", input, [1, 3, side, side]) });
    made.push(Float32Array.from(/** @type {Float32Array} */ (scores?.data)));
  }
  await session.release();
  return made;
}
