/**
 * The thread that owns ONNX Runtime's sessions. Runs and creations block it, and only it. It does one thing at a
 * time, in the order of the requests.
 */
import { parentPort } from "node:worker_threads";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { asError, asPolyheadError, PolyheadError } from "../../base/errors.js";
import type { Optimisation } from "../../onnx/runner.js";
import { DTYPES, type DType, isDType } from "../../tensor/dtype.js";
import { rowOf, stackRows } from "../../tensor/rows.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Program, RunResult, SessionOptions, Step } from "../backend.js";
import type { Request, Response, Task } from "./protocol.js";

const LEVELS = { off: "disabled", basic: "basic", all: "all" } as const satisfies Record<
  Optimisation,
  string
>;
const sessions = new Map<number, InferenceSession>();
const tensors = new Map<number, OrtTensor>();

async function create(number: number, model: Uint8Array, options: SessionOptions): Promise<void> {
  try {
    const session = await InferenceSession.create(model, {
      executionProviders: ["cpu"],
      intraOpNumThreads: options.threads ?? 1,
      interOpNumThreads: 1,
      graphOptimizationLevel: LEVELS[options.optimisation ?? "all"],
      logSeverityLevel: 3,
    });
    sessions.set(number, session);
  } catch (thrown) {
    throw asPolyheadError(thrown, "LOAD_FAILED", "ONNX Runtime refused the model");
  }
}

async function run(program: Program, given: ReadonlyMap<string, Tensor>): Promise<RunResult> {
  const values = new Map(given);
  const stepTimes: number[] = [];
  for (const [at, step] of program.steps.entries()) {
    const start = performance.now();
    const made = await (step.byRow
      ? runByRow(step, values)
      : runStep(step, (name) => lookUp(values, name))
    ).catch((thrown) => {
      const { code, message, details } = asPolyheadError(thrown, "RUN_FAILED", "ONNX Runtime failed");
      throw new PolyheadError(code, message, { ...details, step: at });
    });
    for (const [name, value] of made) values.set(name, value);
    stepTimes.push(performance.now() - start);
  }
  return { values: new Map(program.results.map((name) => [name, lookUp(values, name)])), stepTimes };
}

async function runStep(step: Step, value: (name: string) => Tensor): Promise<Map<string, Tensor>> {
  const session = sessions.get(step.session);
  if (!session)
    throw new PolyheadError("CLOSED", `Session ${step.session} is not loaded in this worker.`, {
      session: step.session,
    });
  const feeds = Object.fromEntries([
    ...step.feeds.map(([input, name]) => [input, toOrt(value(name))] as const),
    ...(step.kept ?? []).map(([input, number]) => [input, keptTensor(number)] as const),
  ]);
  try {
    const results = await session.run(
      feeds,
      step.fetches.map(([output]) => output),
    );
    return new Map(step.fetches.map(([output, name]) => [name, fromOrt(results[output])]));
  } catch (thrown) {
    throw asPolyheadError(thrown, "RUN_FAILED", "ONNX Runtime failed");
  }
}

async function runByRow(step: Step, values: ReadonlyMap<string, Tensor>): Promise<Map<string, Tensor>> {
  const rows = Math.max(...step.feeds.map(([, name]) => lookUp(values, name).shape[0] ?? 1));
  const results: Map<string, Tensor>[] = [];
  for (let at = 0; at < rows; at++)
    results.push(await runStep(step, (name) => rowOf(lookUp(values, name), at)));
  return new Map(step.fetches.map(([, name]) => [name, stackRows(results.map((row) => lookUp(row, name)))]));
}

function keptTensor(number: number): OrtTensor {
  const value = tensors.get(number);
  if (value) return value;
  throw new PolyheadError("CLOSED", `Tensor ${number} is not kept in this worker.`, { tensor: number });
}

function lookUp(values: ReadonlyMap<string, Tensor>, name: string): Tensor {
  const value = values.get(name);
  if (value) return value;
  throw new PolyheadError("INTERNAL", `The program reads ${name} before anything made it.`, { value: name });
}

function toOrt({ dtype, shape, data }: Tensor): OrtTensor {
  return new OrtTensor(dtype as "float32", data as Float32Array, shape);
}

function fromOrt(value: OrtTensor | undefined): Tensor {
  if (!value || !isDType(value.type))
    throw new PolyheadError(
      "RUN_FAILED",
      `ONNX Runtime gave a value of type ${value?.type}, which is no tensor.`,
      {},
    );
  return { dtype: value.type, shape: value.dims, data: elementsOf(value.type, value.data) };
}

/** ONNX Runtime's elements in the array that Polyhead keeps a dtype in: Node 24 gives float16 as Float16Array. */
function elementsOf(dtype: DType, data: OrtTensor["data"]): Tensor["data"] {
  if (Array.isArray(data)) return data;
  const Kind = DTYPES[dtype].array;
  if (data instanceof Kind) return data;
  const { buffer, byteOffset, byteLength } = data;
  return new Kind(buffer as ArrayBuffer, byteOffset, byteLength / Kind.BYTES_PER_ELEMENT);
}

async function perform(task: Task): Promise<RunResult | undefined> {
  switch (task.kind) {
    case "create":
      await create(task.session, task.model, task.options);
      return undefined;
    case "keep":
      tensors.set(task.tensor, toOrt(task.value));
      return undefined;
    case "run":
      return run(task.program, task.values);
    case "release":
      await sessions.get(task.number)?.release();
      sessions.delete(task.number);
      tensors.delete(task.number);
      return undefined;
    case "close":
      for (const session of sessions.values()) await session.release();
      sessions.clear();
      tensors.clear();
      return undefined;
  }
}

function buffersOf(result: RunResult | undefined): ArrayBuffer[] {
  const buffers = new Set<ArrayBuffer>();
  for (const { data } of result?.values.values() ?? []) {
    if (ArrayBuffer.isView(data) && data.buffer instanceof ArrayBuffer) buffers.add(data.buffer);
  }
  return [...buffers];
}

const port = parentPort;
let last: Promise<void> = Promise.resolve();
port?.on("message", ({ id, task }: Request) => {
  last = last.then(async () => {
    try {
      const result = await perform(task);
      port.postMessage({ id, ...(result && { result }) } satisfies Response, buffersOf(result));
    } catch (thrown) {
      const { code, message, details } = asPolyheadError(asError(thrown), "RUN_FAILED", "The worker failed");
      port.postMessage({ id, error: { code, message, details } } satisfies Response);
    }
    if (task.kind === "close") port.close();
  });
});
