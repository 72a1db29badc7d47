/** The second start of the command: who gets one, and that signals, streams and the way it ends go through. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const COMMAND = fileURLToPath(new URL("../../bin/polyhead.js", import.meta.url));
const RELAUNCH = new URL("../../dist/cli/relaunch.js", import.meta.url).href;
const usesGlibc = JSON.stringify(process.report.getReport()).includes("glibcVersionRuntime");

/** Tells how large its space for young objects is once many of them have outlived others. */
const THREAD = `
  let kept = [];
  for (let at = 0; at < 4e6; at++) {
    kept.push({ at });
    if (kept.length > 1e5) kept = [];
  }
  const { getHeapSpaceStatistics } = require("node:v8");
  const young = getHeapSpaceStatistics().find((each) => each.space_name === "new_space");
  require("node:worker_threads").parentPort.postMessage(young.space_size);`;

let folder: string;
let script: string;
let probe: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "relaunch-"));
  script = join(folder, "script.mjs");
  // Tells of the second start, copies standard input, and then does what its argument says.
  await writeFile(
    script,
    `import { leaveThreadsTheirLimits, relaunch } from ${JSON.stringify(RELAUNCH)};
    import { Worker } from "node:worker_threads";
    if (!(await relaunch())) {
      leaveThreadsTheirLimits();
      console.log(process.env.MALLOC_MMAP_THRESHOLD_ ?? "plain");
      const [what, value] = process.argv.slice(2);
      if (what === "copy") process.stdin.pipe(process.stdout);
      if (what === "settings") console.log(process.env.MALLOC_ARENA_MAX, process.env.NODE_OPTIONS);
      if (what === "thread") new Worker(${JSON.stringify(THREAD)}, { eval: true, resourceLimits: { maxYoungGenerationSizeMb: 3 } }).on("message", (bytes) => console.log(bytes));
      if (what === "exit") process.exit(Number(value));
      if (what === "die") process.kill(process.pid, value);
      if (what === "wait" || what === "die") setInterval(() => {}, 1000);
      if (what === "handle") {
        setInterval(() => {}, 1000);
        process.on(value, () => process.exit(7));
        console.log("ready");
      }
    }`,
  );
  probe = join(folder, "probe.mjs");
  await writeFile(probe, 'console.error("threshold " + (process.env.MALLOC_MMAP_THRESHOLD_ ?? "plain"));');
});
afterAll(() => rm(folder, { recursive: true }));

/** Starts a script; `until` of its output it is sent the signal. */
async function start(
  args: readonly string[],
  {
    input = "",
    until,
    send,
    env = {},
  }: { input?: string; until?: string; send?: NodeJS.Signals; env?: object },
) {
  const { MALLOC_MMAP_THRESHOLD_: _, POLYHEAD_RELAUNCH: __, ...rest } = process.env;
  const child = spawn(process.execPath, [...args], { env: { ...rest, ...env } });
  let [output, errors] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    if (send && until !== undefined && output.includes(until)) child.kill(send);
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
  });
  child.stdin.end(input);
  const [status, signal]: unknown[] = await once(child, "close");
  return { status, signal, output, errors };
}

describe.skipIf(!usesGlibc)("the second start", () => {
  it("has glibc give memory back, and takes arguments and standard input with it", async () => {
    const run = await start([script, "copy"], { input: "through" });
    expect(run).toEqual({ status: 0, signal: null, output: "131072\nthrough", errors: "" });
  });

  it("takes less memory in advance, unless the caller has said how much", async () => {
    const settings = async (env: object) => (await start([script, "settings"], { env })).output;
    expect(await settings({})).toBe("131072\n2 --max-semi-space-size=8\n");
    const own = { MALLOC_ARENA_MAX: "5", NODE_OPTIONS: "--max-semi-space-size=64" };
    expect(await settings(own)).toBe("131072\n5 --max-semi-space-size=8 --max-semi-space-size=64\n");
  });

  it("has limits for its threads that are lower than its own", async () => {
    const { output } = await start([script, "thread"], {});
    const [, bytes] = output.split("\n").map(Number);
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThan(4 * 2 ** 20);
  });

  it("passes its exit status on", async () => {
    expect(await start([script, "exit", "65"], {})).toMatchObject({ status: 65, output: "131072\n" });
  });

  it.each(["SIGTERM", "SIGKILL", "SIGABRT"])("ends by %s when it ended by that", async (signal) => {
    expect(await start([script, "die", signal], {})).toMatchObject({ status: null, signal });
  });

  it.each(["SIGTERM", "SIGHUP", "SIGINT"] as const)("gets %s, and may end as it likes", async (send) => {
    const run = await start([script, "handle", send], { until: "ready", send });
    expect(run).toMatchObject({ status: 7, signal: null });
  });

  it("dies of a SIGTERM that it does not handle", async () => {
    const run = await start([script, "wait"], { until: "131072", send: "SIGTERM" });
    expect(run).toMatchObject({ status: null, signal: "SIGTERM" });
  });

  it.each([
    ["it is switched off", { POLYHEAD_RELAUNCH: "0" }, "plain\n"],
    ["the threshold is set", { MALLOC_MMAP_THRESHOLD_: "4096" }, "4096\n"],
  ])("does not happen when %s", async (_, env, output) => {
    expect(await start([script], { env })).toMatchObject({ status: 0, output });
  });

  it("is for verbs that run for long, not for short ones", async () => {
    const thresholds = async (...given: string[]) =>
      [
        ...(await start(["--import", probe, COMMAND, ...given], {})).errors.matchAll(/^threshold (.*)$/gm),
      ].map(([, value]) => value);
    expect(await thresholds("teach", "--help")).toEqual(["plain", "131072"]);
    expect(await thresholds("demo", "--help")).toEqual(["plain", "131072"]);
    expect(await thresholds("inspect", "--help")).toEqual(["plain"]);
  });
});
