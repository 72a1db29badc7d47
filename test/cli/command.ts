/** The command as people run it: a process of its own, from the build. */
import { execFile } from "node:child_process";
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
