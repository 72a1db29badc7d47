/** `polyhead serve` as a process of its own, to be asked, signalled and killed. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { sparing } from "../../dist/cli/relaunch.js";

const COMMAND = fileURLToPath(new URL("../../bin/polyhead.js", import.meta.url));
const MORTAL = fileURLToPath(new URL("mortal-worker.cjs", import.meta.url));
const PATIENCE = 60_000;

/**
 * @typedef {object} ServerProcess
 * @property {string} http
 * @property {string} grpc
 * @property {number} pid of the process that serves
 * @property {import("node:child_process").ChildProcess} child
 * @property {() => string} log what it wrote to standard error
 * @property {(signal: NodeJS.Signals) => void} signal
 * @property {() => Promise<{ status: number | null, signal: NodeJS.Signals | null }>} ended
 */

/**
 * Starts a server on free ports and waits until it says that it is ready. It is one process: the second start that
 * makes memory go back is done here, by the environment.
 * @param {{ store: string, flags?: readonly string[], crashFile?: string }} options where `crashFile` is a path that,
 *   once there is a file, makes one worker thread end
 * @returns {Promise<ServerProcess>}
 */
export async function startServer({ store, flags = [], crashFile }) {
  const words = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--log-level", "warn", "--json", ...flags];
  const child = spawn(process.execPath, [COMMAND, "serve", "--store", store, ...words], {
    env: {
      ...sparing({ ...process.env, ...(crashFile !== undefined && { NODE_OPTIONS: `--require ${MORTAL}` }) }),
      ...(crashFile !== undefined && { CRASH_FILE: crashFile }),
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [output, log] = ["", ""];
  child.stderr.setEncoding("utf8").on("data", (text) => {
    log += text;
  });
  const line = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`the server was not ready in time: ${log}`)), PATIENCE);
    child.stdout.setEncoding("utf8").on("data", (text) => {
      output += text;
      if (!output.includes("\n")) return;
      clearTimeout(timer);
      resolve(output);
    });
    child.once("exit", (status, signal) => {
      clearTimeout(timer);
      reject(new Error(`the server ended with ${signal ?? status} before it was ready: ${output}${log}`));
    });
  });
  const { http, grpc, pid } = JSON.parse(line);
  return {
    http,
    grpc,
    pid,
    child,
    log: () => log,
    signal: (signal) => void child.kill(signal),
    async ended() {
      if (child.exitCode === null && child.signalCode === null)
        await once(child, "exit", { signal: AbortSignal.timeout(PATIENCE) });
      return { status: child.exitCode, signal: child.signalCode };
    },
  };
}

/**
 * Bytes of memory that a process has in use, and has had in use at most.
 * @param {number} pid
 */
export function memoryOf(pid) {
  const text = readFileSync(`/proc/${pid}/status`, "utf8");
  const bytes = (/** @type {string} */ name) =>
    1024 * Number(new RegExp(`${name}:\\s*(\\d+) kB`).exec(text)?.[1] ?? Number.NaN);
  return { now: bytes("VmRSS"), most: bytes("VmHWM") };
}
