/**
 * Everything that may go wrong around a server, at once, under load from HTTP and gRPC clients: switches of one and
 * several routes, heads added and removed, rollbacks, files that do not load, worker threads that die, clients that
 * hang up, `kill -9` and restarts. Every answer is compared with ONNX Runtime's own for the revision that it names, and
 * with what was live; every acknowledged change must be there after a kill; the store is looked through. Exit status 1
 * when anything is left unexplained. Needs a build.
 * Usage: node bench/chaos.js [--minutes 2 | --seconds 20 | --switches 1000 | --kills 200] [--seed 1]
 * `--switches` only switches; `--kills` kills at random moments of control traffic.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { readModel } from "../dist/onnx/read.js";
import { routeTo, Store } from "../dist/store/index.js";
import { digits, summarise } from "./measure.js";
import { numbers } from "./models.js";
import { control, grpcClient, httpClient } from "./served/clients.js";
import { makeWorld } from "./served/models.js";
import { startServer } from "./served/process.js";
import { Record, Troubles } from "./served/record.js";

/** @typedef {{ revisions: readonly { revision: string }[] }} Target where a route points */

const { values } = parseArgs({
  options: {
    minutes: { type: "string" },
    seconds: { type: "string" },
    switches: { type: "string" },
    kills: { type: "string" },
    seed: { type: "string", default: "1" },
  },
});
const switchesWanted = Number(values.switches ?? 0);
const killsWanted = Number(values.kills ?? 0);
const seconds = Number(values.seconds ?? 60 * Number(values.minutes ?? 2));
let seed = Number(values.seed);
const random = () => ((numbers(1, seed++)[0] ?? 0) + 1) / 2;
/**
 * @template Item
 * @param {readonly Item[]} list
 */
const pick = (list) => {
  const item = list[Math.floor(random() * list.length)];
  if (item === undefined) throw new Error("nothing to pick from");
  return item;
};

/** Routes that are always there; the first two are always switched together. */
const ROUTES = ["a", "b", "c", "still"];
/** A route that comes and goes. */
const EXTRA = "extra";
/** Codes of connections that end because the server did. */
const GONE = new Set(["ECONNREFUSED", "ECONNRESET", "EPIPE", 14, 1, "none"]);

const folder = mkdtempSync(join(tmpdir(), "chaos-"));
const crashFile = join(folder, "crash");
const world = await makeWorld({ heads: 8 });
const expected = new Map(world.heads.map(({ revision, expected: each }) => [revision, each]));
const revisions = world.heads.map(({ revision }) => revision);
const partner = (/** @type {string} */ revision) => revisions[revisions.indexOf(revision) ^ 1] ?? "";
const record = new Record();
const troubles = new Troubles();
const complaints = /** @type {string[]} */ ([]);
const counts = {
  answers: 0,
  switches: 0,
  changes: 0,
  refusedLoads: 0,
  crashes: 0,
  kills: 0,
  aborts: 0,
  explained: 0,
};
const verdicts = { failed: 0, "not live": 0, mixed: 0, wrong: 0 };
/** @type {import("./served/record.js").Exchange[]} */
const toJudge = [];
const latencies = /** @type {number[]} */ ([]);
let storeDamage = 0;
/** @type {Map<string, string> | undefined} */
let pending;
let isOver = false;
let isRestarting = false;

const path = join(folder, "store");
await fillStore();
let server = await startServer({ store: path, crashFile });
record.begin(await liveState());
const begun = performance.now();
const clients = killsWanted > 0 ? [] : [0, 1, 2, 3, 4, 5].map(client);
try {
  if (switchesWanted > 0) while (counts.switches < switchesWanted) await switchSome();
  else if (killsWanted > 0) await killing();
  else await Promise.all([changing(), crashing(), killing(), aborting()]);
} catch (thrown) {
  complaints.push(`the run broke off: ${thrown instanceof Error ? thrown.stack : thrown}`);
}
isOver = true;
await Promise.all(clients);
settle();
server.signal("SIGTERM");
const end = await server.ended();
if (end.status !== 0)
  complaints.push(`the server ended with ${end.signal ?? end.status}: ${server.log().slice(-500)}`);
await checkStore();
rmSync(folder, { recursive: true });
for (const complaint of complaints.slice(0, 20)) console.error(complaint);
const { median, p99 } = summarise(latencies);
console.log(
  JSON.stringify({
    seconds: Math.round((performance.now() - begun) / 1000),
    ...counts,
    ...verdicts,
    storeDamage,
    complaints: complaints.length,
    ...(latencies.length > 0 && { medianMilliseconds: digits(median), p99Milliseconds: digits(p99) }),
  }),
);
const bad = complaints.length + storeDamage + Object.values(verdicts).reduce((sum, count) => sum + count, 0);
process.exitCode = bad === 0 ? 0 : 1;

