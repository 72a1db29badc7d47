/** A child process in which memory can be measured. */
import { spawn } from "node:child_process";
import { once } from "node:events";

/**
 * Runs a script with a collector that can be called, and an allocator that gives freed blocks back: glibc would
 * keep most of them, and what it keeps is not what the program holds.
 * @param {URL} script
 * @param {readonly string[]} args
 * @returns {Promise<{ code: number, output: string }>} its standard output; what it says on standard error is passed on
 */
export async function runMeasurable(script, args) {
  const child = spawn(process.execPath, ["--expose-gc", script.pathname, ...args], {
    env: { ...process.env, MALLOC_MMAP_THRESHOLD_: "131072" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => {
    output += text;
  });
  const [code] = await once(child, "close");
  return { code, output };
}

/** Resident memory in bytes, after collections. */
export async function settledRss() {
  for (let time = 0; time < 4; time++) {
    globalThis.gc?.();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return process.memoryUsage.rss();
}
