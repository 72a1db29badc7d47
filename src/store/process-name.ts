/**
 * Which process holds a lock, written so that another one can tell whether it still lives. A process number alone is
 * not enough: numbers are used again, and in another container or on another machine they mean something else.
 */
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";
import { isObject } from "./json.js";

/** One process among all that ever ran. */
export interface ProcessName {
  readonly pid: number;
  /** When it started, in a unit of its system; unknown where the system does not say. */
  readonly start?: string;
  /** Machine, boot and process namespace. */
  readonly place: string;
}

let own: ProcessName | undefined;

/** The name of this process. */
export function thisProcess(): ProcessName {
  if (own) return own;
  const start = statusOf(process.pid)?.start;
  own = { pid: process.pid, place: thisPlace(), ...(start !== undefined && { start }) };
  return own;
}

/** Whether a value out of JSON names a process. */
export function isProcessName(value: unknown): value is ProcessName {
  return (
    isObject(value) &&
    typeof value.pid === "number" &&
    Number.isSafeInteger(value.pid) &&
    value.pid > 0 &&
    typeof value.place === "string" &&
    (value.start === undefined || typeof value.start === "string")
  );
}

/** Whether a process lives; undefined when it cannot be known from here. */
export function isAlive({ pid, start, place }: ProcessName): boolean | undefined {
  if (place !== thisPlace()) return undefined;
  if (!exists(pid)) return false;
  const status = statusOf(pid);
  if (!status || start === undefined) return undefined;
  return status.start === start && !status.ended;
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    // A process of another user may not be signalled, but is there.
    return thrown instanceof Error && "code" in thrown && thrown.code === "EPERM";
  }
}

/** What Linux says of a process: when it started, and whether it has ended and only waits for its parent. */
function statusOf(pid: number): { readonly start: string; readonly ended: boolean } | undefined {
  const text = textOf(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  // Fields from the third on follow the program's name, which is in parentheses and may hold anything.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state, start] = [fields[0], fields[19]];
  return start === undefined ? undefined : { start, ended: state === "Z" || state === "X" };
}

let place: string | undefined;

function thisPlace(): string {
  place ??= [hostname(), textOf("/proc/sys/kernel/random/boot_id")?.trim() ?? "", namespace()]
    .join(" ")
    .trim();
  return place;
}

function namespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return "";
  }
}

function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