async function fillStore() {
  const store = await Store.open(path);
  await store.put(await readModel(world.backbone), { title: "backbone.onnx" });
  for (const [at, { file }] of world.heads.entries())
    await store.put(await readModel(file), { title: `head-${at}.onnx` });
  await store.change(
    (routes) => {
      for (const [at, name] of ROUTES.entries()) routes.set(name, routeTo(revisions[at] ?? ""));
    },
    { by: "chaos", reason: "to begin with" },
  );
}

/** One client: requests without a pause, over HTTP with binary data or JSON, or over gRPC. */
async function client(/** @type {number} */ which) {
  const connect = () =>
    which % 3 === 2 ? grpcClient(server.grpc) : httpClient(server.http, { json: which % 3 === 1 });
  let [epoch, connection] = [record.epoch, connect()];
  while (!isOver) {
    if (isRestarting) {
      await sleep(20);
      continue;
    }
    if (epoch !== record.epoch) {
      connection.close();
      [epoch, connection] = [record.epoch, connect()];
    }
    const routes = pick([["a", "b"], ["b", "a"], ["c"], ["a", "b", "c"], ["still"], ["still"], [EXTRA]]);
    const input = Math.floor(random() * world.inputs.length);
    const sent = performance.now();
    const answer = await connection.infer({
      routes,
      input: world.inputs[input] ?? new Float32Array(0),
      side: world.side,
      parameters: { cache: random() < 0.5 },
    });
    const received = performance.now();
    if (routes[0] === "still") latencies.push(received - sent);
    toJudge.push({ routes, input, sent, received, epoch, answer });
    if (routes[0] === EXTRA && answer.routes.length === 0) await sleep(10);
  }
  connection.close();
}

/** Judges all answers up to now; nothing may be under way that decides about them. */
function settle() {
  for (const exchange of toJudge.splice(0)) {
    const { answer, routes } = exchange;
    if (answer.status === 200 || answer.status === 0) {
      counts.answers++;
      const verdict = record.judge(exchange, expected, pending);
      if (verdict === undefined) continue;
      verdicts[verdict]++;
      complaints.push(
        `${verdict}: ${routes} in generation ${answer.generation} of epoch ${exchange.epoch}: ${answer.routes.map(({ revision }) => revision.slice(0, 6))}`,
      );
    } else if (isExplained(exchange)) counts.explained++;
    else {
      verdicts.failed++;
      complaints.push(`failed: ${routes}: ${answer.status} ${answer.error}`);
    }
  }
}

/** @param {import("./served/record.js").Exchange} exchange */
function isExplained(exchange) {
  const { answer, routes, sent, received } = exchange;
  const { status, error = "" } = answer;
  if (
    routes.includes(EXTRA) &&
    (status === 404 || status === 5) &&
    (record.mayMiss(exchange, EXTRA) || pending)
  )
    return true;
  if ((status === 503 || status === 14) && /worker/i.test(error) && troubles.explain("crash", sent, received))
    return true;
  return GONE.has(status) && troubles.explain("kill", sent, received);
}

async function changing() {
  const actions = [switchSome, switchSome, switchSome, addCandidate, rollBack, toggleExtra, failToLoad];
  while (!isDone()) {
    if (isRestarting) await sleep(20);
    else await pick(actions)();
    await sleep(random() * 30);
  }
}

function isDone() {
  if (killsWanted > 0) return counts.kills >= killsWanted;
  const hasBeenHurt = counts.kills > 0 && counts.crashes > 0 && counts.switches > 2;
  return hasBeenHurt && performance.now() - begun > seconds * 1000;
}

/** Switches `a` and `b` together, or `c`, or all three. */
async function switchSome() {
  const [a, c] = [pick(revisions), pick(revisions)];
  const targets = pick(
    /** @type {{ [route: string]: string }[]} */ ([{ a, b: partner(a) }, { c }, { a, b: partner(a), c }]),
  );
  const next = new Map([...record.state, ...Object.entries(targets)]);
  const answer = await change(next, "POST", "/switch", { targets });
  if (answer) counts.switches++;
}

async function addCandidate() {
  const { file, revision } = pick(world.heads);
  const answer = await change(new Map(record.state), "POST", "/models?route=c", file);
  if (!answer) return;
  if (answer.revision !== revision)
    complaints.push(`a head was added as ${answer.revision}, not ${revision}`);
}

/** What a rollback leads to is looked up afterwards, and must be what history says. */
async function rollBack() {
  const before = await control(server.http, "GET", "/routes/c/history");
  const { history = [] } = /** @type {{ history?: { before?: Target, after?: Target }[] }} */ (
    before.json ?? {}
  );
  const last = history.find((each) => JSON.stringify(each.before) !== JSON.stringify(each.after));
  const to = last?.before?.revisions[0]?.revision;
  if (to === undefined) return;
  await change(new Map([...record.state, ["c", to]]), "POST", "/routes/c/rollback", {});
}

