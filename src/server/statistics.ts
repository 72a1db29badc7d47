/**
 * What happened to each revision of each route, counted: the statistics extension's answer, and what the metrics are
 * made of. Numbers only grow; they begin anew with the process.
 */
import type { Answer } from "../engine/index.js";
import type { DurationStatistic, ModelStatistics } from "./service.js";

/** Upper bounds of the latency histogram, in seconds. */
export const LATENCY_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

interface Sum {
  count: number;
  ns: number;
}

/** The account of one revision of one route. */
export interface Counts {
  readonly route: string;
  readonly revision: string;
  /** Milliseconds since the epoch. */
  lastInference: number;
  rows: number;
  readonly success: Sum;
  readonly fail: Sum;
  readonly queue: Sum;
  readonly input: Sum;
  readonly infer: Sum;
  readonly output: Sum;
  readonly hit: Sum;
  readonly miss: Sum;
  /** Nanoseconds in segments that others share, and in those of this revision alone; its share of each batch. */
  backbone: number;
  head: number;
  /** Runs by the number of rows that ran together. */
  readonly batches: Map<number, Sum>;
  /** Answers by latency, one more than there are bounds. */
  readonly buckets: number[];
  /** Runs that are counted already, so that requests of one batch are one run. */
  readonly counted: Set<number>;
}

/** Batches that are remembered as counted; the requests of one batch are answered together. */
const COUNTED = 64;

/** Counters by route and revision. */
export class Statistics {
  readonly #counts = new Map<string, Counts>();
  readonly #switches = new Map<string, number>();
  readonly #refusals = new Map<string, { route: string; code: string; count: number }>();

  /** An answer was given. */
  answered(route: string, rows: number, milliseconds: number, answer: Answer): void {
    const revision = answer.routes[route]?.revision ?? "";
    const counts = this.#of(route, revision);
    counts.lastInference = Date.now();
    counts.rows += rows;
    add(counts.success, milliseconds);
    add(counts.queue, answer.queued);
    add(counts.input, answer.composing);
    add(counts.infer, answer.running - answer.composing);
    add(counts.output, answer.splitting);
    add(answer.cached ? counts.hit : counts.miss, answer.running);
    if (answer.batch > 0 && !counts.counted.has(answer.batch)) {
      const batch = counts.batches.get(answer.batchRows) ?? { count: 0, ns: 0 };
      counts.batches.set(answer.batchRows, batch);
      add(batch, answer.running);
      counts.counted.add(answer.batch);
      for (const oldest of counts.counted) {
        if (counts.counted.size <= COUNTED) break;
        counts.counted.delete(oldest);
      }
    }
    for (const { usedBy, milliseconds: taken } of answer.ran) {
      if (!usedBy.includes(revision)) continue;
      const share = Math.round((1e6 * taken * rows) / Math.max(1, answer.batchRows));
      if (usedBy.length > 1) counts.backbone += share;
      else counts.head += share;
    }
    const bucket = LATENCY_BUCKETS.findIndex((bound) => milliseconds / 1000 <= bound);
    const place = bucket < 0 ? LATENCY_BUCKETS.length : bucket;
    counts.buckets[place] = (counts.buckets[place] ?? 0) + 1;
  }

  /** A request failed. */
  failed(route: string, revision: string, milliseconds: number): void {
    add(this.#of(route, revision).fail, milliseconds);
  }

  /** A request was turned away, or given up by its caller. */
  refused(route: string, code: string): void {
    const key = JSON.stringify([route, code]);
    const counts = this.#refusals.get(key) ?? { route, code, count: 0 };
    this.#refusals.set(key, counts);
    counts.count++;
  }

  /** A route was changed. */
  switched(route: string): void {
    this.#switches.set(route, (this.#switches.get(route) ?? 0) + 1);
  }

  /** The accounts of all revisions that ever answered or failed. */
  get all(): readonly Counts[] {
    return [...this.#counts.values()];
  }

  /** Changes by route. */
  get switches(): ReadonlyMap<string, number> {
    return this.#switches;
  }

  /** Requests that did not run, by route and code of the catalogue. */
  get refusals(): readonly { readonly route: string; readonly code: string; readonly count: number }[] {
    return [...this.#refusals.values()];
  }

  /** Requests and failures of a route, all its revisions together. */
  totals(route: string): { requests: number; failed: number } {
    const own = this.#select(route);
    return {
      requests: own.reduce((sum, { success, fail }) => sum + success.count + fail.count, 0),
      failed: own.reduce((sum, { fail }) => sum + fail.count, 0),
    };
  }

  /** The statistics extension's account; of one route, or one revision of it, or of all. */
  report(route?: string, revision?: string): ModelStatistics[] {
    return this.#select(route, revision).map((counts) => ({
      name: counts.route,
      version: counts.revision,
      lastInference: counts.lastInference,
      inferenceCount: counts.rows,
      executionCount: [...counts.batches.values()].reduce((sum, { count }) => sum + count, 0),
      success: shown(counts.success),
      fail: shown(counts.fail),
      queue: shown(counts.queue),
      computeInput: shown(counts.input),
      computeInfer: shown(counts.infer),
      computeOutput: shown(counts.output),
      cacheHit: shown(counts.hit),
      cacheMiss: shown(counts.miss),
      batches: [...counts.batches].map(([size, infer]) => ({ size, infer: shown(infer) })),
    }));
  }

  #select(route?: string, revision?: string): Counts[] {
    return [...this.#counts.values()].filter(
      (each) =>
        (route === undefined || each.route === route) &&
        (revision === undefined || each.revision === revision),
    );
  }

  #of(route: string, revision: string): Counts {
    const key = JSON.stringify([route, revision]);
    const known = this.#counts.get(key);
    if (known) return known;
    const sum = (): Sum => ({ count: 0, ns: 0 });
    const made: Counts = {
      route,
      revision,
      lastInference: 0,
      rows: 0,
      success: sum(),
      fail: sum(),
      queue: sum(),
      input: sum(),
      infer: sum(),
      output: sum(),
      hit: sum(),
      miss: sum(),
      batches: new Map(),
      backbone: 0,
      head: 0,
      buckets: [],
      counted: new Set(),
    };
    this.#counts.set(key, made);
    return made;
  }
}

function add(sum: Sum, milliseconds: number): void {
  sum.count++;
  sum.ns += Math.round(milliseconds * 1e6);
}

function shown({ count, ns }: Sum): DurationStatistic {
  return { count, ns };
}
