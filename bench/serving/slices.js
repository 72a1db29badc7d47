/** Cases of a serving measurement: slices of time, taken in turns. */
import { digits, summarise, table } from "../measure.js";

/** @typedef {import("../measure.js").Summary} Summary */
/** @typedef {import("./client.js").Load} Load */
/** @typedef {import("./child.js").Child<Load, Required<Omit<Slice, "cpu">>>} Client a process that sends loads */
/** @typedef {import("./server.js").BenchServer} BenchServer */
/** @typedef {{ rounds: number, seconds: number }} Plan */
/**
 * @typedef {{ perSecond: number, cpu?: number, latencies?: number[], sent?: number, failed?: number, failure?: string }} Slice
 */
/** @typedef {{ perSecond: Summary, cpu?: Summary, latency?: Summary, failed: number, failure: string }} Result */

/** Seconds after which the requests of many clients, which begin all at once, have found their places. */
const SETTLE = 0.5;
/** Fewer clients do not fill the queue. */
const MANY = 8;

/**
 * A case: so much time of a load on a server, whose processor time is noted.
 * @param {Client} client
 * @param {BenchServer} server
 * @param {Omit<Load, "seconds">} load
 */
export function sending(client, server, load) {
  return async (/** @type {number} */ seconds) => {
    const before = await server.observe();
    const settle = load.connections < MANY ? 0 : SETTLE;
    const slice = await client.ask({ ...load, seconds, settle });
    const { cpu, delay } = await server.observe();
    const used = cpu.user - before.cpu.user + cpu.system - before.cpu.system;
    return { ...slice, delay, cpu: used / 1000 / slice.sent };
  };
}

/**
 * All cases in every round, a slice of time each, in an order that rotates; the first round only warms up.
 * @param {Record<string, (seconds: number) => Promise<Slice>>} cases
 * @param {{ rounds: number, seconds: number }} plan
 * @returns {Promise<Record<string, Result>>}
 */
export async function interleaveSlices(cases, { rounds, seconds }) {
  const entries = Object.entries(cases);
  const slices = new Map(entries.map(([name]) => [name, /** @type {Slice[]} */ ([])]));
  for (const [, run] of entries) await run(seconds / 4);
  for (let round = 0; round < rounds; round++) {
    const turn = round % entries.length;
    for (const [name, run] of [...entries.slice(turn), ...entries.slice(0, turn)])
      slices.get(name)?.push(await run(seconds));
  }
  return Object.fromEntries(
    [...slices].map(([name, all]) => {
      const latencies = all.flatMap((each) => each.latencies ?? []);
      const cpus = all.flatMap(({ cpu }) => cpu ?? []);
      return [
        name,
        {
          perSecond: summarise(all.map(({ perSecond }) => perSecond)),
          ...(cpus.length > 0 && { cpu: summarise(cpus) }),
          ...(latencies.length > 0 && { latency: summarise(latencies) }),
          failed: sum(all.map(({ failed = 0 }) => failed)),
          failure: all.map(({ failure = "" }) => failure).find((each) => each !== "") ?? "",
        },
      ];
    }),
  );
}

/**
 * @param {Record<string, Result>} results
 * @param {number} unit answers a second that count as 1
 */
export function ratesTable(results, unit) {
  return table([
    ["case", "a second: median (quartiles)", "ratio", "p50 ms", "p99 ms", "processor ms each"],
    ...Object.entries(results).map(([name, { perSecond, latency, cpu }]) => [
      name,
      `${digits(perSecond.median)} (${digits(perSecond.q1)}-${digits(perSecond.q3)})`,
      digits(perSecond.median / unit),
      latency ? digits(latency.median) : "",
      latency ? digits(latency.p99) : "",
      cpu ? digits(cpu.median) : "",
    ]),
  ]);
}

/** @param {readonly number[]} values */
export function sum(values) {
  return values.reduce((a, b) => a + b, 0);
}
