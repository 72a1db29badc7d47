/**
 * What is counted, in Prometheus' text format (version 0.0.4). Names end as its conventions have it: `_total` for what
 * only grows, `_seconds` and `_bytes` for units. A revision is its first twelve digits.
 */
import type { ComparisonAccount, Comparisons } from "./comparisons.js";
import { type Counts, LATENCY_BUCKETS, type Statistics } from "./statistics.js";

/** What the metrics are made of. */
export interface MetricSources {
  readonly statistics: Statistics;
  readonly comparisons: Comparisons;
  /** Values of now by name, each with what it is. */
  readonly gauges: Readonly<Record<string, readonly [help: string, value: number]>>;
}

type Labels = Readonly<Record<string, string>>;

/** Upper bounds of the histogram of batches, in rows. */
const BATCH_BUCKETS = [1, 2, 4, 8, 16, 32, 64, 128];

/** The metrics as text. */
export function prometheusText({ statistics, comparisons, gauges }: MetricSources): string {
  const counts = statistics.all;
  const compared = comparisons.all;
  const count = (name: string, help: string, value: (each: Counts) => number) =>
    family(
      name,
      "counter",
      help,
      counts.map((each) => line(name, labelsOf(each), value(each))),
    );
  const comparison = (
    name: string,
    type: "counter" | "gauge",
    help: string,
    value: (each: ComparisonAccount) => number | undefined,
  ) =>
    family(
      name,
      type,
      help,
      compared.flatMap((each) => {
        const known = value(each);
        return known === undefined ? [] : [line(name, labelsOf(each), known)];
      }),
    );
  const families = [
    count("polyhead_requests_total", "Answered requests.", ({ success }) => success.count),
    count("polyhead_failures_total", "Requests that a revision failed.", ({ fail }) => fail.count),
    family(
      "polyhead_refusals_total",
      "counter",
      "Requests that were turned away or given up, by code.",
      statistics.refusals.map(({ route, code, count }) =>
        line("polyhead_refusals_total", { route, code }, count),
      ),
    ),
    count("polyhead_rows_total", "Answered rows.", ({ rows }) => rows),
    count(
      "polyhead_cache_hits_total",
      "Requests whose features came from the cache.",
      ({ hit }) => hit.count,
    ),
    count("polyhead_cache_misses_total", "Requests whose features were computed.", ({ miss }) => miss.count),
    count("polyhead_queue_seconds_total", "Time in the queue.", ({ queue }) => seconds(queue.ns)),
    count("polyhead_run_seconds_total", "Time from the queue to the result.", ({ input, infer }) =>
      seconds(input.ns + infer.ns),
    ),
    count("polyhead_backbone_seconds_total", "Time in what is shared with other models.", ({ backbone }) =>
      seconds(backbone),
    ),
    count("polyhead_head_seconds_total", "Time in what is the revision's own.", ({ head }) => seconds(head)),
    family(
      "polyhead_request_seconds",
      "histogram",
      "Time from admission to answer.",
      counts.flatMap(latencies),
    ),
    family("polyhead_batch_rows", "histogram", "Rows that ran together.", counts.flatMap(batches)),
    family(
      "polyhead_switches_total",
      "counter",
      "Changes of a route.",
      [...statistics.switches].map(([route, changes]) => line("polyhead_switches_total", { route }, changes)),
    ),
    comparison(
      "polyhead_shadow_rows_total",
      "counter",
      "Rows that a shadow or canary was compared on.",
      ({ rows }) => rows,
    ),
    comparison(
      "polyhead_shadow_failures_total",
      "counter",
      "Rows that a shadow failed.",
      ({ failed }) => failed,
    ),
    comparison(
      "polyhead_shadow_judged_rows_total",
      "counter",
      "Rows whose agreement is known.",
      ({ judged }) => judged,
    ),
    comparison(
      "polyhead_shadow_agreed_rows_total",
      "counter",
      "Sum of their agreements, each from 0 to 1.",
      ({ agreed }) => agreed,
    ),
    comparison(
      "polyhead_shadow_seconds_total",
      "counter",
      "Time for the comparison alone.",
      ({ milliseconds }) => milliseconds / 1000,
    ),
    comparison("polyhead_shadow_agreement", "gauge", "Mean agreement of rows, from 0 to 1.", (each) =>
      each.judged > 0 ? each.agreed / each.judged : undefined,
    ),
    comparison("polyhead_shadow_score_difference", "gauge", "Mean absolute difference of outputs.", (each) =>
      each.elements > 0 ? each.difference / each.elements : undefined,
    ),
    comparison("polyhead_shadow_score_difference_max", "gauge", "Largest absolute difference.", (each) =>
      each.elements > 0 ? each.largest : undefined,
    ),
    ...Object.entries(gauges).map(([name, [help, value]]) =>
      family(name, "gauge", help, [line(name, {}, value)]),
    ),
  ];
  return `${families.join("\n")}\n`;
}

function latencies(counts: Counts): string[] {
  let sum = 0;
  const answers = LATENCY_BUCKETS.map((bound, at): [string, number] => {
    sum += counts.buckets[at] ?? 0;
    return [String(bound), sum];
  });
  return histogram(
    "polyhead_request_seconds",
    counts,
    answers,
    seconds(counts.success.ns),
    counts.success.count,
  );
}

function batches(counts: Counts): string[] {
  const runs = [...counts.batches].map(([size, { count }]) => ({ size, count }));
  const upTo = (most: number) => runs.reduce((sum, { size, count }) => sum + (size <= most ? count : 0), 0);
  const rows = runs.reduce((sum, { size, count }) => sum + size * count, 0);
  const buckets = BATCH_BUCKETS.map((bound): [string, number] => [String(bound), upTo(bound)]);
  return histogram("polyhead_batch_rows", counts, buckets, rows, upTo(Number.POSITIVE_INFINITY));
}

function histogram(
  name: string,
  counts: Counts,
  buckets: readonly (readonly [le: string, count: number])[],
  sum: number,
  count: number,
): string[] {
  const labels = labelsOf(counts);
  return [
    ...[...buckets, ["+Inf", count] as const].map(([le, value]) =>
      line(`${name}_bucket`, { ...labels, le }, value),
    ),
    line(`${name}_sum`, labels, sum),
    line(`${name}_count`, labels, count),
  ];
}

function family(name: string, type: string, help: string, lines: readonly string[]): string {
  return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines].join("\n");
}

function line(name: string, labels: Labels, value: number): string {
  const shown = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text)}"`);
  return `${name}${shown.length > 0 ? `{${shown.join(",")}}` : ""} ${value}`;
}

function labelsOf({ route, revision }: { readonly route: string; readonly revision: string }): Labels {
  return { route, revision: revision.slice(0, 12) };
}

function seconds(nanoseconds: number): number {
  return nanoseconds / 1e9;
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
