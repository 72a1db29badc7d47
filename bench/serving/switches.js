/** What clients notice of switches and loads of others, over the network. */
import { setTimeout as wait } from "node:timers/promises";
import { modelBytes } from "../../dist/onnx/write.js";
import { digits, summarise, table } from "../measure.js";
import { servedBackbone, servedHead } from "./models.js";
import { BenchServer } from "./server.js";

/** @typedef {import("./slices.js").Client} Client */
/** @typedef {import("./slices.js").Plan} Plan */

/**
 * Clients of routes that nobody touches, while another route is switched and heads are loaded, and while nothing is.
 * @param {{ client: Client, plan: Plan }} bench
 * @param {readonly string[]} routeNames
 */
export async function measureSwitches({ client, plan }, routeNames) {
  const size = 224;
  const backbone = await servedBackbone(size);
  const routes = Object.fromEntries(
    [...routeNames, "moved"].map((name, at) => [name, servedHead(backbone, at)]),
  );
  const server = await BenchServer.start({ backbone, routes });
  const periods = 5;
  const perSecond = 50;
  try {
    const pair = [await server.upload(servedHead(backbone, 200), "moved")];
    pair.push(await server.upload(servedHead(backbone, 201), "moved"));
    const load = {
      kind: /** @type {const} */ ("tensor"),
      address: server.http,
      routes: routeNames,
      shape: [1, 3, size, size],
      connections: 4,
    };
    const seconds = plan.switches / periods / perSecond;
    // Made before, so that no processor time of ours is taken for the server's.
    const files = Array.from({ length: plan.switches / 10 }, (_, at) =>
      modelBytes(servedHead(backbone, 1000 + at)),
    );
    await client.ask({ ...load, seconds: 2 });
    const still = /** @type {number[]} */ ([]);
    const moving = /** @type {number[]} */ ([]);
    const switches = /** @type {number[]} */ ([]);
    const loads = /** @type {number[]} */ ([]);
    let failed = 0;
    for (let period = 0; period < periods; period++) {
      const calm = await client.ask({ ...load, seconds });
      still.push(...calm.latencies);
      const busy = client.ask({ ...load, seconds });
      const start = performance.now();
      for (let count = 0; count < plan.switches / periods; count++) {
        await wait(Math.max(0, start + (count * 1000) / perSecond - performance.now()));
        if (count % 10 === 9) {
          const loading = performance.now();
          pair[0] = await server.uploadFile(files[loads.length] ?? modelBytes(backbone), "moved");
          loads.push(performance.now() - loading);
        }
        const switching = performance.now();
        await server.switch({ moved: pair[count % 2] ?? "" });
        switches.push(performance.now() - switching);
      }
      const slice = await busy;
      moving.push(...slice.latencies);
      failed += calm.failed + slice.failed;
    }
    const [calm, busy] = [summarise(still), summarise(moving)];
    const rows = Object.entries({
      "untouched routes, nothing else": calm,
      "untouched routes, meanwhile switches and loads": busy,
      "a switch": summarise(switches),
      "a load": summarise(loads),
    }).map(([name, { n, median, p99, max }]) => [name, String(n), digits(median), digits(p99), digits(max)]);
    return {
      text: [
        `${plan.switches} switches, ${perSecond} in a second, and ${loads.length} loads over HTTP; backbone at ${size} x ${size}, 4 clients`,
        table([["case", "n", "p50 ms", "p99 ms", "max ms"], ...rows]),
      ].join("\n"),
      results: { switching: { calm, busy, switches: summarise(switches), loads: summarise(loads), failed } },
      targets: [
        {
          name: "p99 of untouched routes under switches and loads, by p99 without",
          value: busy.p99 / calm.p99,
          limit: 1.2,
        },
        { name: "failed requests under switches", value: failed, limit: 0 },
      ],
    };
  } finally {
    await server.close();
  }
}
