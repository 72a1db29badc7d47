/**
 * The benchmark: prints a table for each measurement and writes all numbers to a JSON file.
 * Usage: npm run build && npm run bench -- [heads switching tables memory cached others serve control train recompute updates adapt mnist detect tune upgrade] [--quick] [--json FILE]
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { measureAdapt } from "./adapt.js";
import { measureCached } from "./cached.js";
import { measureControl } from "./control.js";
import { measureDetect } from "./detect.js";
import { measureHeads } from "./heads.js";
import { digits } from "./measure.js";
import { measureMemory } from "./memory.js";
import { measureMnist } from "./mnist.js";
import { measureOthers } from "./others.js";
import { measureRecompute } from "./recompute.js";
import { measureServe } from "./serve.js";
import { measureSwitching } from "./switching.js";
import { measureTables } from "./tables.js";
import { measureTrain } from "./train.js";
import { measureTune } from "./tune.js";
import { measureUpdates } from "./updates.js";
import { measureUpgrade } from "./upgrade.js";

/** @typedef {{ name: string, value: number, limit: number, least?: boolean }} Target */

const MEASUREMENTS = {
  heads: measureHeads,
  switching: measureSwitching,
  tables: measureTables,
  memory: measureMemory,
  cached: measureCached,
  others: measureOthers,
  serve: measureServe,
  control: measureControl,
  train: measureTrain,
  recompute: measureRecompute,
  updates: measureUpdates,
  adapt: measureAdapt,
  mnist: measureMnist,
  detect: measureDetect,
  tune: measureTune,
  upgrade: measureUpgrade,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { only: { type: "string" }, quick: { type: "boolean", default: false }, json: { type: "string" } },
});
const named = [...positionals, ...(values.only?.split(",") ?? [])];
const wanted = named.length > 0 ? named : Object.keys(MEASUREMENTS);
const unknown = wanted.find((name) => !Object.hasOwn(MEASUREMENTS, name));
if (unknown !== undefined) {
  console.error(`No measurement is called ${unknown}; expected ${Object.keys(MEASUREMENTS).join(", ")}.`);
  process.exit(2);
}
const machine = {
  processor: cpus()[0]?.model ?? "unknown",
  cores: cpus().length,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  node: process.version,
  platform: `${process.platform} ${process.arch}`,
};
console.log(
  `${machine.processor}, ${machine.cores} cores, Node ${machine.node}${values.quick ? "; quick: few rounds" : ""}\n`,
);
const report = { date: new Date().toISOString(), machine, quick: values.quick, measurements: {} };
for (const [name, measure] of Object.entries(MEASUREMENTS)) {
  if (!wanted.includes(name)) continue;
  const { title, table, results, ...rest } = await measure({ quick: values.quick });
  const targets = /** @type {readonly Target[]} */ (rest.targets);
  Object.assign(report.measurements, { [name]: { title, results, targets } });
  console.log(`${title}\n${table}`);
  for (const { name: target, value, limit, least = false } of targets) {
    const isMet = least ? value >= limit : value <= limit;
    const bound = `${least ? "at least" : "limit"} ${limit}`;
    console.log(`${isMet ? "met" : "MISSED"}: ${target}: ${digits(value)} (${bound})`);
  }
  console.log();
}
const file =
  values.json ?? fileURLToPath(new URL(`results/${report.date.replace(/[:.]/g, "-")}.json`, import.meta.url));
mkdirSync(dirname(file), { recursive: true });
writeFileSync(file, `${JSON.stringify(report, undefined, 2)}\n`);
console.log(`All numbers: ${file}`);
