/**
 * Where a model's files come from, without saying what holds them: a directory, a zip, a map in memory or
 * a set of downloads. The core reads through this interface only, so that it runs in a browser as well.
 */
import { PolyheadError } from "./errors.js";

/** A flat or nested set of named files that can be read by ranges. */
export interface Folder {
  /**
   * Size of a file in bytes.
   * @throws PolyheadError FILE_NOT_FOUND, PATH_REFUSED
   */
  size(name: string): Promise<number>;
  /**
   * Bytes of a file from `offset`, `length` of them (all that remain when left out).
   * @throws PolyheadError FILE_NOT_FOUND, PATH_REFUSED, MODEL_MALFORMED when the range leaves the file
   */
  read(name: string, offset?: number, length?: number): Promise<Uint8Array>;
}

/**
 * The name when it stays inside its folder: relative, without `..`, drive letters or empty parts.
 * @throws PolyheadError PATH_REFUSED
 */
export function insideFolder(name: string): string {
  const parts = name.split(/[/\\]/);
  const bad =
    name.length === 0 ||
    name.includes("\0") ||
    /^[A-Za-z]:/.test(name) ||
    parts.some((part) => part === "" || part === "..");
  if (bad) {
    throw new PolyheadError(
      "PATH_REFUSED",
      `The file refers to ${JSON.stringify(name)}; expected a relative path inside the model's own folder.`,
      { path: name },
    );
  }
  return parts.filter((part) => part !== ".").join("/");
}

/** A folder in memory, for tests and for files that came over a network. */
export class MemoryFolder implements Folder {
  readonly #files: ReadonlyMap<string, Uint8Array>;

  constructor(files: ReadonlyMap<string, Uint8Array> | Record<string, Uint8Array>) {
    this.#files = files instanceof Map ? files : new Map(Object.entries(files));
  }

  async size(name: string): Promise<number> {
    return this.#find(name).length;
  }

  async read(name: string, offset = 0, length?: number): Promise<Uint8Array> {
    const file = this.#find(name);
    const end = offset + (length ?? file.length - offset);
    if (offset < 0 || end > file.length || end < offset)
      throw rangeError(name, offset, end - offset, file.length);
    return file.subarray(offset, end);
  }

  #find(name: string): Uint8Array {
    const file = this.#files.get(insideFolder(name));
    if (!file) {
      throw new PolyheadError("FILE_NOT_FOUND", `No file ${JSON.stringify(name)} beside the model.`, {
        path: name,
      });
    }
    return file;
  }
}

/** The error for a range that leaves its file. */
export function rangeError(name: string, offset: number, length: number, size: number): PolyheadError {
  return new PolyheadError(
    "MODEL_MALFORMED",
    `The model asks for bytes ${offset} to ${offset + length} of ${JSON.stringify(name)}, which has ${size}.`,
    { path: name, offset, length, size },
  );
}
