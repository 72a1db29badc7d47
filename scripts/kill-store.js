// Kills writers of a store at random moments and looks whether anything that they were told was kept is lost, or
// anything is damaged. Two processes write at a time, so that a survivor takes over the lock of a dead one.
// Needs a build. Usage: node scripts/kill-store.js [kills, 200 by default]
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Store } from "../dist/store/index.js";

const LONGEST_LIFE = 60;
const kills = Number(process.argv[2] ?? 200);
const directory = mkdtempSync(join(tmpdir(), "kill-store-"));
const store = await Store.open(directory);
const complaints = /** @type {string[]} */ ([]);
/** @typedef {"a" | "b"} Name of a writer */
/** By writer, the last number that it was told was kept. */
const kept = { a: 0, b: 0 };
/** Models that must be there, and the highest generation that was told. */
const models = new Set();
let generation = 0;

const writers = { a: start("a"), b: start("b") };
for (let count = 1; count <= kills; count++) {
  const name = Math.random() < 0.5 ? "a" : "b";
  await writers[name].ready;
  await sleep(Math.random() * LONGEST_LIFE);
  await end(writers[name]);
  await check(`after kill ${count}`);
  if (count < kills) writers[name] = start(name);
}
await Promise.all(Object.values(writers).map(end));
await check("at the end");
await (await Store.open(directory)).gc({ grace: 0 });
const { findings, garbage } = await store.verify();
if (findings.length > 0 || garbage > 0)
  complaints.push(`after cleaning: ${garbage} bytes of garbage, ${JSON.stringify(findings)}`);
rmSync(directory, { recursive: true });
for (const complaint of complaints) console.error(complaint);
console.log(JSON.stringify({ kills, generation, kept, models: models.size, complaints: complaints.length }));
process.exitCode = complaints.length === 0 ? 0 : 1;

/** A process that writes until it is killed. */
function start(/** @type {Name} */ name) {
  const program = fileURLToPath(new URL("kill-store-writer.js", import.meta.url));
  const child = spawn(process.execPath, [program, directory, name, String(kept[name])], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((resolve) => child.once("close", (_, signal) => resolve(signal)));
  const ready = new Promise((resolve) => {
    createInterface(child.stdout).on("line", (line) => {
      resolve(undefined);
      const told = JSON.parse(line);
      if (told.number !== undefined) kept[name] = told.number;
      if (told.generation !== undefined) generation = Math.max(generation, told.generation);
      if (told.put !== undefined) models.add(told.put);
      if (told.removing !== undefined) models.delete(told.removing);
    });
    void ended.then(resolve);
  });
  return { child, ended, ready };
}

/** Kills a writer and waits until all that it said was heard. */
async function end(/** @type {ReturnType<typeof start>} */ { child, ended }) {
  child.kill("SIGKILL");
  const signal = await ended;
  if (signal !== "SIGKILL") complaints.push(`a writer ended by itself, with ${child.exitCode}`);
}

async function check(/** @type {string} */ when) {
  // What is told while this looks was kept before it looked, or is newer than what it finds.
  const [told, mustBeThere, least] = [{ ...kept }, new Set(models), generation];
  try {
    const reader = await Store.open(directory, { readOnly: true });
    const document = await reader.routes();
    if (document.generation < least)
      complaints.push(`${when}: generation ${document.generation} of ${least}`);
    for (const [name, number] of Object.entries(told)) {
      const found = document.routes.get(name)?.targets[0]?.weight ?? 0;
      if (found < number) complaints.push(`${when}: writer ${name} lost change ${number}, it has ${found}`);
    }
    const there = new Set((await reader.models()).map(({ revision }) => revision));
    for (const revision of mustBeThere) {
      if (!there.has(revision) && models.has(revision)) complaints.push(`${when}: model ${revision} is lost`);
    }
    for (const { message } of (await reader.verify()).findings) complaints.push(`${when}: ${message}`);
  } catch (thrown) {
    complaints.push(`${when}: ${thrown instanceof Error ? thrown.stack : thrown}`);
  }
}
