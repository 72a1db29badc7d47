/** What clients notice of switches and loads of others, over the network. */
import { setTimeout as wait } from "node:timers/promises";
import { modelBytes } from "../../dist/onnx/write.js";
import { digits, summarise, table } from "../measure.js";
import { servedHead } from "./models.js";

/** @typedef {import("./slices.js").Client} Client */
/** @typedef {import("./server.js").BenchServer} BenchServer */
/**
 * @typedef {{ server: BenchServer, client: Client, pair: string[], shape: readonly number[],
 *   routes: readonly string[] }} Scene `pair`: two revisions that the route `moved` is switched between
 */

/** Switches and loads in a second; each load is before a switch, to the head that it brought. */
const CHANGES = /** @type {const} */ ({
  nothing: [0, 0],
  "a load and a switch": [1, 1],
  "50 switches": [50, 0],
  "50 switches and 5 loads": [50, 5],
});
/** What an open load asks of a server, by what it answers at most. */
const SHARE = 0.7;

/**
 * Requests for routes that nobody touches, while another route is switched, while heads are loaded too, and while
 * nothing is: from four clients that send as fast as they are answered, and at a pace of its own (open loop). Slices of
 * all cases take turns, the paced ones with the same arrivals.
 * @param {Scene} scene
 * @param {{ backbone: import("../models.js").Model, rounds: number, seconds: number }} plan
 */
export async function measureTails(scene, { backbone, rounds, seconds }) {
  const { client, server, routes, shape } = scene;
  const load = { kind: /** @type {const} */ ("tensor"), address: server.http, routes, shape };
  const closed = { ...load, connections: 4 };
  await client.ask({ ...closed, seconds: 2 });
  const { perSecond: most } = await client.ask({ ...closed, seconds: 4 });
  const open = (/** @type {number} */ seed) => ({
    ...load,
    connections: 64,
    pace: { perSecond: SHARE * most, seed },
  });
  // The first requests beside more than four others find batches that were not tried yet.
  await client.ask({ ...open(0), seconds: 4 });
  const kinds = { "4 clients": () => closed, [`${Math.round(SHARE * 100)} % of that, paced`]: open };
  const cases = Object.entries(kinds).flatMap(([kind, loadOf]) =>
    Object.entries(CHANGES).map(([change, [switches, loads]]) => ({
      kind,
      change,
      loadOf,
      switches,
      loads,
      /** @type {number[]} */ latencies: [],
      /** @type {number[]} */ tails: [],
    })),
  );
  const moves = { switches: /** @type {number[]} */ ([]), loads: /** @type {number[]} */ ([]) };
  let failed = 0;
  let failure = "";
  let seed = 5000;
  for (let round = 0; round < rounds; round++) {
    for (const each of round % 2 ? cases.toReversed() : cases) {
      // Made before, so that no processor time of ours is taken for the server's.
      const files = Array.from({ length: Math.ceil(each.loads * seconds) }, () =>
        modelBytes(servedHead(backbone, seed++)),
      );
      await wait(200);
      const [slice] = await Promise.all([
        client.ask({ ...each.loadOf(round + 1), seconds }),
        moveHeads(scene, { ...each, seconds, files }, moves),
      ]);
      each.latencies.push(...slice.latencies);
      each.tails.push(summarise(slice.latencies).p99);
      failed += slice.failed;
      failure ||= slice.failure;
    }
  }
  const results = cases.map(({ kind, change, latencies, tails }) => {
    const still = cases.find((each) => each.kind === kind);
    const ratios = tails.map((tail, round) => tail / (still?.tails[round] ?? Number.NaN));
    const all = summarise(latencies);
    const ratio = all.p99 / summarise(still?.latencies ?? []).p99;
    return { kind, change, all, ratio, ratios: summarise(ratios) };
  });
  const rows = results.map(({ kind, change, all, ratio, ratios }) => [
    `${kind}; meanwhile ${change}`,
    String(all.n),
    digits(all.median),
    digits(all.p99),
    digits(all.max),
    change === "nothing" ? "" : `${digits(ratios.median)} (${digits(ratios.min)}-${digits(ratios.max)})`,
    change === "nothing" ? "" : digits(ratio),
  ]);
  for (const [name, times] of Object.entries(moves)) {
    const { n, median, p99, max } = summarise(times);
    rows.push([`the ${name} themselves`, String(n), digits(median), digits(p99), digits(max), "", ""]);
  }
  return {
    text: [
      `Untouched routes, and what happens in each second; 4 clients get ${digits(most)} answers a second`,
      table([
        [
          "case",
          "n",
          "p50 ms",
          "p99 ms",
          "max ms",
          "rounds' p99 by without: median (range)",
          "of all rounds",
        ],
        ...rows,
      ]),
      ...(failed > 0 ? [`The first of ${failed} failures: ${failure}`] : []),
    ].join("\n"),
    results: {
      most,
      cases: results,
      switches: summarise(moves.switches),
      loads: summarise(moves.loads),
      failed,
    },
    targets: [
      ...results
        .filter(({ change }) => change !== "nothing")
        .map(({ kind, change, ratios }) => ({
          name: `p99 of untouched routes under ${change} a second by p99 without, median of rounds: ${kind}`,
          value: ratios.median,
          limit: 1.2,
        })),
      { name: "failed requests meanwhile", value: failed, limit: 0 },
    ],
  };
}

/**
 * Switches the route at an even pace, and loads files evenly among the switches.
 * @param {Scene} scene
 * @param {{ switches: number, loads: number, seconds: number, files: Uint8Array[] }} what the numbers in a second
 * @param {{ switches: number[], loads: number[] }} took milliseconds of each, added here
 */
async function moveHeads({ server, pair }, { switches, loads, seconds, files }, took) {
  const start = performance.now();
  for (let made = 0; made < switches * seconds; made++) {
    await wait(Math.max(0, start + (made * 1000) / switches - performance.now()));
    const isDue = loads > 0 && (made + 1) % (switches / loads) === 0;
    const file = isDue ? files.pop() : undefined;
    if (file) {
      const loading = performance.now();
      pair[made % 2] = await server.uploadFile(file, "moved");
      took.loads.push(performance.now() - loading);
    }
    const switching = performance.now();
    await server.switch({ moved: pair[made % 2] ?? "" });
    took.switches.push(performance.now() - switching);
  }
}
