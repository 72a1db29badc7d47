/**
 * The queue between requests and workers. A free worker is given the request that is due next, together with all
 * waiting ones that can share its batch; nobody waits while a worker is idle. Which is due next is decided by fair
 * queueing: every route gets its share of the rows, however many requests another one sends. A batch is as
 * large as is cheapest for each row within a bounded time, and the queue no longer than what is soon answered.
 */
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import type { Identity } from "../onnx/identity.js";
import type { Runtime } from "../runtime/runtime.js";
import type { Tensor } from "../tensor/tensor.js";
import { Batch, batchKey, type Part, type PartResult } from "./batch.js";
import { BatchSizes } from "./batch-sizes.js";
import type { FeatureCache } from "./feature-cache.js";
import type { Plan } from "./plan.js";

/** Limits of a scheduler. */
export interface SchedulerOptions {
  /** Rows in one batch at most; 32 by default. */
  readonly batchRows?: number;
  /**
   * Bytes that the values of a batch of several requests should take at most at a time in one session; 32 MiB by default.
   */
  readonly batchBytes?: number;
  /** Milliseconds that a batch of several requests should take at most; 50 by default. */
  readonly batchMilliseconds?: number;
  /** Requests that may wait; 1024 by default. */
  readonly queueLimit?: number;
  /** Milliseconds that a request may wait: longer than that it is refused, and when it comes, if that is likely. */
  readonly queueMilliseconds?: number;
}

/** A request as the scheduler sees it. */
export interface Work {
  readonly plan: Plan;
  readonly wanted: ReadonlySet<Identity>;
  readonly inputs: ReadonlyMap<Identity, Tensor>;
  /** See {@link Part}. */
  readonly rows: number | undefined;
  readonly digest: string | undefined;
  /** The routes that it is for, with their shares. */
  readonly lanes: ReadonlyMap<string, number>;
  /** Whether the inputs are of no use to anybody else afterwards. */
  readonly owned?: boolean | undefined;
  /** Milliseconds that it may wait. */
  readonly timeout?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What became of a request. */
export interface Done extends PartResult {
  /** Whether features came from the cache. */
  readonly cached: boolean;
  /** Milliseconds in the queue. */
  readonly queued: number;
  /** Milliseconds from there to the result, and the part of them before the batch was on its way to a worker. */
  readonly running: number;
  readonly composing: number;
  /** Milliseconds that taking the batch's results apart took then. */
  readonly splitting: number;
  /** Rows of all requests that ran with it; 0 when nothing had to run. */
  readonly batchRows: number;
  /** The same for all requests that ran with it; 0 when nothing had to run. */
  readonly batch: number;
}

interface Entry {
  readonly work: Work;
  readonly since: number;
  /** Fair queueing's start tag: the smallest is due next. */
  readonly tag: number;
  readonly resolve: (done: Done) => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * Values of a batch, in bytes. Rows hardly get cheaper where these outgrow the processor's caches, and the runtime keeps
 * the memory of the largest batch that there ever was.
 */
const BATCH_BYTES = 2 ** 25;
/** Share of the time that a request may wait which it may be expected to wait: expectations are vague. */
const LIKELY = 0.8;
/** How much the newest measurement counts in what is expected of the next. */
const NEWEST = 0.3;

/** Requests between workers and callers. */
export class Scheduler {
  readonly #runtime: Runtime;
  readonly #cache: FeatureCache;
  readonly #batchRows: number;
  readonly #batchBytes: number;
  readonly #batchMilliseconds: number;
  readonly #queueLimit: number;
  readonly #queueMilliseconds: number;
  /** By ascending tags. */
  readonly #queue: Entry[] = [];
  readonly #laneEnds = new Map<string, number>();
  #time = 0;
  #running = 0;
  #batches = 0;
  /** By what a batch reads. */
  readonly #sizes = new Map<string, BatchSizes>();
  /** Milliseconds that a row has lately taken. */
  #pace: number | undefined;

