/** Polyhead: one backbone, many heads, switched live. What a program on Node needs; parts stand under subpaths. */
import { availableParallelism } from "node:os";
import { Engine, type EngineOptions } from "./engine/engine.js";
import { OrtWorker } from "./runtime/node/ort-worker.js";
import { Runtime, type RuntimeOptions } from "./runtime/runtime.js";

export * from "./base/errors.js";
export * from "./base/folder.js";
export * from "./engine/index.js";
export { loadModel, saveModel } from "./files/disk.js";
export type { Tensor } from "./tensor/tensor.js";
export { float32, int64, tensor } from "./tensor/tensor.js";

/**
 * An engine with ONNX Runtime in worker threads. Backbones take as many threads as the processor has cores,
 * divided among the workers.
 */
export async function openEngine(options: EngineOptions & RuntimeOptions = {}): Promise<Engine> {
  const runtime = await Runtime.open(() => OrtWorker.start(), options);
  const threads = options.threads ?? Math.max(1, Math.floor(availableParallelism() / (options.workers ?? 1)));
  return Engine.open(runtime, { ...options, threads });
}
