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
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { readModel } from "../dist/onnx/read.js";
import { routeTo, Store } from "../dist/store/index.js";
import { digits, summarise } from "./measure.js";
import { makeWorld } from "./served/models.js";
import { memoryOf, startServer } from "./served/process.js";
import { Child } from "./serving/child.js";

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
/** Small inputs for a network that has much to do with them, so that the clients take little of the processor. */
const SIDE = 64;

const folder = mkdtempSync(join(tmpdir(), "overload-"));
const world = await makeWorld({ heads: 1, inputs: 4, side: SIDE, width: 128, depth: 6 });
const store = await Store.open(join(folder, "store"));
await store.put(await readModel(world.backbone), { title: "backbone.onnx" });
const [head] = world.heads;
if (!head) throw new Error("no head");
const revision = await store.put(await readModel(head.file), { title: "head.onnx" });
await store.change((routes) => routes.set("scores", routeTo(revision)), { by: "bench", reason: "overload" });
const server = await startServer({ store: store.directory });
const load = new Child([fileURLToPath(new URL("served/load.js", import.meta.url))]);
const inputs = world.inputs.map((each) => [...each]);
const expected = head.expected.map((each) => [...each]);
await load.ask({ server: { http: server.http, grpc: server.grpc, side: world.side, inputs, expected } });

const alone = { closed: { seconds: values.untimed ? 2 : 8 } };
await load.ask(alone); // so that the server has learnt what it can do
const before = await load.ask(alone);
const memory = memoryOf(server.pid);
const rate = before.perSecond * times;
const { accepted, refused, wrong, retryless, sent } = await load.ask({ open: { perSecond: rate, seconds } });
const high = memoryOf(server.pid).most;
await sleep(1000);
const after = await load.ask(alone);
server.signal("SIGTERM");
const { status } = await server.ended();
await load.close();
rmSync(folder, { recursive: true });

const mib = (/** @type {number} */ bytes) => `${Math.round(bytes / 2 ** 20)} MiB`;
const kib = (/** @type {number} */ bytes) => `${Math.round(bytes / 2 ** 10)} KiB`;
const [letIn, turned] = [summarise(accepted), summarise(refused)];
console.log(
  `capacity ${digits(before.perSecond)} a second; ${sent} requests of ${kib(3 * 4 * SIDE * SIDE)} at ${digits(rate)} a second for ${seconds} s: ` +
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
  ["failures afterwards", after.refused.length + after.wrong.length, 0],
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
