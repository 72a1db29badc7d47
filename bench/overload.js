/**
 * Five times as many requests as a server can answer, at a steady pace whatever it says (open loop), over HTTP and
 * gRPC: those that are let in keep their bound, the others are told at once to come again, memory stays bounded, and
 * afterwards all is as before. The server has its default settings. Exit status 1 when something is missed. Needs a build.
 * Usage: node bench/overload.js [--seconds 60] [--times 5] [--untimed]
 * `--untimed` judges counts, status codes, headers and memory only, for machines whose time is not their own.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { readModel } from "../dist/onnx/read.js";
import { routeTo, Store } from "../dist/store/index.js";
import { digits, summarise } from "./measure.js";
import { grpcClient, httpClient } from "./served/clients.js";
import { makeWorld } from "./served/models.js";
import { memoryOf, startServer } from "./served/process.js";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    times: { type: "string", default: "5" },
    untimed: { type: "boolean", default: false },
  },
});
const seconds = Number(values.seconds);
const times = Number(values.times);
/** The default of `queueMilliseconds`, and what a batch and a busy machine add. */
const BOUND = 5000 + 500;
const REFUSAL = 50;
/** Bytes that overload may add: a full queue of inputs, and what is on its way. */
const GROWTH = 512 * 2 ** 20;
const WORKERS = 8;

const folder = mkdtempSync(join(tmpdir(), "overload-"));
const world = await makeWorld({ heads: 1, inputs: 4, side: 96, width: 48, depth: 4 });
const store = await Store.open(join(folder, "store"));
await store.put(await readModel(world.backbone), { title: "backbone.onnx" });
const [head] = world.heads;
if (!head) throw new Error("no head");
const revision = await store.put(await readModel(head.file), { title: "head.onnx" });
await store.change((routes) => routes.set("scores", routeTo(revision)), { by: "bench", reason: "overload" });
const server = await startServer({ store: store.directory });
const http = httpClient(server.http);
const grpc = grpcClient(server.grpc);

const before = await closedLoop(values.untimed ? 2 : 8);
const memory = memoryOf(server.pid);
const rate = before.perSecond * times;
const { accepted, refused, wrong, retryless, sent } = await openLoop(rate);
const high = memoryOf(server.pid).most;
await sleep(1000);
const after = await closedLoop(values.untimed ? 2 : 8);
server.signal("SIGTERM");
const { status } = await server.ended();
http.close();
grpc.close();
rmSync(folder, { recursive: true });

const mib = (/** @type {number} */ bytes) => `${Math.round(bytes / 2 ** 20)} MiB`;
const kib = (/** @type {number} */ bytes) => `${Math.round(bytes / 2 ** 10)} KiB`;
const [letIn, turned] = [summarise(accepted), summarise(refused)];
console.log(
  `capacity ${digits(before.perSecond)} a second; ${sent} requests of ${kib(3 * 4 * 96 * 96)} at ${digits(rate)} a second for ${seconds} s: ` +
    `${accepted.length} answered in ${digits(letIn.median)} ms (p99 ${digits(letIn.p99)}), ` +
    `${refused.length} refused in ${digits(turned.median)} ms (p99 ${digits(turned.p99)}), ${wrong.length} otherwise; ` +
    `memory ${mib(memory.now)} -> ${mib(high)} at most; afterwards ${digits(after.perSecond)} a second`,
);
for (const each of new Set(wrong)) console.log(`otherwise: ${each}`);
const targets = [
  ["answers that are neither right nor a refusal", wrong.length, 0],
  ["refusals without Retry-After", retryless, 0],
  [
    "whether nothing was refused, or nothing answered",
    Number(refused.length === 0 || accepted.length === 0),
    0,
  ],
  ["growth of memory in MiB", (high - memory.now) / 2 ** 20, GROWTH / 2 ** 20],
  ["failures afterwards", after.failed, 0],
  ["exit status", status ?? 1, 0],
  ...(values.untimed
    ? []
    : [
        ["p99 of those let in, ms", letIn.p99, BOUND],
        ["median of refusals, ms", turned.median, REFUSAL],
        ["throughput lost afterwards, share", 1 - after.perSecond / before.perSecond, 0.1],
      ]),
];
for (const [name, value, limit] of targets) {
  const isMet = Number(value) <= Number(limit);
  console.log(`${isMet ? "met" : "MISSED"}: ${name}: ${digits(Number(value))} (limit ${limit})`);
  if (!isMet) process.exitCode = 1;
}

/** Requests one after the other by several clients: what the server can do. */
async function closedLoop(/** @type {number} */ duration) {
  const begin = performance.now();
  const tally = { answered: 0, failed: 0 };
  await Promise.all(
    Array.from({ length: WORKERS }, async (_, at) => {
      while (performance.now() - begin < duration * 1000) {
        if ((await ask(at)).kind === "right") tally.answered++;
        else tally.failed++;
      }
    }),
  );
  return { perSecond: (tally.answered * 1000) / (performance.now() - begin), failed: tally.failed };
}

/** Requests at a pace, however many are under way. */
async function openLoop(/** @type {number} */ perSecond) {
  const tally = {
    accepted: /** @type {number[]} */ ([]),
    refused: /** @type {number[]} */ ([]),
    wrong: /** @type {string[]} */ ([]),
    retryless: 0,
    sent: 0,
  };
  const underWay = new Set();
  const begin = performance.now();
  while (performance.now() - begin < seconds * 1000) {
    const due = Math.floor(((performance.now() - begin) / 1000) * perSecond);
    for (; tally.sent < due; tally.sent++) {
      const asked = ask(tally.sent).then(({ kind, milliseconds, retryAfter, what }) => {
        if (kind === "right") tally.accepted.push(milliseconds);
        else if (kind === "refused") {
          tally.refused.push(milliseconds);
          if (!(Number(retryAfter) >= 1)) tally.retryless++;
        } else tally.wrong.push(what);
        underWay.delete(asked);
      });
      underWay.add(asked);
    }
    await sleep(2);
  }
  await Promise.all(underWay);
  return tally;
}

/** One request, every fourth over gRPC; without the cache, so that each is work. */
async function ask(/** @type {number} */ at) {
  const place = at % world.inputs.length;
  const begin = performance.now();
  const answer = await (at % 4 === 3 ? grpc : http).infer({
    routes: ["scores"],
    input: world.inputs[place] ?? new Float32Array(0),
    side: world.side,
    parameters: { cache: false },
  });
  const milliseconds = performance.now() - begin;
  const { status: code, retryAfter, routes, error } = answer;
  const want = head?.expected[place] ?? [];
  const scores = routes[0]?.scores ?? [];
  const isRight = [...want].every((value, index) => Math.abs(value - (scores[index] ?? Number.NaN)) < 1e-3);
  if ((code === 200 || code === 0) && isRight) return { kind: "right", milliseconds, retryAfter, what: "" };
  if (code === 503 || code === 14) return { kind: "refused", milliseconds, retryAfter, what: "" };
  return { kind: "wrong", milliseconds, retryAfter, what: `${code} ${error ?? ""}` };
}
