/**
 * The life cycle around backends: several workers behind one queue, sessions shared by key and counted, released
 * exactly once and only when nothing runs on them, callers who give up, workers that die and are replaced. A
 * cancelled caller leaves the queue; a program that has begun runs to its end, because backends cannot stop one.
 *
 * A worker that joins is sent every session in use at once, and from that moment on everything that all workers
 * are sent; it is given programs when it has made what it was sent. Nothing is lost between the two.
 */
import { asError, asPolyheadError, PolyheadError } from "../base/errors.js";
import type { Tensor } from "../tensor/tensor.js";
import type {
  Backend,
  Given,
  Program,
  RunResult,
  SessionOptions,
  StartBackend,
  Variable,
} from "./backend.js";
import { isLost, type Resource, Worker } from "./worker.js";

/** A session or a tensor in all workers. Whoever acquires it must release it once. */
export interface Handle {
  /** Its number in every backend, for programs. */
  readonly number: number;
  /**
   * Gives it back; it is freed when the last holder has and no run uses it.
   * @throws PolyheadError CLOSED on a second call
   */
  release(): Promise<void>;
}

/** Limits of a runtime. */
export interface RuntimeOptions {
  /** Backends to run side by side; 1 by default. */
  readonly workers?: number;
  /** Programs that may wait for a worker; more are refused with OVERLOADED. 1024 by default. */
  readonly queueLimit?: number;
}

/** How often each place is filled anew, without one finished program between, before it is given up. */
const TRIES = 3;

interface Shared extends Resource {
  /** Equal keys are one resource. */
  readonly key: string;
  ready: Promise<void>;
  /** Whether `ready` has been fulfilled. */
  loaded: boolean;
  /** Holders and runs. */
  uses: number;
}

interface Job {
  readonly program: Program;
  readonly values: ReadonlyMap<string, Given>;
  readonly taken: readonly ArrayBuffer[];
  readonly resolve: (result: RunResult) => void;
  readonly reject: (reason: unknown) => void;
  /** Gives back the sessions it uses; called once, when no worker runs it any more. */
  readonly done: () => void;
}

/** Sessions and programs over one or several backends. */
export class Runtime {
  readonly #start: StartBackend;
  readonly #queueLimit: number;
  readonly #wanted: number;
  readonly #workers = new Set<Worker>();
  readonly #byKey = new Map<string, Shared>();
  readonly #byNumber = new Map<number, Shared>();
  readonly #queue: Job[] = [];
  /** Loads, runs and releases that backends have not finished. */
  readonly #underWay = new Set<Promise<unknown>>();
  #nextNumber = 1;
  #running = 0;
  #tries = 0;
  #recruiting: Promise<void> | undefined;
  #closed: Promise<void> | undefined;

  private constructor(start: StartBackend, options: RuntimeOptions) {
    this.#start = start;
    this.#queueLimit = options.queueLimit ?? 1024;
    this.#wanted = options.workers ?? 1;
  }

