/** Which routes `heads` and `switch` are about: a running server's, or a store's. */
import { userInfo } from "node:os";
import type { Command } from "commander";
import { PolyheadError } from "../../base/errors.js";
import type { Control } from "./control.js";

/** Where routes are, and what history shall say. */
export interface ControlOptions {
  readonly server?: string;
  readonly token?: string;
  readonly store?: string;
  readonly reason?: string;
}

/** Adds the options that say where routes are; those of changes also a reason. */
export function withControlOptions(command: Command, changes: boolean): Command {
  command
    .option("--server <url>", "ask a running server, as http://127.0.0.1:8000; without it the store itself")
    .option("--token <token>", "the server's token; better given as POLYHEAD_TOKEN")
    .option("--store <folder>", "the store; POLYHEAD_STORE, or the one that serve takes, by default");
  return changes ? command.option("--reason <text>", "why, for the history") : command;
}

/**
 * Opens the control that the options name.
 * @throws PolyheadError INVALID_ARGUMENT for a server and a store at once, and what opening a store throws
 */
export async function openControl(
  { server, token, store, reason }: ControlOptions,
  access: "read" | "change",
): Promise<Control> {
  const author = { by: userName(), reason };
  const { POLYHEAD_TOKEN, POLYHEAD_STORE } = process.env;
  if (server !== undefined && store !== undefined) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "--server and --store were both given; name the server, or the store that no server is asked about.",
      {},
    );
  }
  // Loaded when they are needed: verbs that may publish seldom do.
  if (server !== undefined) {
    const { ServerControl } = await import("./server-control.js");
    return new ServerControl({ url: server, token: token ?? POLYHEAD_TOKEN }, author);
  }
  const { Store } = await import("../../store/index.js");
  const { StoreControl } = await import("./store-control.js");
  const { defaultStoreFolder } = await import("../serve/default-store.js");
  const folder = store ?? (POLYHEAD_STORE || defaultStoreFolder());
  return new StoreControl(await Store.open(folder, { readOnly: access === "read" }), author);
}

/** Some containers run under a number that has no name. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return `user ${process.getuid?.() ?? "unknown"}`;
  }
}
