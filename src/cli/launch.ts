/**
 * Where the command starts. Verbs that load many models, or run for long, run in a second start of Node that gives
 * freed memory back. The others are over too soon for that to matter, and save the time that a start takes.
 */
import { leaveThreadsTheirLimits, relaunch } from "./relaunch.js";

const LONG_RUNNING: ReadonlySet<string | undefined> = new Set(["demo", "serve", "teach", "tune"]);

const isElsewhere = LONG_RUNNING.has(process.argv[2]) && (await relaunch());
if (!isElsewhere) {
  leaveThreadsTheirLimits();
  await import("./main.js");
}
