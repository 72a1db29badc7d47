/** What is measured: a published detector cut at its pyramid, linear heads on it, a small network, inputs. */
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { DiskFolder } from "../dist/files/disk.js";
import { importTfjsGraph } from "../dist/formats/index.js";
import { openEngine } from "../dist/index.js";
import { readMetadata, withMetadata } from "../dist/onnx/metadata.js";
import { graph, model, node, valueInfo } from "../dist/onnx/model.js";
import { splitModel } from "../dist/onnx/split.js";
import { weight } from "../dist/onnx/weight.js";
import { modelBytes } from "../dist/onnx/write.js";
import { float32 } from "../dist/tensor/tensor.js";

/** @typedef {import("../dist/onnx/model.js").Model} Model */
/** @typedef {import("../dist/tensor/tensor.js").Tensor} Tensor */
/** @typedef {import("../dist/index.js").Engine} Engine */

/** Threads inside operators, for the engine's backbone and for everything that it is compared with. */
export const threads = availableParallelism();

/** Where the detector's TF.js files are. */
export const detectorFolder = fileURLToPath(
  new URL("../node_modules/@vladmandic/human/models", import.meta.url),
);

/** The detector's backbone at strides 4, 8, 16 and 32: all that its neck and head read. */
export const PYRAMID = [
  "tower_0/MobilenetV3/expanded_conv_3/expand/Relu",
  "tower_0/MobilenetV3/expanded_conv_5/expand/Relu",
  "tower_0/MobilenetV3/expanded_conv_11/add",
  "tower_0/extern1/hard_swish/mul_1",
];
const DEEPEST = "tower_0/extern1/hard_swish/mul_1";
const CLASSES = 14;

/**
 * The detector whole, and cut at its pyramid.
 * @returns {Promise<{ whole: Model, backbone: Model, detectorHead: Model }>}
 */
export async function detector() {
  const { model: whole } = await importTfjsGraph(new DiskFolder(detectorFolder), "centernet.json");
  const { backbone, heads } = await splitModel(whole, { at: PYRAMID });
  const [head] = heads;
  if (!head || heads.length > 1)
    throw new Error(`The detector split into ${heads.length} heads; expected one.`);
  return { whole, backbone, detectorHead: head.model };
}

/**
 * A classification head on the deepest features: mean over the picture, then one matrix.
 * @param {Model} backbone
 * @param {number} seed another one gives another head
 * @param {string} [tapName]
 */
export function linearHead(backbone, seed, tapName = DEEPEST) {
  const tap = readMetadata(backbone).taps?.find(({ name }) => name === tapName);
  if (!tap) throw new Error(`The backbone has no tap ${tapName}.`);
  const width = Number(tap.shape[1]);
  const weights = numbers(width * CLASSES, seed).map((value) => value * 0.1);
  const main = graph("linear", {
    nodes: [
      node("GlobalAveragePool", ["feature"], ["mean"]),
      node("Flatten", ["mean"], ["flat"]),
      node("Gemm", ["flat", "weight"], ["scores"]),
    ],
    inputs: [valueInfo("feature", "float32", tap.shape)],
    outputs: [valueInfo("scores", "float32", ["batch", CLASSES])],
    weights: [weight("weight", float32([width, CLASSES], weights))],
  });
  return withMetadata(model(main), { role: "head", taps: [tap] });
}

/** The tap of {@link smallBackbone}. */
export const SMALL_TAP = "features";

/** A network of two convolutions over 3x32x32, for measurements in which the backbone shall not count. */
export async function smallBackbone() {
  const main = graph("small", {
    nodes: [
      node("Conv", ["image", "w1"], ["c1"], { strides: [2, 2], pads: [1, 1, 1, 1] }),
      node("Relu", ["c1"], ["r1"]),
      node("Conv", ["r1", "w2"], ["c2"], { strides: [2, 2], pads: [1, 1, 1, 1] }),
      node("Relu", ["c2"], [SMALL_TAP]),
      node("GlobalAveragePool", [SMALL_TAP], ["mean"]),
    ],
    inputs: [valueInfo("image", "float32", ["batch", 3, 32, 32])],
    outputs: [valueInfo("mean", "float32", ["batch", 32, 1, 1])],
    weights: [
      weight("w1", float32([16, 3, 3, 3], numbers(16 * 27, 1))),
      weight("w2", float32([32, 16, 3, 3], numbers(32 * 144, 2))),
    ],
  });
  const { backbone } = await splitModel(model(main), { at: [SMALL_TAP] });
  return backbone;
}

/**
 * A picture of noise for {@link smallBackbone}.
 * @param {number} seed
 */
export function smallInput(seed) {
  return float32([1, 3, 32, 32], numbers(3 * 32 * 32, seed));
}

/**
 * A picture of noise for the detector.
 * @param {number} seed
 */
export function detectorInput(seed) {
  return float32(
    [1, 512, 512, 3],
    numbers(512 * 512 * 3, seed).map((value) => 127.5 * (value + 1)),
  );
}

/** An engine whose backbones take {@link threads}. */
export function openBenchEngine(cacheBytes = 2 ** 28) {
  return openEngine({ threads, cacheBytes });
}

/**
 * A model in ONNX Runtime itself, in this thread, with the engine's number of threads.
 * @param {Model} whole
 */
export async function openMonolith(whole) {
  const session = await InferenceSession.create(modelBytes(whole), {
    executionProviders: ["cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
  });
  const [input = ""] = session.inputNames;
  return {
    run: async (/** @type {Tensor} */ value) => {
      const data = /** @type {Float32Array} */ (value.data);
      return session.run({ [input]: new OrtTensor("float32", data, value.shape) });
    },
    release: () => session.release(),
  };
}

/**
 * Numbers in [-1, 1) that look random and are the same each time (mulberry32).
 * @param {number} count
 * @param {number} seed
 */
export function numbers(count, seed) {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 31 - 1;
  });
}
