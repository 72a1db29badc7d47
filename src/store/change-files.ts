/**
 * The newest changes of the routes, each in a small file of its own in `.polyhead/changes`, so that a change costs the
 * same however many models there are and however long the history is. A name has the generation that a change leads to
 * and the digest of the content; there all at once, it makes the change. Now and then the changes are sealed: they become
 * part of what the index leads to, and their files are used for the next ones.
 */
import { join } from "node:path";
import { digestOf, hexOf } from "./digest.js";
import { damaged, namesIn, readRegular, writeDurable } from "./durable.js";
import type { Change } from "./routes.js";
import { changeBytes, parseChange, ROUTES_LIMIT } from "./routes-json.js";

const NAME = /^(\d{1,15})\.([0-9a-f]{64})$/;

/** The file of one change. */
export interface ChangeFile {
  readonly name: string;
  /** The generation after the change. */
  readonly generation: number;
  /** The digest of its content, without the algorithm. */
  readonly hex: string;
}

/** The file that a change would have, and its content. @throws PolyheadError LIMIT_EXCEEDED */
export function changeFile(change: Change): { readonly file: ChangeFile; readonly bytes: Uint8Array } {
  const bytes = changeBytes(change);
  const hex = hexOf(digestOf([bytes]));
  return { file: { name: `${change.after}.${hex}`, generation: change.after, hex }, bytes };
}

/** A folder of changes. */
export class ChangeFiles {
  readonly folder: string;
  readonly #temporaries: string;

  constructor(folder: string, temporaries: string) {
    this.folder = folder;
    this.#temporaries = temporaries;
  }

  /** All changes in the folder, oldest first; files with other names are not the store's. */
  list(): ChangeFile[] {
    const found: ChangeFile[] = [];
    for (const name of namesIn(this.folder)) {
      const [, generation, hex] = NAME.exec(name) ?? [];
      if (hex !== undefined) found.push({ name, generation: Number(generation), hex });
    }
    return found.sort((a, b) => a.generation - b.generation);
  }

  /**
   * Writes the file of a change; it outlasts a loss of power when this returns.
   * @param sealed a change whose file becomes this one
   * @throws PolyheadError FILE_NOT_WRITTEN
   */
  async put({ name }: ChangeFile, bytes: Uint8Array, sealed: ChangeFile | undefined): Promise<void> {
    const old = sealed && join(this.folder, sealed.name);
    await writeDurable(join(this.folder, name), [bytes], this.#temporaries, old);
  }

  /** A change, checked against its name. @throws PolyheadError STORE_DAMAGED, STORE_REFUSED, LIMIT_EXCEEDED */
  async read({ name, generation, hex }: ChangeFile): Promise<Change> {
    const bytes = await readRegular(join(this.folder, name), ROUTES_LIMIT);
    if (!bytes)
      throw damaged(`The change ${name} is missing from the store. Restore it from a copy.`, { name });
    const got = hexOf(digestOf([bytes]));
    if (got !== hex)
      throw damaged(`The change ${name} has content of digest ${got}. Restore it from a copy.`, {
        name,
        got,
      });
    const change = parseChange(bytes);
    if (change.after === generation && change.before === generation - 1) return change;
    throw damaged(`The change ${name} leads to generation ${change.after}; expected ${generation}.`, {
      name,
    });
  }
}
