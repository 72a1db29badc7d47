/**
 * The life cycle around backends: several workers behind one queue, sessions shared by key and counted, released
 * exactly once and only when nothing runs on them, callers who give up, workers that die and are replaced. A
 * cancelled caller leaves the queue; a program that has begun runs to its end, because backends cannot stop one.
 */
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Backend, Program, RunResult, SessionOptions, StartBackend } from "./backend.js";

/** A session in all workers. Whoever acquires it must release it once. */
export interface SessionHandle {
  /** Number of the session in every backend, for programs. */
  readonly session: number;
  /**
   * Gives the session back; it is freed when the last holder has and no run uses it.
   * @throws PolyheadError CLOSED on a second call
   */
  release(): Promise<void>;
}

/** Limits of a runtime. */
export interface RuntimeOptions {
  /** Backends to run side by side; 1 by default. */
  readonly workers?: number;
  /** Programs that may wait; more are refused with OVERLOADED. 1024 by default. */
  readonly queueLimit?: number;
}

interface Session {
  readonly number: number;
  readonly key: string;
  readonly model: Uint8Array;
  readonly options: SessionOptions;
  readonly ready: Promise<void>;
  /** Holders and runs. */
  uses: number;
}

interface Job {
  readonly program: Program;
  readonly values: ReadonlyMap<string, Tensor>;
  readonly resolve: (result: RunResult) => void;
  readonly reject: (reason: unknown) => void;
  /** Gives back the sessions it uses; called once, when no worker runs it any more. */
  readonly done: () => Promise<void>;
}

interface Worker {
  readonly backend: Backend;
  busy: boolean;
}

/** Sessions and programs over one or several backends. */
export class Runtime {
  readonly #start: StartBackend;
  readonly #queueLimit: number;
  readonly #workers = new Set<Worker>();
  readonly #byKey = new Map<string, Session>();
  readonly #byNumber = new Map<number, Session>();
  readonly #queue: Job[] = [];
  #nextNumber = 1;
  #running = 0;
  #closed: Promise<void> | undefined;
  #idle: (() => void) | undefined;

  private constructor(start: StartBackend, options: RuntimeOptions) {
    this.#start = start;
    this.#queueLimit = options.queueLimit ?? 1024;
  }

  /** Starts the workers. */
  static async open(start: StartBackend, options: RuntimeOptions = {}): Promise<Runtime> {
    const runtime = new Runtime(start, options);
    const backends = await Promise.all(Array.from({ length: options.workers ?? 1 }, start));
    for (const backend of backends) runtime.#adopt(backend);
    return runtime;
  }

  /** What is going on now. */
  get stats(): { workers: number; sessions: number; queued: number; running: number } {
    return {
      workers: this.#workers.size,
      sessions: this.#byNumber.size,
      queued: this.#queue.length,
      running: this.#running,
    };
  }

  /**
   * A session for a model. Equal keys are one session, and equal loads at the same time one load.
   * @param key names what the model computes and how; the caller vouches that equal keys are equal models
   * @param model called when the session is not there yet
   * @throws PolyheadError LOAD_FAILED, CLOSED
   */
  async acquire(key: string, model: () => Uint8Array, options: SessionOptions = {}): Promise<SessionHandle> {
    this.#refuseClosed();
    const known = this.#byKey.get(key);
    const session = known ?? this.#create(key, model(), options);
    session.uses++;
    try {
      await session.ready;
    } catch (thrown) {
      await this.#drop(session);
      throw thrown;
    }
    let held = true;
    return {
      session: session.number,
      release: async () => {
        if (!held)
          throw new PolyheadError("CLOSED", "This session was released before; a handle is released once.", {
            session: session.number,
          });
        held = false;
        await this.#drop(session);
      },
    };
  }

