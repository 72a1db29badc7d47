/**
 * Training steps of Polyhead, one for each line of standard input; answers with the peak of its memory in MiB.
 * Usage: polyhead-train.js THREADS FILE BATCH WAY [NORMS [recompute]], with WAY full, or probe: a linear layer on 512
 * features that are there already; NORMS frozen, or batch.
 */
import { createInterface } from "node:readline";
import { loadModel } from "../dist/files/disk.js";
import { graph, model, node, valueInfo } from "../dist/onnx/model.js";
import { weight } from "../dist/onnx/weight.js";
import { OrtWorker } from "../dist/runtime/node/ort-worker.js";
import { Runtime } from "../dist/runtime/runtime.js";
import { float32, int64 } from "../dist/tensor/tensor.js";
import { Trainer } from "../dist/train/trainer.js";
import { TrainingModel } from "../dist/train/training-model.js";

const [threads = "1", file = "", batch = "1", way = "full", norms = "frozen", again] = process.argv.slice(2);
const rows = Number(batch);
const [FEATURES, CLASSES] = [512, 1000];

const network = way === "probe" ? linear() : await loadModel(file);
const shape = way === "probe" ? [rows, FEATURES] : [rows, 3, 224, 224];
const x = Float32Array.from({ length: shape.reduce((product, size) => product * size, 1) }, Math.random);
const runtime = await Runtime.open(() => OrtWorker.start());
const trainer = new Trainer(
  runtime,
  new TrainingModel(network, { norms: norms === "batch" ? norms : "frozen" }),
  {
    optimizer: { kind: "adam" },
    threads: Number(threads),
    recompute: again === "recompute",
  },
);
const given = {
  inputs: new Map([["input", float32(shape, x)]]),
  terms: [
    {
      loss: /** @type {const} */ ({ kind: "cross-entropy" }),
      target: int64(
        [rows],
        Array.from({ length: rows }, (_, at) => at),
      ),
    },
  ],
};
console.log("ready");
for await (const _ of createInterface({ input: process.stdin })) {
  await trainer.step(given, 1e-4);
  console.log(Math.round(process.resourceUsage().maxRSS / 1024));
}
await runtime.close();

function linear() {
  const values = Float32Array.from({ length: FEATURES * CLASSES }, () => (Math.random() - 0.5) / 20);
  return model(
    graph("probe", {
      nodes: [node("Gemm", ["input", "weight", "bias"], ["logits"], { transB: 1 })],
      inputs: [valueInfo("input", "float32", ["N", FEATURES])],
      outputs: [valueInfo("logits", "float32", ["N", CLASSES])],
      weights: [
        weight("weight", float32([CLASSES, FEATURES], values)),
        weight("bias", float32([CLASSES], new Float32Array(CLASSES))),
      ],
    }),
  );
}
