/**
 * The folder in which processes say that they change the store, or that they wish to. A claim is a file of a name of its
 * own that names its process; a claim of a dead process can be deleted by anyone without danger, because its name is never
 * used again. A wish is an empty file whose name sorts by the time it was made. Claims make the lock safe; wishes are mere
 * courtesy, so that who holds the lock for long knows that others wait, and that these take turns.
 *
 * A process is dead when its system says so. Where that cannot be known, because the claim was made on another machine
 * or in another container, it is dead when it has not renewed its claim for {@link LEASE} milliseconds; the clocks of
 * machines that share a store must agree better than that.
 */
import { randomUUID } from "node:crypto";
import { renameSync, writeFileSync } from "node:fs";
import { lstat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { asPolyheadError } from "../base/errors.js";
import { makeFolder } from "../files/disk.js";
import { namesIn, readRegular, removeFile, removeNow } from "./durable.js";
import { jsonBytes, parseObject } from "./json.js";
import { isAlive, isProcessName, type ProcessName, thisProcess } from "./process-name.js";

/** Milliseconds without renewal after which a claim from elsewhere is dead, and a wish is rubbish. */
export const LEASE = 10_000;
/** Milliseconds without renewal after which nobody makes way for a wish. */
export const PATIENCE = 250;
const CLAIM_LIMIT = 4096;
const CLAIM_NAME = /^[0-9a-f-]{36}$/;
const WISH_NAME = /^\d{15}\.[0-9a-f-]{36}$/;

/** What is in the folder beside one's own files. */
export interface Look {
  /** Whoever holds the lock, as far as is known. */
  readonly holder: Partial<ProcessName> | undefined;
  /** Somebody waits, or did so a short time ago. */
  readonly isWanted: boolean;
  /** Somebody waits and was there before one's own wish. */
  readonly isEarlier: boolean;
  /** One's own claim is there. */
  readonly isOwnThere: boolean;
}

/** Names of one's own files. */
export interface Own {
  readonly claim?: string | undefined;
  readonly wish?: string | undefined;
}

/** A folder of claims and wishes. */
export class Claims {
  readonly folder: string;
  readonly #temporaries: string;

  constructor(folder: string, temporaries: string) {
    this.folder = folder;
    this.#temporaries = temporaries;
  }

  /**
   * Puts a claim, complete from its first moment.
   * @returns its name
   * @throws PolyheadError FILE_NOT_WRITTEN
   */
  async claim(): Promise<string> {
    const name = randomUUID();
    const temporary = join(this.#temporaries, name);
    // Nothing is flushed here, so that it takes less than to ask another thread for it.
    const put = () => {
      writeFileSync(temporary, jsonBytes(thisProcess()), { flag: "wx" });
      renameSync(temporary, join(this.folder, name));
    };
    try {
      try {
        put();
      } catch {
        removeNow(temporary);
        await makeFolder(this.folder);
        await makeFolder(this.#temporaries);
        put();
      }
      return name;
    } catch (thrown) {
      removeNow(temporary);
      throw asPolyheadError(thrown, "FILE_NOT_WRITTEN", "The store's lock could not be taken");
    }
  }

  /** Puts a wish. @returns its name, though it may be that it could not be written */
  async wish(): Promise<string> {
    const name = `${String(Date.now()).padStart(15, "0")}.${randomUUID()}`;
    await writeFile(join(this.folder, name), "", { flag: "wx" }).catch(() => {});
    return name;
  }

  /** Says that a claim or wish still holds; of one that is gone nothing is said. */
  async renew(name: string): Promise<void> {
    const now = new Date();
    await utimes(join(this.folder, name), now, now).catch(() => {});
  }

  async remove(name: string): Promise<void> {
    await removeFile(join(this.folder, name));
  }

  /** The same for a process that ends. */
  removeNow(name: string): void {
    removeNow(join(this.folder, name));
  }

  async isThere(name: string): Promise<boolean> {
    return (await this.#age(name)) !== undefined;
  }

  /** Looks who else is there, and clears away what the dead left. */
  async look(own: Own = {}): Promise<Look> {
    const names = namesIn(this.folder);
    let holder: Partial<ProcessName> | undefined;
    for (const name of names) {
      if (name === own.claim || !CLAIM_NAME.test(name)) continue;
      holder = await this.#living(name);
      if (holder) break;
    }
    let [isWanted, isEarlier] = [false, false];
    for (const name of names) {
      if (name === own.wish || !WISH_NAME.test(name)) continue;
      const age = Math.abs((await this.#age(name)) ?? Number.POSITIVE_INFINITY);
      if (age > LEASE) await this.remove(name);
      else isWanted = true;
      if (age < PATIENCE && (own.wish === undefined || name < own.wish)) isEarlier = true;
    }
    return { holder, isWanted, isEarlier, isOwnThere: own.claim !== undefined && names.includes(own.claim) };
  }

  /** Who made a claim and lives; a dead one's is cleared away. */
  async #living(name: string): Promise<Partial<ProcessName> | undefined> {
    const age = await this.#age(name);
    if (age === undefined) return undefined;
    const holder = await this.#read(name);
    if ((holder ? isAlive(holder) : undefined) ?? age < LEASE) return holder ?? {};
    await this.remove(name);
    return undefined;
  }

  /** Milliseconds since a file was renewed; undefined when it is gone. */
  async #age(name: string): Promise<number | undefined> {
    const stat = await lstat(join(this.folder, name)).catch(() => undefined);
    return stat && Date.now() - stat.mtimeMs;
  }

  /** Who made a claim; undefined when it cannot be read. */
  async #read(name: string): Promise<ProcessName | undefined> {
    try {
      const bytes = await readRegular(join(this.folder, name), CLAIM_LIMIT);
      const value: unknown = bytes && parseObject(bytes, "A claim");
      return isProcessName(value) ? value : undefined;
    } catch {
      return undefined;
    }
  }
}
