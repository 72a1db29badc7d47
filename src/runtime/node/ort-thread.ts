/**
 * The thread that owns ONNX Runtime's sessions. Runs and creations block it, and only it. It does one thing at a
 * time, in the order of the requests.
 */
import { parentPort } from "node:worker_threads";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { asPolyheadError, PolyheadError } from "../../base/errors.js";
import { freeNow } from "../../base/memory.js";
import type { Optimisation } from "../../onnx/runner.js";
import { DTYPES, type DType, isDType } from "../../tensor/dtype.js";
import { rowOf, stackRows } from "../../tensor/rows.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Given, Program, SessionOptions, Step } from "../backend.js";
import { Values } from "../values.js";
import { Variables } from "../variables.js";
import { type PlainResult, plain, type Request, type Response, type Task } from "./protocol.js";

const LEVELS = { off: "disabled", basic: "basic", all: "all" } as const satisfies Record<
  Optimisation,
  string
>;
const sessions = new Map<number, InferenceSession>();
const tensors = new Map<number, OrtTensor>();
const variables = new Variables();

async function create(number: number, model: Uint8Array | string, options: SessionOptions): Promise<void> {
  try {
    const settings: InferenceSession.SessionOptions = {
      executionProviders: ["cpu"],
      intraOpNumThreads: options.threads ?? 1,
      interOpNumThreads: 1,
      extra: { session: { intra_op: { allow_spinning: options.spinning ? "1" : "0" } } },
      enableMemPattern: options.memoryPattern ?? true,
      graphOptimizationLevel: LEVELS[options.optimisation ?? "all"],
      logSeverityLevel: 3,
    };
    const session =
      typeof model === "string"
        ? await InferenceSession.create(model, settings)
        : await InferenceSession.create(model, settings);
    sessions.set(number, session);
  } catch (thrown) {
    throw asPolyheadError(thrown, "LOAD_FAILED", "ONNX Runtime refused the model");
  } finally {
    // The session has what it needs of them, and this thread makes too little garbage for them to be collected soon.
    if (typeof model !== "string") freeNow(model);
  }
}

async function run(program: Program, given: ReadonlyMap<string, Given>): Promise<PlainResult> {
  const values = new Values(given);
  const stepTimes: number[] = [];
  let hasFailed = false;
  for (const step of program.steps) {
    const start = performance.now();
    try {
      for (const [name, value] of await perform(step, values)) values.set(name, value);
    } catch (thrown) {
      const error = asPolyheadError(thrown, "RUN_FAILED", "ONNX Runtime failed");
      for (const [, name] of step.fetches) values.fail(name, error);
      hasFailed = true;
    }
    stepTimes.push(performance.now() - start);
  }
  if (!hasFailed) for (const change of program.changes ?? []) variables.change(change, values);
  for (const [number, name] of program.reads ?? []) values.set(name, copyOf(keptTensor(number)));
  const { values: made, failures } = values.select(program.results);
  values.end(made);
  return { values: made, failures: [...failures].map(([name, error]) => [name, plain(error)]), stepTimes };
}

function perform(step: Step, values: Values): Promise<Map<string, Tensor>> {
  const feeds = step.feeds.map(([input, name, rows]) => [input, values.get(name, rows)] as const);
  return step.byRow ? runByRow(step, feeds) : runStep(step, feeds);
}

async function runStep(
  step: Step,
  given: readonly (readonly [string, Tensor])[],
): Promise<Map<string, Tensor>> {
  const session = sessions.get(step.session);
  if (!session)
    throw new PolyheadError("CLOSED", `Session ${step.session} is not loaded in this worker.`, {
      session: step.session,
    });
  const feeds = Object.fromEntries([
    ...given.map(([input, value]) => [input, toOrt(value)] as const),
    ...(step.kept ?? []).map(([input, number]) => [input, keptTensor(number)] as const),
  ]);
  const results = await session.run(
    feeds,
    step.fetches.map(([output]) => output),
  );
  return new Map(step.fetches.map(([output, name]) => [name, fromOrt(results[output])]));
}

async function runByRow(
  step: Step,
  feeds: readonly (readonly [string, Tensor])[],
): Promise<Map<string, Tensor>> {
  const rows = Math.max(...feeds.map(([, value]) => value.shape[0] ?? 1));
  const made: Map<string, Tensor>[] = [];
  for (let at = 0; at < rows; at++)
    made.push(
      await runStep(
        step,
        feeds.map(([input, value]) => [input, rowOf(value, at)] as const),
      ),
    );
  return new Map(
    step.fetches.map(([, name]) => [name, stackRows(made.flatMap((row) => row.get(name) ?? []))]),
  );
}

function keptTensor(number: number): OrtTensor {
  const variable = variables.get(number);
  const value = variable ? toOrt(variable) : tensors.get(number);
  if (value) return value;
  throw new PolyheadError("CLOSED", `Tensor ${number} is not kept in this worker.`, { tensor: number });
}

/** A kept tensor for the caller: results are moved to the other thread, and this one stays. */
function copyOf(value: OrtTensor): Tensor {
  const { dtype, shape, data } = fromOrt(value);
  return { dtype, shape, data: data.slice() };
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

async function answer(task: Task): Promise<PlainResult | undefined> {
  switch (task.kind) {
    case "create":
      await create(task.session, task.model, task.options);
      return undefined;
    case "keep":
      tensors.set(task.tensor, toOrt(task.value));
      return undefined;
    case "keep variable":
      variables.keep(task.variable, task.value);
      return undefined;
    case "run":
      return run(task.program, task.values);
    case "release":
      await sessions.get(task.number)?.release();
      sessions.delete(task.number);
      tensors.delete(task.number);
      variables.release(task.number);
      return undefined;
    case "close":
      for (const session of sessions.values()) await session.release();
      sessions.clear();
      tensors.clear();
      return undefined;
  }
}

function buffersOf(result: PlainResult | undefined): ArrayBuffer[] {
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
    const taken = task.kind === "run" ? task.taken : [];
    try {
      const result = await answer(task);
      const made = buffersOf(result);
      const free = taken.filter((each) => !made.includes(each));
      port.postMessage({ id, result, taken: free } satisfies Response, [...made, ...free]);
    } catch (thrown) {
      const error = plain(asPolyheadError(thrown, "RUN_FAILED", "The worker failed"));
      port.postMessage({ id, error, taken } satisfies Response, taken);
    }
    if (task.kind === "close") port.close();
  });
});