async function toggleExtra() {
  const next = new Map(record.state);
  if (next.delete(EXTRA)) await change(next, "DELETE", `/routes/${EXTRA}`);
  else {
    const { file, revision } = pick(world.heads);
    await change(next.set(EXTRA, revision), "POST", `/models?route=${EXTRA}`, file);
  }
}

/** Files that are no models or fit no backbone: refused by 4xx, and nothing has changed. */
async function failToLoad() {
  const file = random() < 0.4 ? world.alien : pick(world.broken);
  const sent = performance.now();
  const { status, error } = await control(server.http, "POST", `/models?route=${pick(["c", "new"])}`, file);
  if (typeof status === "number" && status >= 400 && status < 500 && error) counts.refusedLoads++;
  else if (!isTrouble(status, error, sent))
    complaints.push(`a bad file was answered with ${status} ${error ?? ""}`);
}

/**
 * Asks for a change, and keeps what came of it. One that fails with a reason must have changed nothing; one without an
 * answer may or may not have, until the server is asked.
 * @param {Map<string, string>} next
 * @param {string} method
 * @param {string} where
 * @param {Uint8Array | object} [body]
 */
async function change(next, method, where, body) {
  const asked = performance.now();
  pending = next;
  const answer = await control(server.http, method, where, body);
  const { status, error } = answer;
  if (status === 200 || status === 201) {
    const json = /** @type {{ generation: number, revision?: string }} */ (answer.json);
    record.acknowledge(next, asked, json.generation);
    pending = undefined;
    counts.changes++;
    return json;
  }
  if (!isTrouble(status, error, asked)) {
    verdicts.failed++;
    complaints.push(`${method} ${where} failed: ${status} ${error}`);
  }
  if (typeof status === "number") pending = undefined;
  return undefined;
}

/**
 * @param {number | string} status
 * @param {string | undefined} error
 * @param {number} sent
 */
function isTrouble(status, error, sent) {
  const now = performance.now();
  if (typeof status === "string") return troubles.explain("kill", sent, now);
  return status === 503 && /worker/i.test(error ?? "") && troubles.explain("crash", sent, now);
}

async function crashing() {
  while (!isDone()) {
    await sleep(500 + random() * 2500);
    if (isRestarting || isDone()) continue;
    const over = troubles.begin("crash");
    writeFileSync(crashFile, "");
    for (let looks = 0; existsSync(crashFile) && looks < 1000 && !isRestarting; looks++) await sleep(5);
    counts.crashes++;
    over(500);
  }
}

/** Clients that hang up in the middle; nobody else may notice. */
async function aborting() {
  while (!isDone()) {
    await sleep(random() * 60);
    if (isRestarting) continue;
    const connection = random() < 0.5 ? httpClient(server.http) : grpcClient(server.grpc);
    const abort = new AbortController();
    const asked = connection.infer({
      routes: ["a"],
      input: world.inputs[0] ?? new Float32Array(0),
      side: world.side,
      signal: abort.signal,
    });
    await sleep(random() * 4);
    abort.abort();
    await asked;
    connection.close();
    counts.aborts++;
  }
}

async function killing() {
  const isControlOnly = killsWanted > 0;
  const traffic = isControlOnly ? changing() : Promise.resolve();
  while (!isDone()) {
    await sleep(isControlOnly ? random() * 250 : 3000 + random() * 4000);
    if (isDone()) break;
    const over = troubles.begin("kill");
    isRestarting = true;
    process.kill(server.pid, "SIGKILL");
    await server.ended();
    counts.kills++;
    await sleep(50); // so that every client has heard of it
    server = await startServer({ store: path, crashFile });
    const [before, maybe] = [record.state, pending];
    const found = await liveState();
    const isSame = (/** @type {ReadonlyMap<string, string> | undefined} */ state) =>
      state &&
      state.size === found.size &&
      [...state].every(([name, revision]) => found.get(name) === revision);
    if (!isSame(before) && !isSame(maybe)) {
      complaints.push(
        `after a kill: ${[...found]} instead of ${[...before]}${maybe ? ` or ${[...maybe]}` : ""}`,
      );
    }
    settle();
    pending = undefined;
    record.begin(found);
    over();
    isRestarting = false;
    if (isControlOnly || counts.kills % 5 === 0) await checkStore();
  }
  await traffic;
}

async function liveState() {
  const { json } = await control(server.http, "GET", "/routes");
  const { routes } = /** @type {{ routes: ({ name: string } & Target)[] }} */ (json);
  return new Map(routes.map(({ name, revisions: targets }) => [name, targets[0]?.revision ?? ""]));
}

async function checkStore() {
  const { findings } = await (await Store.open(path, { readOnly: true })).verify();
  storeDamage += findings.length;
  if (findings.length > 0) complaints.push(`the store is damaged: ${JSON.stringify(findings).slice(0, 500)}`);
}
