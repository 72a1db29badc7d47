/**
 * Measures the verbs on the hostile files of `test/corpus`, each in a process of its own, and prints the slowest and the
 * largest. Time is processor time and memory the most that was resident, both of all processes that a verb started, so
 * that other programs on the machine count little. Reads /proc, and so needs Linux.
 * Usage: npm run build && node scripts/corpus.js [words of a case's name]
 */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createViteServer } from "vitest/node";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const JUDGE = join(ROOT, "test/corpus/judge.js");
const VERBS = ["inspect", "import", "split"];
const LIMITS = { seconds: 5, mebibytes: 1024 };
const SHOWN = 12;
const LOOK_EVERY_MILLISECONDS = 10;
/** The kernel counts processor time in hundredths of a second. */
const TICK = 100;

const vite = await createViteServer({ root: ROOT, configFile: false, logLevel: "error" });
const { allCases, layOut } = await vite.ssrLoadModule("/test/corpus/cases.ts");
const folder = mkdtempSync(join(tmpdir(), "polyhead-corpus-"));
const words = process.argv.slice(2).join(" ");
/** @typedef {{ end: string, seconds: number, mebibytes: number }} Measured */
const measured = /** @type {(Measured & { name: string, verb: string })[]} */ ([]);
for (const [at, each] of [...allCases()].entries()) {
  if (!each.name.includes(words)) continue;
  const place = join(folder, "cases", String(at));
  await layOut(place, each);
  for (const verb of VERBS) measured.push({ name: each.name, verb, ...(await measure(place, verb)) });
  rmSync(place, { recursive: true });
  if (process.stderr.isTTY) process.stderr.write(`\r${at + 1} `);
}
await vite.close();
rmSync(folder, { recursive: true });

print("Most processor time", (each) => each.seconds);
print("Most memory", (each) => each.mebibytes);
const faults = measured.filter(
  ({ end, seconds, mebibytes }) =>
    end.startsWith("fault") || seconds > LIMITS.seconds || mebibytes > LIMITS.mebibytes,
);
console.log(
  `${measured.length} runs, ${faults.length} at fault (over ${LIMITS.seconds} s, ${LIMITS.mebibytes} MiB, or not refused well)`,
);
for (const { name, verb, end } of faults) console.log(`  ${verb}, ${name}: ${end}`);
process.exitCode = faults.length > 0 ? 1 : 0;

/**
 * Runs one verb on one case while it watches the processes.
 * @param {string} place
 * @param {string} verb
 * @returns {Promise<Measured>}
 */
function measure(place, verb) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [JUDGE, place], {
      env: { ...process.env, JUDGED_VERBS: verb },
      stdio: ["ignore", "pipe", "ignore"],
    });
    const seen = /** @type {Seen} */ (new Map());
    const watch = setInterval(() => look(String(child.pid), seen), LOOK_EVERY_MILLISECONDS);
    let printed = "";
    child.stdout.on("data", (text) => {
      printed += text;
    });
    child.on("close", (status, signal) => {
      clearInterval(watch);
      const all = [...seen.values()];
      const verdict = printed === "" ? undefined : JSON.parse(printed);
      resolve({
        end: verdict?.ends[verb] ?? `fault: ended by ${signal ?? `status ${status}`}`,
        seconds: all.reduce((sum, each) => sum + each.seconds, 0),
        mebibytes: Math.max(0, ...all.map((each) => each.mebibytes)),
      });
    });
  });
}

/** @typedef {Map<string, { seconds: number, mebibytes: number }>} Seen by process */

/**
 * Notes what a process and those below it have taken so far.
 * @param {string} pid
 * @param {Seen} seen
 */
function look(pid, seen) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
    const peak = /VmHWM:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "0";
    seen.set(pid, {
      seconds: (Number(stat[11]) + Number(stat[12])) / TICK,
      mebibytes: Math.max(Number(peak) / 1024, seen.get(pid)?.mebibytes ?? 0), // an ended process has none
    });
    for (const below of readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" "))
      if (below !== "") look(below, seen);
  } catch {
    // It has ended.
  }
}

/**
 * @param {string} title
 * @param {(each: Measured) => number} by
 */
function print(title, by) {
  console.log(`${title}\n${"seconds".padStart(9)}${"MiB".padStart(7)}  verb     end               case`);
  for (const { name, verb, end, seconds, mebibytes } of measured
    .toSorted((a, b) => by(b) - by(a))
    .slice(0, SHOWN))
    console.log(
      `${seconds.toFixed(2).padStart(9)}${mebibytes.toFixed(0).padStart(7)}  ${verb.padEnd(8)} ${end.slice(0, 16).padEnd(17)} ${name}`,
    );
  console.log();
}
