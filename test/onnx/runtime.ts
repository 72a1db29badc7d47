/** A runtime for the tests of a file, started before the first and closed after the last. */
import { afterAll, beforeAll } from "vitest";
import type { OpenModel } from "../../src/onnx/runner.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { openModelOn } from "../../src/runtime/open-model.js";
import { Runtime } from "../../src/runtime/runtime.js";

/** Opens models on ONNX Runtime. */
export function useRuntime(): OpenModel {
  let open: OpenModel | undefined;
  let runtime: Runtime | undefined;
  beforeAll(async () => {
    runtime = await Runtime.open(() => OrtWorker.start());
    open = openModelOn(runtime);
  });
  afterAll(() => runtime?.close());
  return (model, optimisation) => {
    if (!open) throw new Error("the runtime is not started yet");
    return open(model, optimisation);
  };
}
