/**
 * ONNX Runtime in a worker thread, as a {@link Backend}. The thread is never terminated while it runs, because
 * that would end the whole process; it ends by itself once its port is closed.
 */
import { Worker } from "node:worker_threads";
import { PolyheadError } from "../../base/errors.js";
import { keepMemory } from "../../base/memory.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Backend, Given, Program, RunResult, SessionOptions, Variable } from "../backend.js";
import { isStack } from "../values.js";
import { type PlainResult, type Request, type Response, revived, type Task } from "./protocol.js";

/** The thread's compiled file: beside this one, or in the build when this one runs from its source. */
const THREAD = new URL(
  import.meta.url.endsWith(".ts") ? "../../../dist/runtime/node/ort-thread.js" : "./ort-thread.js",
  import.meta.url,
);

/** The thread makes little garbage; V8 would let the space for it grow to many times what is used. */
const YOUNG = { maxYoungGenerationSizeMb: 3 };

interface Pending {
  readonly resolve: (result: PlainResult | undefined) => void;
  readonly reject: (reason: PolyheadError) => void;
}

/** A worker thread with ONNX Runtime. */
export class OrtWorker implements Backend {
  readonly lost: Promise<Error>;
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #closing = false;
  #death: PolyheadError | undefined;

  /** Starts a thread. */
  static async start(): Promise<OrtWorker> {
    // Options that the process was started with, such as --input-type, are not for the thread's own file.
    const worker = new Worker(THREAD, { execArgv: [], resourceLimits: YOUNG });
    await new Promise<void>((resolve, reject) => {
      worker.once("online", resolve);
      worker.once("error", reject);
      worker.once("exit", (code) => reject(new Error(`the thread ended with exit status ${code}`)));
    });
    return new OrtWorker(worker);
  }

  private constructor(worker: Worker) {
    this.#worker = worker;
    worker.unref();
    worker.on("message", (response: Response) => this.#settle(response));
    this.lost = new Promise((resolve) => {
      const die = (reason: string) => {
        this.#death ??= new PolyheadError(
          "WORKER_LOST",
          `A worker thread ended: ${reason}. Its requests failed; send them again.`,
          {},
        );
        const error = this.#death;
        for (const { reject } of this.#pending.values()) reject(error);
        this.#pending.clear();
        if (!this.#closing) resolve(error);
      };
      worker.on("error", (error) => die(error.message));
      worker.on("exit", (code) => die(`exit status ${code}`));
    });
  }

  /** @param model its bytes, which are taken, or the path of its file: the runtime then maps external data into memory */
  async create(session: number, model: Uint8Array | string, options: SessionOptions): Promise<void> {
    await this.#ask(
      { kind: "create", session, model, options },
      typeof model === "string" ? [] : ownMemory(model),
    );
  }

  async keep(tensor: number, value: Tensor): Promise<void> {
    await this.#ask({ kind: "keep", tensor, value: withoutRest(value) });
  }

  async keepVariable(variable: number, value: Variable): Promise<void> {
    const { start } = value;
    await this.#ask({
      kind: "keep variable",
      variable,
      value: { ...value, start: start && withoutRest(start) },
    });
  }

  async run(
    program: Program,
    values: ReadonlyMap<string, Given>,
    taken: readonly ArrayBuffer[] = [],
  ): Promise<RunResult> {
    const own = new Map(
      [...values].map(([name, given]) => [
        name,
        isStack(given) ? given.map(withoutRest) : withoutRest(given),
      ]),
    );
    const result = await this.#ask({ kind: "run", program, values: own, taken }, taken);
    if (result)
      return { ...result, failures: new Map(result.failures.map(([name, each]) => [name, revived(each)])) };
    throw new PolyheadError("INTERNAL", "The worker answered a run without a result.", {});
  }

  async release(number: number): Promise<void> {
    await this.#ask({ kind: "release", number });
  }

  async close(): Promise<void> {
    this.#closing = true;
    await this.#ask({ kind: "close" });
  }

  #ask(task: Task, taken: readonly ArrayBuffer[] = []): Promise<PlainResult | undefined> {
    if (this.#death) return Promise.reject(this.#death);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#worker.postMessage({ id, task } satisfies Request, taken);
      this.#pending.set(id, { resolve, reject });
      this.#worker.ref();
    });
  }

  #settle(response: Response): void {
    const pending = this.#pending.get(response.id);
    this.#pending.delete(response.id);
    for (const buffer of response.taken) keepMemory(buffer);
    if (this.#pending.size === 0) this.#worker.unref();
    if (!pending) return;
    if ("error" in response) pending.reject(revived(response.error));
    else pending.resolve(response.result);
  }
}

/** The memory of bytes that have it for themselves, to be moved with them. */
function ownMemory({ buffer, byteLength }: Uint8Array): ArrayBuffer[] {
  // Memory that was moved before has no bytes, and a message that is to move it again is lost without an error.
  return buffer instanceof ArrayBuffer && byteLength > 0 && buffer.byteLength === byteLength ? [buffer] : [];
}

/** A message carries all memory behind a view: of a weight in a file, the file. Such a view is copied first. */
function withoutRest(value: Tensor): Tensor {
  const { data } = value;
  if (!ArrayBuffer.isView(data)) return value;
  return 2 * data.byteLength <= data.buffer.byteLength ? { ...value, data: data.slice() } : value;
}