  /**
   * Runs a program over sessions that the caller holds.
   * @throws PolyheadError RUN_FAILED, OVERLOADED, WORKER_LOST, CLOSED, ABORTED
   */
  async run(program: Program, values: ReadonlyMap<string, Tensor>, signal?: AbortSignal): Promise<RunResult> {
    this.#refuseClosed();
    if (signal?.aborted) throw aborted();
    if (this.#queue.length >= this.#queueLimit) {
      throw new PolyheadError(
        "OVERLOADED",
        `${this.#queue.length} requests are waiting, which is the limit; try again later.`,
        { limit: this.#queueLimit },
      );
    }
    const used = program.steps.map(({ session }) => this.#use(session));
    const done = async () => {
      await Promise.all(used.map((session) => this.#drop(session)));
    };
    return new Promise<RunResult>((resolve, reject) => {
      const job: Job = { program, values, resolve, reject, done };
      signal?.addEventListener("abort", () => this.#abandon(job), { once: true });
      this.#queue.push(job);
      this.#dispatch();
    });
  }

  /** Refuses new work, lets queued and running work finish, frees everything. Can be called again. */
  close(): Promise<void> {
    this.#closed ??= this.#shutDown();
    return this.#closed;
  }

  #create(key: string, model: Uint8Array, options: SessionOptions): Session {
    const number = this.#nextNumber++;
    const ready = this.#createEverywhere(number, model, options);
    ready.catch(() => {
      if (this.#byKey.get(key)?.number === number) this.#byKey.delete(key);
    });
    const session: Session = { number, key, model, options, ready, uses: 0 };
    this.#byKey.set(key, session);
    this.#byNumber.set(number, session);
    return session;
  }

  /** One worker that refuses a model refuses it for all; what others made of it is freed. */
  async #createEverywhere(number: number, model: Uint8Array, options: SessionOptions): Promise<void> {
    const workers = [...this.#workers];
    const results = await Promise.allSettled(
      workers.map(({ backend }) => backend.create(number, model, options)),
    );
    const failure = results.find((result) => result.status === "rejected" && !isLost(result.reason));
    if (failure?.status !== "rejected") return;
    await Promise.allSettled(
      workers
        .filter((_, at) => results[at]?.status === "fulfilled")
        .map(({ backend }) => backend.release(number)),
    );
    throw asPolyheadError(failure.reason, "LOAD_FAILED", "The runtime refused a model");
  }

  #use(number: number): Session {
    const session = this.#byNumber.get(number);
    if (!session)
      throw new PolyheadError("CLOSED", `Session ${number} is not loaded; it was released before this run.`, {
        session: number,
      });
    session.uses++;
    return session;
  }

  async #drop(session: Session): Promise<void> {
    session.uses--;
    if (session.uses > 0) return;
    if (this.#byKey.get(session.key) === session) this.#byKey.delete(session.key);
    this.#byNumber.delete(session.number);
    const loaded = await session.ready.then(
      () => true,
      () => false,
    );
    if (!loaded) return;
    await Promise.all(
      [...this.#workers].map(({ backend }) => backend.release(session.number).catch(ignoreLost)),
    );
  }

  /** The caller is answered at once; a job that has begun goes on, unheard. */
  #abandon(job: Job): void {
    const place = this.#queue.indexOf(job);
    if (place >= 0) {
      this.#queue.splice(place, 1);
      void job.done();
    }
    job.reject(aborted());
  }

  #dispatch(): void {
    for (const worker of this.#workers) {
      if (worker.busy) continue;
      const job = this.#queue.shift();
      if (!job) break;
      worker.busy = true;
      this.#running++;
      worker.backend
        .run(job.program, job.values)
        .then(job.resolve, (thrown) =>
          job.reject(asPolyheadError(thrown, "RUN_FAILED", "The runtime failed")),
        )
        .finally(() => {
          worker.busy = false;
          this.#running--;
          void job.done();
          this.#dispatch();
        });
    }
    if (this.#queue.length === 0 && this.#running === 0) this.#idle?.();
  }

  #adopt(backend: Backend): void {
    const worker: Worker = { backend, busy: false };
    this.#workers.add(worker);
    void backend.lost.then(() => {
      this.#workers.delete(worker);
      if (!this.#closed) void this.#replace();
    });
    this.#dispatch();
  }

  /** A new worker takes over with every session that is in use. Without any worker left, waiting work fails. */
  async #replace(): Promise<void> {
    try {
      const backend = await this.#start();
      await this.#fill(backend);
      this.#adopt(backend);
    } catch (thrown) {
      if (this.#workers.size > 0) return;
      const error = asPolyheadError(thrown, "WORKER_LOST", "A worker died and could not be replaced");
      for (const job of this.#queue.splice(0)) {
        job.reject(error);
        void job.done();
      }
    }
  }

  /** Brings a new backend to the sessions that are in use; others may come and go meanwhile. */
  async #fill(backend: Backend): Promise<void> {
    const loaded = new Set<number>();
    for (let missing = [...this.#byNumber.values()]; missing.length > 0; ) {
      for (const { number, model, options } of missing) {
        await backend.create(number, model, options);
        loaded.add(number);
      }
      missing = [...this.#byNumber.values()].filter(({ number }) => !loaded.has(number));
    }
    for (const number of loaded) if (!this.#byNumber.has(number)) await backend.release(number);
  }

  async #shutDown(): Promise<void> {
    if (this.#queue.length > 0 || this.#running > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    const workers = [...this.#workers];
    this.#workers.clear();
    this.#byKey.clear();
    this.#byNumber.clear();
    await Promise.all(workers.map(({ backend }) => backend.close().catch(ignoreLost)));
  }

  #refuseClosed(): void {
    if (this.#closed) throw new PolyheadError("CLOSED", "The runtime is closed.", {});
  }
}

function aborted(): PolyheadError {
  return new PolyheadError("ABORTED", "The caller gave up before the run began or ended.", {});
}

function isLost(thrown: unknown): boolean {
  return thrown instanceof PolyheadError && thrown.code === "WORKER_LOST";
}

function ignoreLost(thrown: unknown): void {
  if (!isLost(thrown)) throw thrown;
}
