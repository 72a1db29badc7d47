/**
 * Starting Node once more with settings that only hold from the start of a process, so that it takes less memory and
 * that of released models goes back to the system. Standard streams, signals and the way the process ends are passed
 * through, and a first start that is killed takes the second one with it.
 */
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { setFlagsFromString } from "node:v8";

/** Settings of glibc; those that are given already stay. */
const ALLOCATOR = {
  /** Blocks from this many bytes on go back as soon as they are freed; by itself it keeps those of up to 32 MiB. */
  MALLOC_MMAP_THRESHOLD_: "131072",
  /** Else each thread, up to eight times the number of cores, keeps freed blocks of its own. */
  MALLOC_ARENA_MAX: "2",
} as const;
/**
 * Node's own option for half of the space for young objects, in MiB. While modules are loaded V8 lets that grow to 32 MiB, of
 * which it later uses less than 8, and does not give it back.
 */
const YOUNG = "--max-semi-space-size=8";
/** `0` for no second start: set by people who do not want one, and for the second start itself. */
const SWITCH = "POLYHEAD_RELAUNCH";
/** What others send to a process to end it or to tell it something. */
const PASSED_ON = ["SIGTERM", "SIGHUP", "SIGUSR2"] as const;
/** What a terminal sends to all processes in its foreground, this one's child among them. */
const FROM_TERMINAL = ["SIGINT", "SIGQUIT"] as const;

/** Whether memory of released models stays with this process: glibc with its standard threshold. */
export function keepsFreedMemory(): boolean {
  return usesGlibc() && process.env.MALLOC_MMAP_THRESHOLD_ === undefined;
}

/** An environment with the settings; what it says already goes before them. */
export function sparing(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: options } = environment;
  return { ...ALLOCATOR, ...environment, NODE_OPTIONS: options ? `${YOUNG} ${options}` : YOUNG };
}

/**
 * Ends the option for young objects where it has been read, for the main thread: V8 would have it go before the smaller
 * limits that worker threads are started with.
 */
export function leaveThreadsTheirLimits(): void {
  setFlagsFromString("--max-semi-space-size=0");
}

/** Whether the second start is switched off. */
export function isRelaunchOff(): boolean {
  return process.env[SWITCH] === "0";
}

/**
 * Runs this process's script again, with its arguments, with the settings, and ends as that run ends:
 * with its exit status, or by the signal that ended it.
 * @returns false at once when there is no need or it is switched off; the caller then goes on itself
 */
export async function relaunch(): Promise<boolean> {
  if (isRelaunchOff() && process.channel) endWithParent(process.channel);
  if (isRelaunchOff() || !keepsFreedMemory()) return false;
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    stdio: ["inherit", "inherit", "inherit", "ipc"],
    env: { ...sparing(process.env), [SWITCH]: "0" },
  });
  const passOn = (signal: NodeJS.Signals) => void child.kill(signal);
  const wait = () => {};
  const hasTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
  for (const signal of PASSED_ON) process.on(signal, passOn);
  for (const signal of FROM_TERMINAL) process.on(signal, hasTerminal ? wait : passOn);
  const ended = await new Promise<number | NodeJS.Signals>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (status, signal) => resolve(signal ?? status ?? 0));
  });
  for (const signal of [...PASSED_ON, ...FROM_TERMINAL]) process.removeAllListeners(signal);
  if (typeof ended === "number") process.exitCode = ended;
  else endBy(ended);
  return true;
}

/** Nobody could tell a second start to end whose first one was killed. */
function endWithParent(channel: { unref(): void }): void {
  const end = () => process.kill(process.pid, "SIGKILL");
  process.once("disconnect", end);
  channel.unref();
  if (!process.connected) end();
}

/** Ends this process by a signal; where the system has it blocked, with the status that shells give it. */
function endBy(signal: NodeJS.Signals): void {
  process.exitCode = 128 + constants.signals[signal];
  process.kill(process.pid, signal);
}

/** Node's report on itself names the C library only where it is glibc. */
function usesGlibc(): boolean {
  if (process.platform !== "linux") return false;
  const report = process.report.getReport();
  const header: unknown = "header" in report ? report.header : undefined;
  return typeof header === "object" && header !== null && "glibcVersionRuntime" in header;
}