  constructor(runtime: Runtime, cache: FeatureCache, options: SchedulerOptions = {}) {
    this.#runtime = runtime;
    this.#cache = cache;
    this.#batchRows = options.batchRows ?? 32;
    this.#batchBytes = options.batchBytes ?? BATCH_BYTES;
    this.#batchMilliseconds = options.batchMilliseconds ?? 50;
    this.#queueLimit = options.queueLimit ?? 1024;
    this.#queueMilliseconds = options.queueMilliseconds ?? Number.POSITIVE_INFINITY;
  }

  /** Requests that wait, and batches that run. */
  get stats(): { queued: number; running: number } {
    return { queued: this.#queue.length, running: this.#running };
  }

  /** @throws PolyheadError OVERLOADED when a request that came now would be refused */
  admit(): void {
    const refusal = this.#refusal();
    if (refusal) throw refusal;
  }

  /** Whether a request that comes now has to wait. */
  get isBusy(): boolean {
    return this.#running >= this.#runtime.size;
  }

  /**
   * Runs a request. Values that fail are in the result.
   * @throws PolyheadError OVERLOADED, DEADLINE_EXCEEDED, ABORTED, WORKER_LOST, CLOSED
   */
  run(work: Work): Promise<Done> {
    const { signal, timeout } = work;
    if (signal?.aborted) return Promise.reject(aborted());
    const refusal = this.#refusal();
    if (refusal) return Promise.reject(refusal);
    return new Promise((resolve, reject) => {
      const leave = (reason: PolyheadError) => {
        const place = this.#queue.indexOf(entry);
        if (place >= 0) this.#queue.splice(place, 1);
        settled();
        reject(reason);
      };
      const onAbort = () => leave(aborted());
      const timer = timeout === undefined ? undefined : setTimeout(() => leave(tooLate(timeout)), timeout);
      const settled = () => {
        signal?.removeEventListener("abort", onAbort);
        clearTimeout(timer);
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      const entry: Entry = {
        work,
        since: performance.now(),
        tag: this.#nextTag(work),
        resolve: (done) => {
          settled();
          resolve(done);
        },
        reject: (reason) => {
          settled();
          reject(reason);
        },
      };
      const place = this.#queue.findLastIndex(({ tag }) => tag <= entry.tag) + 1;
      this.#queue.splice(place, 0, entry);
      this.#dispatch();
    });
  }

  #refusal(): PolyheadError | undefined {
    if (!this.isBusy) return undefined;
    const rows = this.#queue.reduce((sum, { work }) => sum + (work.rows ?? 1), 0);
    const wait = (rows * (this.#pace ?? 0)) / this.#runtime.size;
    if (this.#queue.length < this.#queueLimit && wait <= LIKELY * this.#queueMilliseconds) return undefined;
    const queued = this.#queue.length;
    return overloaded(`${queued} requests are waiting, which is as many as can be answered in time`, wait, {
      queued,
      limit: this.#queueLimit,
    });
  }

  /** Start-time fair queueing (Goyal, Vin and Cheng 1996): a request starts when its routes' earlier ones end. */
  #nextTag({ lanes, rows = 1 }: Work): number {
    const starts = [...lanes.keys()].map((lane) => this.#laneEnds.get(lane) ?? 0);
    const tag = Math.max(this.#time, ...starts);
    for (const [lane, share] of lanes) this.#laneEnds.set(lane, tag + rows / share);
    return tag;
  }

  #dispatch(): void {
    while (this.#running < this.#runtime.size) {
      const first = this.#queue.shift();
      if (!first) {
        this.#laneEnds.clear(); // nobody waits, so nobody is ahead of anybody
        this.#time = 0;
        return;
      }
      this.#time = first.tag;
      const waited = performance.now() - first.since;
      if (waited <= this.#queueMilliseconds) void this.#perform(first);
      else first.reject(overloaded(`The request waited ${Math.round(waited)} ms`, waited, { waited }));
    }
  }

  /** Runs the entry and those that can share its batch. */
  async #perform(first: Entry): Promise<void> {
    this.#running++;
    const start = performance.now();
    const { plan } = first.work;
    const head = this.#partOf(first.work);
    const key = batchKey(head);
    const sizes = key === undefined ? undefined : this.#sizesOf(key);
    const isBusy = this.isBusy;
    const others = sizes ? this.#takeOthers(first, head, sizes) : [];
    const entries = [first, ...others.map(({ entry }) => entry)];
    const parts = [head, ...others.map(({ part }) => part)];
    try {
      requireRows(plan, head, first.work);
      const batch = new Batch(plan, parts);
      const { program } = batch;
      const isIdle = program.steps.length === 0;
      const { values } = batch;
      const taken = takenFrom(entries, values);
      const composing = performance.now() - start;
      const result = isIdle ? NOTHING : await this.#runtime.run(program, values, undefined, taken);
      const running = performance.now() - start;
      const number = isIdle ? 0 : ++this.#batches;
      if (!isIdle) this.#learn(running / batch.rows);
      // The way to a worker and back costs throughput only where no other worker computes meanwhile.
      const spent = this.#runtime.size > 1 ? result.stepTimes.reduce((sum, each) => sum + each, 0) : running;
      if (!isIdle && isBusy) sizes?.learn(batch.rows, spent);
      const results = batch.split(result);
      const splitting = performance.now() - start - running;
      for (const [at, partResult] of results.entries()) {
        const [entry, part] = [entries[at], parts[at]];
        if (!entry || !part) continue;
        this.#keep(part, partResult, parts.length > 1);
        entry.resolve({
          ...partResult,
          cached: [...part.given.keys()].some((value) => !entry.work.inputs.has(value)),
          queued: start - entry.since,
          running,
          composing,
          splitting,
          batchRows: isIdle ? 0 : batch.rows,
          batch: number,
        });
      }
    } catch (thrown) {
      const error = asPolyheadError(thrown, "RUN_FAILED", "The run failed");
      for (const { reject } of entries) reject(error);
    }
    this.#running--;
    this.#dispatch();
  }

  /** Those that wait and can share the batch of `first`. Rows for equal inputs are computed once, and count once. */
  #takeOthers({ work: { plan } }: Entry, head: Part, sizes: BatchSizes): { entry: Entry; part: Part }[] {
    const taken: { entry: Entry; part: Part }[] = [];
    const key = batchKey(head);
    const digests = new Set([head.digest]);
    const rowsOf = ({ digest, rows = Number.POSITIVE_INFINITY }: Work | Part) =>
      digest !== undefined && digests.has(digest) ? 0 : rows;
    const rowBytes = Math.max(0, ...[...head.needs.made.keys()].map(({ session }) => session.rowBytes));
    const most = Math.min(this.#batchRows, Math.max(1, Math.floor(this.#batchBytes / rowBytes)));
    let room = Math.max(0, sizes.next(most, this.#batchMilliseconds) - (head.rows ?? 0));
    for (const entry of [...this.#queue]) {
      if (entry.work.plan !== plan || rowsOf(entry.work) > room) continue;
      const part = this.#partOf(entry.work);
      if (batchKey(part) !== key) continue;
      this.#queue.splice(this.#queue.indexOf(entry), 1);
      taken.push({ entry, part });
      room -= rowsOf(part);
      digests.add(part.digest);
    }
    return taken;
  }

  /** What the request needs now; features that came into the cache while it waited are not computed again. */
  #partOf({ plan, wanted, inputs, rows, digest }: Work): Part {
    const given = new Map(inputs);
    const recall = (value: Identity) => {
      if (given.has(value)) return true;
      const found = digest === undefined ? undefined : this.#cache.get(value, digest);
      // What callers get is theirs to change; what the cache has is not.
      if (found) given.set(value, wanted.has(value) ? copyOf(found) : found);
      return found !== undefined;
    };
    const needs = plan.needs(wanted, recall);
    const hasRows = [...needs.passing].every((value) => plan.hasRows(value));
    return { wanted, given, needs, rows: hasRows ? rows : undefined, digest };
  }

  #keep({ wanted, digest, needs }: Part, { values }: PartResult, isShared: boolean): void {
    if (digest === undefined) return;
    for (const value of needs.passing) {
      const made = values.get(value);
      const isNew = [...needs.made.values()].some((each) => each.has(value));
      if (made && isNew) this.#cache.set(value, digest, wanted.has(value) || isShared ? copyOf(made) : made);
    }
  }

  /** What is known of batches of a kind; the kinds that were longest not asked for are forgotten. */
  #sizesOf(key: string): BatchSizes {
    const sizes = this.#sizes.get(key) ?? new BatchSizes();
    this.#sizes.delete(key);
    this.#sizes.set(key, sizes);
    for (const oldest of this.#sizes.keys()) {
      if (this.#sizes.size <= MAX_KINDS) break;
      this.#sizes.delete(oldest);
    }
    return sizes;
  }

  #learn(milliseconds: number): void {
    this.#pace = this.#pace === undefined ? milliseconds : this.#pace + NEWEST * (milliseconds - this.#pace);
  }
}

/** Kinds of batches that are remembered. */
const MAX_KINDS = 256;

const NOTHING = {
  values: new Map<string, Tensor>(),
  failures: new Map<string, PolyheadError>(),
  stepTimes: [],
};

/** Memory of inputs that is worth moving to a worker rather than copying it, in bytes. */
const WORTH_MOVING = 2 ** 16;

/** The memory of inputs that nobody needs any more: neither their owner, nor an answer that has the input in it. */
function takenFrom(
  entries: readonly Entry[],
  values: ReadonlyMap<Identity, Tensor | readonly Tensor[]>,
): ArrayBuffer[] {
  const sent = new Set([...values.values()].flat());
  const free = entries.flatMap(({ work: { owned, inputs, wanted } }) =>
    owned && ![...inputs.keys()].some((value) => wanted.has(value)) ? [...inputs.values()] : [],
  );
  const buffers = free.flatMap((value) =>
    sent.has(value) && ArrayBuffer.isView(value.data) ? value.data.buffer : [],
  );
  return [...new Set(buffers)].filter(
    (each): each is ArrayBuffer => each instanceof ArrayBuffer && each.byteLength >= WORTH_MOVING,
  );
}

/** Segments that take one row cannot pass on what has no rows. */
function requireRows(plan: Plan, { needs }: Part, { inputs }: Work): void {
  const isByRow = [...needs.made.keys()].some(({ session }) => session.byRow);
  const rows = Math.max(1, ...[...inputs.values()].map(({ shape }) => shape[0] ?? 1));
  if (!isByRow || rows === 1 || [...needs.passing].every((value) => plan.hasRows(value))) return;
  throw new PolyheadError(
    "INPUT_MISMATCH",
    `The input has ${rows} rows; this model takes one, and shares values with others that are no lists of rows. Send the rows one by one.`,
    { rows, expected: 1 },
  );
}

function copyOf(value: Tensor): Tensor {
  return ArrayBuffer.isView(value.data) ? { ...value, data: value.data.slice() } : value;
}

/** @param wait milliseconds after which it may be better */
function overloaded(reason: string, wait: number, details: Readonly<Record<string, number>>): PolyheadError {
  const retryAfter = Math.max(1, Math.ceil(wait / 1000));
  return new PolyheadError("OVERLOADED", `${reason}; try again in ${retryAfter} s.`, {
    ...details,
    retryAfter,
  });
}

function aborted(): PolyheadError {
  return new PolyheadError("ABORTED", "The caller gave up before the answer was there.", {});
}

function tooLate(timeout: number): PolyheadError {
  return new PolyheadError(
    "DEADLINE_EXCEEDED",
    `The answer was not there within ${timeout} ms, as the caller asked; nothing more is done for it.`,
    { timeout },
  );
}
