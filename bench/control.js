/**
 * What changes of a running server cost: processor time of a switch and of a load, and how much later requests for
 * routes that nobody touches are answered meanwhile.
 */
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { modelBytes } from "../dist/onnx/write.js";
import { digits, summarise, table } from "./measure.js";
import { threads } from "./models.js";
import { Child } from "./serving/child.js";
import { servedBackbone, servedHead } from "./serving/models.js";
import { BenchServer } from "./serving/server.js";
import { measureTails } from "./serving/tails.js";

const HEADS = 16;
const SIZE = 224;
/** Milliseconds between two switches that come now and then. */
const PAUSE = 20;

/** @param {{ quick: boolean }} options */
export async function measureControl({ quick }) {
  const backbone = await servedBackbone(SIZE);
  const names = Array.from({ length: HEADS }, (_, at) => `head-${at}`);
  const routes = Object.fromEntries([...names, "moved"].map((name, at) => [name, servedHead(backbone, at)]));
  const server = await BenchServer.start({ backbone, routes });
  const client = new Child([fileURLToPath(new URL("serving/client.js", import.meta.url))]);
  try {
    const heads = [servedHead(backbone, 200), servedHead(backbone, 201)];
    /** @type {string[]} */
    const pair = [];
    for (const head of heads) pair.push(await server.upload(head, "moved"));
    const costs = await measureCosts(server, { backbone, pair, quick });
    const tails = await measureTails(
      { server, client, pair, shape: [1, 3, SIZE, SIZE], routes: names },
      { backbone, rounds: quick ? 2 : 8, seconds: quick ? 2 : 4 },
    );
    return {
      title: `Switches and loads over HTTP; backbone at ${SIZE} x ${SIZE}, ${HEADS} heads, ${threads} threads, clients in a process of their own`,
      table: [costs.text, tails.text].join("\n\n"),
      results: { costs: costs.results, tails: tails.results },
      targets: tails.targets,
    };
  } finally {
    await client.close();
    await server.close();
  }
}

/**
 * Processor time of the server for each change, with nothing else under way; cases take turns.
 * @param {BenchServer} server
 * @param {{ backbone: import("./models.js").Model, pair: string[], quick: boolean }} options
 */
async function measureCosts(server, { backbone, pair, quick }) {
  let turn = 0;
  let seed = 1000;
  const next = () => server.switch({ moved: pair[turn++ % 2] ?? "" });
  const cases = {
    "a switch, one after the other": { count: 200, change: next, pause: 0 },
    "a switch, 50 a second at most": { count: 100, change: next, pause: PAUSE },
    "a load": {
      count: 20,
      change: () => {
        const file = files.pop();
        return file ? server.uploadFile(file, "moved") : Promise.reject(new Error("no file was made"));
      },
      pause: 0,
    },
  };
  /** @type {Uint8Array[]} made before, so that what that takes is not in the time of a load */
  let files = [];
  const spent = Object.keys(cases).map((name) => ({ name, cpu: [0], time: [0], late: [0] }));
  for (const each of spent) for (const list of [each.cpu, each.time, each.late]) list.pop();
  for (let round = -1; round < (quick ? 2 : 5); round++) {
    for (const [at, { count, change, pause }] of Object.values(cases).entries()) {
      files = Array.from({ length: 20 }, () => modelBytes(servedHead(backbone, seed++)));
      await wait(500); // so that what the case before left behind is done
      const before = await server.observe();
      const start = performance.now();
      for (let made = 0; made < count; made++) {
        await change();
        if (pause > 0) await wait(pause);
      }
      const time = performance.now() - start;
      const { cpu, delay } = await server.observe();
      if (round < 0) continue;
      const used = cpu.user + cpu.system - before.cpu.user - before.cpu.system;
      spent[at]?.cpu.push(used / 1000 / count);
      spent[at]?.time.push(time / count - pause);
      spent[at]?.late.push(delay.max);
    }
  }
  const results = spent.map(({ name, cpu, time, late }) => ({
    name,
    cpu: summarise(cpu),
    time: summarise(time),
    late: summarise(late),
  }));
  const rows = results.map(({ name, cpu, time, late }) => [
    name,
    `${digits(cpu.median)} (${digits(cpu.min)}-${digits(cpu.max)})`,
    digits(time.median),
    digits(late.median),
  ]);
  return {
    text: table([["case", "processor ms: median (range)", "ms", "main thread late at most, ms"], ...rows]),
    results,
  };
}
