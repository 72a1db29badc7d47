/**
 * Long runs. Requests: many of them, a switch at least every hundred, every answer checked against its revision.
 * Cycles: load, switch, unload, one in ten of them a load that fails; memory at the end against the level after
 * warm-up. Usage: node bench/soak.js [--requests 100000] [--cycles 10000]
 */
import { parseArgs } from "node:util";
import { digits } from "./measure.js";
import { linearHead, openBenchEngine, SMALL_TAP, smallBackbone, smallInput } from "./models.js";
import { runMeasurable, settledRss } from "./respawn.js";
import { isConsistent } from "./switching.js";

const { values } = parseArgs({
  options: { requests: { type: "string" }, cycles: { type: "string" }, here: { type: "boolean" } },
});
const requests = Number(values.requests ?? (values.cycles === undefined ? 100_000 : 0));
const cycles = Number(values.cycles ?? (values.requests === undefined ? 10_000 : 0));
let missed = false;
if (requests > 0) await soakRequests(requests);
if (cycles > 0 && values.here) await soakCycles(cycles);
else if (cycles > 0) {
  const { code, output } = await runMeasurable(new URL(import.meta.url), [
    "--here",
    "--cycles",
    String(cycles),
  ]);
  process.stdout.write(output);
  missed ||= code !== 0;
}
process.exitCode = missed ? 1 : 0;

/**
 * Eight clients that ask for two routes at once, on four inputs; both routes are switched together, so that an
 * answer with one old and one new revision is a mixed one, as is one whose values are not its revision's.
 * @param {number} count
 */
async function soakRequests(count) {
  const backbone = await smallBackbone();
  const engine = await openBenchEngine();
  await engine.add("backbone", backbone);
  const revisions = /** @type {string[]} */ ([]);
  for (let at = 0; at < 4; at++) revisions.push(await engine.load(linearHead(backbone, at, SMALL_TAP)));
  const partner = new Map(revisions.map((revision, at) => [revision, revisions[at ^ 1] ?? ""]));
  await engine.add("a", linearHead(backbone, 0, SMALL_TAP));
  await engine.add("b", linearHead(backbone, 1, SMALL_TAP));
  const inputs = [10, 11, 12, 13].map(smallInput);
  /** @type {Map<string, import("./models.js").Tensor>[]} */
  const expected = inputs.map(() => new Map());
  for (const revision of revisions) {
    await engine.switch({ a: revision });
    for (const [at, input] of inputs.entries()) {
      const { routes } = await engine.run(["a"], input, { cache: false });
      if (routes.a.outputs.scores) expected[at]?.set(revision, routes.a.outputs.scores);
    }
  }
  const tally = { asked: 0, failed: 0, mixed: 0, switches: 0, generations: new Set() };
  let switching = Promise.resolve(0);
  const flip = () => {
    const to = revisions[tally.switches++ % revisions.length] ?? "";
    switching = engine.switch({ a: to, b: partner.get(to) ?? "" });
    return switching;
  };
  await flip();
  const client = async () => {
    while (tally.asked < count) {
      const at = tally.asked++;
      // Not awaited: the switch happens while this request and others are under way.
      if (at % 50 === 0) flip().catch(() => tally.failed++);
      const place = at % inputs.length;
      const input = inputs[place] ?? smallInput(10);
      try {
        const answer = await engine.run(["a", "b"], input, { cache: at % 3 !== 0 });
        tally.generations.add(answer.generation);
        const { a, b } = answer.routes;
        const isPair = partner.get(a.revision) === b.revision;
        if (!isPair || !isConsistent(answer, expected[place] ?? new Map())) tally.mixed++;
      } catch {
        tally.failed++;
      }
    }
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: 8 }, client));
  await switching;
  await engine.close();
  const seconds = (performance.now() - start) / 1000;
  console.log(
    `${tally.asked} requests in ${digits(seconds)} s, ${tally.switches} switches, answers from ` +
      `${tally.generations.size} generations: ${tally.failed} failed, ${tally.mixed} mixed`,
  );
  missed ||= tally.failed + tally.mixed > 0;
}

/**
 * Memory is sampled after warm-up, a tenth of the cycles, and at the end.
 * @param {number} count
 */
async function soakCycles(count) {
  const backbone = await smallBackbone();
  const engine = await openBenchEngine();
  await engine.add("backbone", backbone);
  const resting = await engine.add("live", linearHead(backbone, 0, SMALL_TAP));
  const input = smallInput(10);
  const tally = { loaded: 0, refused: 0, wrong: 0 };
  const cycle = async (/** @type {number} */ at) => {
    const head = linearHead(backbone, at + 1, SMALL_TAP);
    if (at % 10 === 9) {
      const gemm = head.graph.node.at(-1);
      if (gemm) gemm.opType = "NoSuchOperator";
      await engine.load(head).then(
        () => tally.wrong++,
        () => tally.refused++,
      );
      return;
    }
    const revision = await engine.load(head);
    await engine.switch({ live: revision });
    const { routes } = await engine.run(["live"], input);
    if (routes.live.revision !== revision) tally.wrong++;
    await engine.switch({ live: resting });
    await engine.unload(revision);
    tally.loaded++;
  };
  const warmUp = Math.ceil(count / 10);
  const start = performance.now();
  for (let at = 0; at < warmUp; at++) await cycle(at);
  const before = await settledRss();
  for (let at = warmUp; at < count; at++) await cycle(at);
  const after = await settledRss();
  const seconds = (performance.now() - start) / 1000;
  const models = engine.models.length;
  await engine.close();
  const mib = (/** @type {number} */ bytes) => digits(bytes / 1024 ** 2);
  console.log(
    `${count} cycles in ${digits(seconds)} s: ${tally.loaded} loaded, ${tally.refused} refused as they must be, ` +
      `${tally.wrong} wrong; ${models} models at the end; ${mib(before)} MiB after ${warmUp} cycles, ` +
      `${mib(after)} MiB at the end (${digits((after / before) * 100 - 100)} %)`,
  );
  missed ||= tally.wrong > 0 || models !== 2 || after > before * 1.1;
}
