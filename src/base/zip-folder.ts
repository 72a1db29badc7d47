/** A zip archive as a {@link Folder}: its files are inflated when they are read. */

import { PolyheadError } from "./errors.js";
import { type Folder, insideFolder, rangeError } from "./folder.js";
import { type ZipEntry, zipEntries } from "./zip.js";

/** Files that inflate to more bytes than this are refused. */
const LARGEST_FILE = 2 ** 31 - 1;

/** The files of an archive that is in memory. */
export class ZipFolder implements Folder {
  readonly #entries: ReadonlyMap<string, ZipEntry>;
  #last: { readonly name: string; readonly bytes: Uint8Array } | undefined;

  /** @throws PolyheadError MODEL_MALFORMED when the archive is broken */
  constructor(bytes: Uint8Array) {
    const fail = (reason: string, details: Readonly<Record<string, unknown>> = {}) =>
      new PolyheadError("MODEL_MALFORMED", `The zip file is broken: ${reason}.`, details);
    this.#entries = new Map(zipEntries(bytes, fail).map((entry) => [entry.name, entry]));
  }

  /** Names of all files, folders left out. */
  get names(): string[] {
    return [...this.#entries.keys()].filter((name) => !name.endsWith("/"));
  }

  async size(name: string): Promise<number> {
    return this.#find(name).size;
  }

  async read(name: string, offset = 0, length?: number): Promise<Uint8Array> {
    const entry = this.#find(name);
    if (entry.size > LARGEST_FILE) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `${JSON.stringify(name)} in the zip file has ${entry.size} bytes.`,
        {
          size: entry.size,
          limit: LARGEST_FILE,
        },
      );
    }
    if (this.#last?.name !== entry.name) this.#last = { name: entry.name, bytes: entry.read() };
    const { bytes } = this.#last;
    const end = offset + (length ?? bytes.length - offset);
    if (offset < 0 || end > bytes.length || end < offset)
      throw rangeError(name, offset, end - offset, bytes.length);
    return bytes.subarray(offset, end);
  }

  #find(name: string): ZipEntry {
    const entry = this.#entries.get(insideFolder(name));
    if (entry) return entry;
    throw new PolyheadError("FILE_NOT_FOUND", `No file ${JSON.stringify(name)} in the zip file.`, {
      path: name,
    });
  }
}
