/** The command as people run it: a process of its own, from the build. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const COMMAND = fileURLToPath(new URL("../../bin/polyhead.js", import.meta.url));

/** How a run of the command ended. */
export interface Finished {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command to its end. */
export function polyhead(...given: string[]): Promise<Finished> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [COMMAND, ...given], (_, stdout, stderr) =>
      resolve({ status: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

/** Begins the command, and kills it as soon as `isTime` says so; it must not have come to its end before. */
export async function killed(given: readonly string[], isTime: () => Promise<boolean>): Promise<void> {
  const env = { ...process.env, POLYHEAD_RELAUNCH: "0" };
  const child = spawn(process.execPath, [COMMAND, ...given], { env, stdio: "ignore" });
  const gone = once(child, "exit");
  while (child.exitCode === null && !(await isTime())) await sleep(2);
  child.kill("SIGKILL");
  const [status, signal] = await gone;
  if (signal !== "SIGKILL") throw new Error(`The command ended before it was killed, with status ${status}.`);
}
