/**
 * One changer at a time, across processes. Whoever wants to change the store puts a claim, a file of its own name,
 * into a folder and then looks at the folder: with no other living claim there it holds the lock, else it takes its
 * claim back and tries again a little later. Of two that claim at the same time at least the second to look sees the
 * other, so never both hold it. A claim of a dead process can be deleted by anyone without danger, because its name
 * is never used again.
 *
 * A process is dead when its system says so. Where that cannot be known, because the claim was made on another machine
 * or in another container, it is dead when it has not renewed its claim for {@link LEASE} milliseconds; the clocks of
 * machines that share a store must agree better than that.
 */
import { randomUUID } from "node:crypto";
import { lstat, readdir, rename, rm, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import { makeFolder } from "../files/disk.js";
import { readRegular } from "./durable.js";
import { jsonBytes, parseObject } from "./json.js";
import { isAlive, isProcessName, type ProcessName, thisProcess } from "./process-name.js";

/** Milliseconds without renewal after which a claim from elsewhere is dead. */
export const LEASE = 10_000;
const RENEWAL = 2_000;
/** Longest pause between two tries. */
const PAUSE = 20;
const CLAIM_LIMIT = 4096;
const CLAIM_NAME = /^[0-9a-f-]{36}$/;

/** A lock that is held. */
export interface Held {
  /**
   * To be called right before a change becomes visible.
   * @throws PolyheadError STORE_LOCKED when another process took this one for dead
   */
  confirm(): Promise<void>;
}

/** The lock of a store. */
export class Lock {
  readonly #claims: string;
  readonly #temporaries: string;
  readonly #wait: number;
  /** The callers in this process, one after the other. */
  #last: Promise<unknown> = Promise.resolve();

  /** @param wait milliseconds after which a caller gives up */
  constructor(claims: string, temporaries: string, wait: number) {
    this.#claims = claims;
    this.#temporaries = temporaries;
    this.#wait = wait;
  }

  /**
   * Does some work while nobody else does any.
   * @throws PolyheadError STORE_LOCKED, FILE_NOT_WRITTEN, and what the work throws
   */
  run<T>(work: (held: Held) => Promise<T>): Promise<T> {
    const turn = this.#last.then(() => this.#hold(work));
    this.#last = turn.catch(() => {});
    return turn;
  }

  async #hold<T>(work: (held: Held) => Promise<T>): Promise<T> {
    const claim = await this.#acquire();
    const renewal = setInterval(() => {
      const now = new Date();
      utimes(claim, now, now).catch(() => {}); // a claim that is gone is found by confirm()
    }, RENEWAL);
    renewal.unref();
    try {
      return await work({ confirm: () => confirm(claim) });
    } finally {
      clearInterval(renewal);
      await rm(claim, { force: true });
    }
  }

  async #acquire(): Promise<string> {
    const deadline = performance.now() + this.#wait;
    for (;;) {
      let holder = await this.#holder();
      if (!holder) {
        const claim = await this.#claim();
        holder = await this.#holder(claim).catch(async (thrown) => {
          await rm(claim, { force: true });
          throw thrown;
        });
        if (!holder) return claim;
        await rm(claim, { force: true });
      }
      if (performance.now() > deadline) throw locked(holder, this.#wait, this.#claims);
      await sleep(1 + Math.random() * PAUSE);
    }
  }

  /** Puts a claim, complete from its first moment. */
  async #claim(): Promise<string> {
    const name = randomUUID();
    const claim = join(this.#claims, name);
    const temporary = join(this.#temporaries, name);
    const put = async () => {
      await writeFile(temporary, jsonBytes(thisProcess()), { flag: "wx" });
      await rename(temporary, claim);
    };
    try {
      await put().catch(async () => {
        await rm(temporary, { force: true });
        await makeFolder(this.#claims);
        await makeFolder(this.#temporaries);
        await put();
      });
      return claim;
    } catch (thrown) {
      await rm(temporary, { force: true }).catch(() => {});
      throw asPolyheadError(thrown, "FILE_NOT_WRITTEN", "The store's lock could not be taken");
    }
  }

  /** A living claim other than one's own; the dead ones are cleared away. */
  async #holder(own?: string): Promise<Partial<ProcessName> | undefined> {
    for (const name of await readdir(this.#claims).catch(() => [])) {
      const path = join(this.#claims, name);
      if (path === own || !CLAIM_NAME.test(name)) continue;
      const age = await ageOf(path);
      if (age === undefined) continue;
      const holder = await readClaim(path);
      const alive = holder ? isAlive(holder) : undefined;
      if (alive ?? age < LEASE) return holder ?? {};
      await rm(path, { force: true });
    }
    return undefined;
  }
}

async function confirm(claim: string): Promise<void> {
  if ((await ageOf(claim)) !== undefined) return;
  throw new PolyheadError(
    "STORE_LOCKED",
    "Another process took this one for dead and changes the store now; nothing was changed here. Try again.",
    {},
  );
}

/** Milliseconds since a file was renewed; undefined when it is gone. */
async function ageOf(path: string): Promise<number | undefined> {
  const stat = await lstat(path).catch(() => undefined);
  return stat && Date.now() - stat.mtimeMs;
}

/** Who made a claim; undefined when it cannot be read. */
async function readClaim(path: string): Promise<ProcessName | undefined> {
  try {
    const bytes = await readRegular(path, CLAIM_LIMIT);
    const value: unknown = bytes && parseObject(bytes, "A claim");
    return isProcessName(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function locked({ pid, place }: Partial<ProcessName>, wait: number, claims: string): PolyheadError {
  return new PolyheadError(
    "STORE_LOCKED",
    `Process ${pid ?? "unknown"} on ${place ?? "an unknown machine"} has been changing the store for ${wait} ms. Try again; if it hangs, end it. Its claim is in ${claims}.`,
    { pid, place, wait },
  );
}