  /**
   * Starts the workers.
   * @throws PolyheadError WORKER_LOST when one of them cannot be started
   */
  static async open(start: StartBackend, options: RuntimeOptions = {}): Promise<Runtime> {
    const runtime = new Runtime(start, options);
    const starts = await Promise.allSettled(Array.from({ length: runtime.#wanted }, start));
    const backends = starts.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
    const failure = starts.find((each) => each.status === "rejected");
    if (failure) {
      await Promise.all(backends.map((backend) => new Worker(backend).close()));
      throw asPolyheadError(failure.reason, "WORKER_LOST", "A worker could not be started");
    }
    await Promise.all(backends.map((backend) => runtime.#join(backend)));
    return runtime;
  }

  /** How many workers there should be: so many programs run side by side. */
  get size(): number {
    return this.#wanted;
  }

  /** What is going on now. */
  get stats(): { workers: number; sessions: number; queued: number; running: number } {
    return {
      workers: [...this.#workers].filter(({ ready }) => ready).length,
      sessions: this.#byNumber.size,
      queued: this.#queue.length,
      running: this.#running,
    };
  }

  /**
   * A session for a model. Equal keys are one session, and equal loads at the same time one load.
   * @param key names what the model computes and how; the caller vouches that equal keys are equal models
   * @param model called for each worker that makes the session, also for one that replaces another later; the worker takes
   *   the bytes, so that nobody else may need them
   * @throws PolyheadError LOAD_FAILED, WORKER_LOST, CLOSED
   */
  async acquire(key: string, model: () => Uint8Array, options: SessionOptions = {}): Promise<Handle> {
    this.#refuseClosed();
    const session = this.#byKey.get(key) ?? this.#createSession(key, model, options);
    session.uses++;
    try {
      await session.ready;
      this.#refuseClosed();
    } catch (thrown) {
      await this.#drop(session);
      throw thrown;
    }
    return this.#handle(session);
  }

  /**
   * Keeps a tensor beside the sessions, for steps that name it. Equal keys are one tensor. It is sent to the workers
   * ahead of any run that is asked for later, so nobody waits for it.
   * @param key names its content; the caller vouches that equal keys are equal tensors
   * @throws PolyheadError CLOSED
   */
  keep(key: string, value: Tensor): Handle {
    this.#refuseClosed();
    const tensor =
      this.#byKey.get(key) ?? this.#create(key, (number, backend) => backend.keep(number, value));
    tensor.uses++;
    return this.#handle(tensor);
  }

  /**
   * Keeps a tensor that programs change; equal keys are one. It is sent ahead as in {@link keep}.
   * @throws PolyheadError CLOSED
   */
  variable(key: string, value: Variable): Handle {
    this.#refuseClosed();
    const variable =
      this.#byKey.get(key) ?? this.#create(key, (number, backend) => backend.keepVariable(number, value));
    variable.uses++;
    return this.#handle(variable);
  }

  /** Whether something of that key is there, or being made. */
  has(key: string): boolean {
    return this.#byKey.has(key);
  }

  #handle(resource: Shared): Handle {
    const { number } = resource;
    let held = true;
    return {
      number,
      release: async () => {
        if (!held)
          throw new PolyheadError("CLOSED", "This was released before; a handle is released once.", {
            number,
          });
        held = false;
        await this.#drop(resource);
      },
    };
  }

  /**
   * Runs a program over sessions that the caller holds. Steps that fail are in the result.
   * @param taken memory of values that nobody reads afterwards, so that it need not be copied
   * @throws PolyheadError RUN_FAILED, OVERLOADED, WORKER_LOST, CLOSED, ABORTED
   */
  async run(
    program: Program,
    values: ReadonlyMap<string, Given>,
    signal?: AbortSignal,
    taken: readonly ArrayBuffer[] = [],
  ): Promise<RunResult> {
    this.#refuseClosed();
    if (signal?.aborted) throw aborted();
    if (this.#queue.length >= this.#queueLimit && !this.#freeWorker()) {
      throw new PolyheadError(
        "OVERLOADED",
        `${this.#queue.length} requests are waiting, which is the limit; try again later.`,
        { limit: this.#queueLimit },
      );
    }
    const used = [
      ...program.steps.flatMap(({ session, kept = [] }) => [session, ...kept.map(([, tensor]) => tensor)]),
      ...(program.changes ?? []).flatMap(({ operands }) =>
        operands.filter((each) => typeof each === "number"),
      ),
      ...(program.reads ?? []).map(([tensor]) => tensor),
    ].map((number) => this.#find(number));
    for (const each of used) each.uses++;
    let onAbort: (() => void) | undefined;
    const result = new Promise<RunResult>((resolve, reject) => {
      const done = () => {
        // Who held it last is told when freeing it fails; a run that outlived its holders has nobody to tell.
        for (const each of used) this.#drop(each).catch(() => {});
      };
      const job: Job = { program, values, taken, resolve, reject, done };
      onAbort = () => this.#abandon(job);
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#queue.push(job);
    });
    this.#dispatch();
    if (this.#workers.size === 0) this.#recruit().catch(() => {});
    try {
      return await result;
    } finally {
      if (onAbort) signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Refuses new work, lets queued and running work finish, frees everything. Can be called again. */
  close(): Promise<void> {
    this.#closed ??= this.#shutDown();
    return this.#closed;
  }

  #createSession(key: string, model: () => Uint8Array, options: SessionOptions): Shared {
    return this.#create(key, async (number, backend) => backend.create(number, model(), options));
  }

  #create(key: string, make: (number: number, backend: Backend) => Promise<void>): Shared {
    const number = this.#nextNumber++;
    const resource: Shared = {
      number,
      key,
      make: (backend) => make(number, backend),
      ready: Promise.resolve(),
      loaded: false,
      uses: 0,
    };
    this.#byKey.set(key, resource);
    this.#byNumber.set(number, resource);
    resource.ready = this.#track(this.#load(resource));
    resource.ready.catch(() => this.#forgetKey(resource));
    return resource;
  }

  /** Makes it in every worker. One that refuses it refuses it for all; what others made is freed with it. */
  async #load(resource: Shared): Promise<void> {
    let asked: Worker[];
    do {
      while (this.#workers.size === 0) {
        await this.#recruit();
        this.#refuseClosed();
      }
      asked = [...this.#workers];
      const results = await Promise.allSettled(asked.map((worker) => worker.make(resource)));
      const failures = results.flatMap((each) => (each.status === "rejected" ? [each.reason] : []));
      if (failures.length > 0) {
        const worst = failures.find((reason) => !isLost(reason)) ?? failures[0];
        throw asPolyheadError(worst, "LOAD_FAILED", "The runtime refused a model");
      }
    } while ([...this.#workers].some((worker) => !asked.includes(worker)));
    resource.loaded = true;
  }

  #find(number: number): Shared {
    const found = this.#byNumber.get(number);
    if (found) return found;
    throw new PolyheadError("CLOSED", `Session ${number} is not loaded; it was released before this run.`, {
      session: number,
    });
  }

  async #drop(resource: Shared): Promise<void> {
    resource.uses--;
    if (resource.uses > 0) return;
    this.#forgetKey(resource);
    this.#byNumber.delete(resource.number);
    await this.#track(this.#free(resource));
  }

  async #free({ number, ready }: Shared): Promise<void> {
    await ready.catch(() => {}); // a tensor may be given back while workers are still being sent it
    await Promise.all([...this.#workers].map((worker) => worker.release(number)));
  }

  #forgetKey(resource: Shared): void {
    if (this.#byKey.get(resource.key) === resource) this.#byKey.delete(resource.key);
  }

  /** The caller is answered at once; a job that has begun goes on, unheard. */
  #abandon(job: Job): void {
    const place = this.#queue.indexOf(job);
    if (place >= 0) {
      this.#queue.splice(place, 1);
      job.done();
    }
    job.reject(aborted());
  }

  #freeWorker(): Worker | undefined {
    return [...this.#workers].find(({ ready, busy }) => ready && !busy);
  }

  #dispatch(): void {
    for (let worker = this.#freeWorker(); worker; worker = this.#freeWorker()) {
      const job = this.#queue.shift();
      if (!job) return;
      void this.#track(this.#perform(worker, job));
    }
  }

  async #perform(worker: Worker, job: Job): Promise<void> {
    worker.busy = true;
    this.#running++;
    try {
      const result = await worker.backend.run(job.program, job.values, job.taken);
      this.#tries = 0;
      job.resolve(result);
    } catch (thrown) {
      if (isLost(thrown)) this.#lose(worker);
      job.reject(asPolyheadError(thrown, "RUN_FAILED", "The runtime failed"));
    }
    worker.busy = false;
    this.#running--;
    job.done();
    this.#dispatch();
  }

  /** A new worker with every session that is in use. */
  async #join(backend: Backend): Promise<void> {
    const worker = new Worker(backend);
    this.#workers.add(worker);
    void backend.lost.then(() => this.#lose(worker));
    const resources = [...this.#byNumber.values()];
    const results = await Promise.allSettled(resources.map((each) => worker.make(each)));
    // What is still being loaded judges this worker itself, and what was given back does not count.
    const failure = results.find(
      (each, at) => each.status === "rejected" && resources[at]?.loaded && resources[at].uses > 0,
    );
    if (failure?.status === "rejected") {
      this.#workers.delete(worker);
      await worker.close();
      throw failure.reason;
    }
    worker.ready = true;
    this.#dispatch();
  }

  /** A worker is gone: another takes its place while there is work to come. */
  #lose(worker: Worker): void {
    if (!this.#workers.delete(worker)) return;
    this.#recruit().catch(() => {});
  }

  /**
   * As many workers as there should be. Waiting programs fail when none can be had, and the next one that comes
   * tries anew.
   * @throws PolyheadError WORKER_LOST when there are too few
   */
  #recruit(): Promise<void> {
    this.#recruiting ??= this.#track(Promise.resolve().then(() => this.#fillPlaces()));
    return this.#recruiting;
  }

  async #fillPlaces(): Promise<void> {
    let reason: unknown = new Error("they died one after the other");
    try {
      while (this.#workers.size < this.#wanted && (!this.#closed || this.#queue.length > 0)) {
        if (this.#tries++ >= this.#wanted * TRIES) {
          this.#tries = 0;
          const cause = asError(reason);
          const message = `Workers died and could not be replaced: ${cause.message}`;
          const error = new PolyheadError("WORKER_LOST", message, {}, { cause });
          if (this.#workers.size === 0) this.#failWaiting(error);
          throw error;
        }
        try {
          await this.#join(await this.#start());
        } catch (thrown) {
          reason = thrown;
        }
      }
    } finally {
      this.#recruiting = undefined; // at once, so that a worker lost from here on is seen
    }
  }

  #failWaiting(error: PolyheadError): void {
    for (const job of this.#queue.splice(0)) {
      job.reject(error);
      job.done();
    }
  }

  async #shutDown(): Promise<void> {
    while (this.#queue.length > 0 || this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
    const workers = [...this.#workers];
    this.#workers.clear();
    this.#byKey.clear();
    this.#byNumber.clear();
    await Promise.all(workers.map((worker) => worker.close()));
  }

  /** Keeps a piece of work in sight until it is done; {@link close} waits for it. */
  #track<T>(work: Promise<T>): Promise<T> {
    this.#underWay.add(work);
    const forget = () => this.#underWay.delete(work);
    work.then(forget, forget);
    return work;
  }

  #refuseClosed(): void {
    if (this.#closed) throw new PolyheadError("CLOSED", "The runtime is closed.", {});
  }
}

function aborted(): PolyheadError {
  return new PolyheadError("ABORTED", "The caller gave up before the run began or ended.", {});
}
