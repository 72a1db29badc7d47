/**
 * What happened to each revision of each route, counted: the statistics extension's answer, and the metrics in
 * Prometheus' text format. Numbers only grow; they begin anew with the process.
 */
import type { Answer } from "../engine/index.js";
import type { DurationStatistic, ModelStatistics } from "./service.js";

/** Upper bounds of the latency histogram, in seconds. */
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

interface Sum {
  count: number;
  ns: number;
}

interface Counts {
  readonly route: string;
  readonly revision: string;
  lastInference: number;
  rows: number;
  runs: number;
  readonly success: Sum;
  readonly fail: Sum;
  readonly queue: Sum;
  readonly infer: Sum;
  readonly hit: Sum;
  readonly miss: Sum;
  readonly batches: Map<number, Sum>;
  readonly buckets: number[];
  /** Milliseconds of the newest answers, for limits of canaries. */
  readonly latest: number[];
}

/** Latencies that are remembered of each revision. */
const LATEST = 1000;

/** Counters by route and revision. */
export class Statistics {
  readonly #counts = new Map<string, Counts>();
  #switches = 0;

  /** An answer was given. */
  answered(route: string, rows: number, milliseconds: number, answer: Answer): void {
    const revision = answer.routes[route]?.revision ?? "";
    const counts = this.#of(route, revision);
    counts.lastInference = Date.now();
    counts.rows += rows;
    if (answer.batchRows > 0) counts.runs++;
    add(counts.success, milliseconds);
    add(counts.queue, answer.queued);
    add(counts.infer, answer.running);
    add(answer.cached ? counts.hit : counts.miss, answer.running);
    const batch = counts.batches.get(answer.batchRows) ?? { count: 0, ns: 0 };
    counts.batches.set(answer.batchRows, batch);
    add(batch, answer.running);
    const bucket = BUCKETS.findIndex((bound) => milliseconds / 1000 <= bound);
    const place = bucket < 0 ? BUCKETS.length : bucket;
    counts.buckets[place] = (counts.buckets[place] ?? 0) + 1;
    counts.latest.push(milliseconds);
    if (counts.latest.length > LATEST) counts.latest.shift();
  }

  /** A request failed. */
  failed(route: string, revision: string, milliseconds: number): void {
    add(this.#of(route, revision).fail, milliseconds);
  }

  /** Routes were changed. */
  switched(): void {
    this.#switches++;
  }

  /** Requests and failures of a route, all its revisions together, or of one. */
  totals(route: string, revision?: string): { requests: number; failed: number } {
    const own = this.#select(route, revision);
    return {
      requests: own.reduce((sum, { success, fail }) => sum + success.count + fail.count, 0),
      failed: own.reduce((sum, { fail }) => sum + fail.count, 0),
    };
  }

  /** The 99th percentile of a revision's latest answers, in milliseconds; undefined before the first. */
  latency(route: string, revision: string): number | undefined {
    const latest = this.#select(route, revision).flatMap((counts) => counts.latest);
    return latest.sort((a, b) => a - b)[Math.floor(0.99 * (latest.length - 1))];
  }

  /** The statistics extension's account; of one route, or one revision of it, or of all. */
  report(route?: string, revision?: string): ModelStatistics[] {
    return this.#select(route, revision).map((counts) => ({
      name: counts.route,
      version: counts.revision,
      lastInference: counts.lastInference,
      inferenceCount: counts.rows,
      executionCount: counts.runs,
      success: shown(counts.success),
      fail: shown(counts.fail),
      queue: shown(counts.queue),
      computeInput: { count: counts.success.count, ns: 0 },
      computeInfer: shown(counts.infer),
      computeOutput: { count: counts.success.count, ns: 0 },
      cacheHit: shown(counts.hit),
      cacheMiss: shown(counts.miss),
      batches: [...counts.batches].map(([size, infer]) => ({ size, infer: shown(infer) })),
    }));
  }

  /**
   * All of it in Prometheus' text format.
   * @param gauges further values of now, by name
   */
  prometheus(gauges: Readonly<Record<string, number>>): string {
    const all = [...this.#counts.values()];
    const labels = ({ route, revision }: Counts) =>
      `route="${escaped(route)}",revision="${escaped(revision.slice(0, 12))}"`;
    const family = (name: string, type: string, help: string, lines: readonly string[]) =>
      [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines].join("\n");
    const counter = (name: string, help: string, value: (counts: Counts) => number) =>
      family(
        name,
        "counter",
        help,
        all.map((each) => `${name}{${labels(each)}} ${value(each)}`),
      );
    const seconds = ({ ns }: Sum) => ns / 1e9;
    const histogram = all.flatMap((each) => {
      let sum = 0;
      const lines = [...BUCKETS, Number.POSITIVE_INFINITY].map((bound, at) => {
        sum += each.buckets[at] ?? 0;
        const le = Number.isFinite(bound) ? bound : "+Inf";
        return `polyhead_request_seconds_bucket{${labels(each)},le="${le}"} ${sum}`;
      });
      return [
        ...lines,
        `polyhead_request_seconds_sum{${labels(each)}} ${seconds(each.success)}`,
        `polyhead_request_seconds_count{${labels(each)}} ${each.success.count}`,
      ];
    });
    const families = [
      counter("polyhead_requests_total", "Answered requests.", ({ success }) => success.count),
      counter("polyhead_failures_total", "Failed requests.", ({ fail }) => fail.count),
      counter("polyhead_rows_total", "Answered rows.", ({ rows }) => rows),
      counter(
        "polyhead_cache_hits_total",
        "Requests whose features came from the cache.",
        ({ hit }) => hit.count,
      ),
      counter("polyhead_queue_seconds_total", "Time in the queue.", ({ queue }) => seconds(queue)),
      counter("polyhead_run_seconds_total", "Time from there to the result.", ({ infer }) => seconds(infer)),
      family("polyhead_request_seconds", "histogram", "Time from admission to answer.", histogram),
      family("polyhead_switches_total", "counter", "Changes of routes.", [
        `polyhead_switches_total ${this.#switches}`,
      ]),
      ...Object.entries(gauges).map(([name, value]) =>
        family(name, "gauge", `${name} now.`, [`${name} ${value}`]),
      ),
    ];
    return `${families.join("\n")}\n`;
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
      runs: 0,
      success: sum(),
      fail: sum(),
      queue: sum(),
      infer: sum(),
      hit: sum(),
      miss: sum(),
      batches: new Map(),
      buckets: [],
      latest: [],
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

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
