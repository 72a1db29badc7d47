/** Content named by its digest, in `blobs/sha256`: written once, never changed, checked whenever it is read. */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, lstatSync } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import { PolyheadError } from "../base/errors.js";
import { type Digest, digestOf, hexOf, isHex } from "./digest.js";
import { damaged, flushNames, openRegular, readExactly, removeFile, writeNamed } from "./durable.js";

/** Bytes read at once where a blob is only hashed. */
const STEP = 2 ** 20;

/** What is said of a blob where it is referred to. */
export interface BlobName {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/** A blob to be kept. */
export interface BlobContent extends BlobName {
  readonly pieces: readonly Uint8Array[];
}

/** A blob as it lies in the folder. */
export interface BlobFile extends BlobName {
  /** Milliseconds since 1970. */
  readonly modified: number;
}

/** A folder of blobs. */
export class BlobStore {
  readonly #folder: string;
  readonly #temporaries: string;

  constructor(folder: string, temporaries: string) {
    this.#folder = folder;
    this.#temporaries = temporaries;
  }

  /** Where a blob lies, there or not. */
  path(digest: Digest): string {
    return join(this.#folder, hexOf(digest));
  }

  /** Whether a file of this name and size is there; its content is not looked at. */
  has({ digest, size }: BlobName): boolean {
    try {
      const found = lstatSync(this.path(digest));
      return found.isFile() && found.size === size;
    } catch {
      return false;
    }
  }

  /**
   * Keeps contents; nothing is written of what is there already and sound.
   * @throws PolyheadError FILE_NOT_WRITTEN
   */
  async put(contents: readonly BlobContent[]): Promise<void> {
    const missing: BlobContent[] = [];
    for (const each of contents) if (!(await this.isSound(each))) missing.push(each);
    await this.#write(missing);
  }

  /**
   * Writes contents again that were taken away since they were put.
   * @throws PolyheadError FILE_NOT_WRITTEN
   */
  async restore(contents: readonly BlobContent[]): Promise<void> {
    await this.#write(contents.filter((each) => !this.has(each)));
  }

  /**
   * The bytes of a blob, checked against its digest.
   * @param limit bytes that a blob of its kind may have at most
   * @throws PolyheadError STORE_DAMAGED, LIMIT_EXCEEDED
   */
  async read({ digest, size }: BlobName, limit: number): Promise<Uint8Array> {
    if (size > limit) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `The blob ${digest} is said to have ${size} bytes; expected ${limit} at most.`,
        { digest, size, limit },
      );
    }
    const file = openRegular(this.path(digest));
    if (file === undefined) throw missing(digest);
    try {
      const { size: length } = fstatSync(file);
      if (length !== size) throw altered(digest, `has ${length} bytes; expected ${size}`);
      const bytes = await readExactly(file, hexOf(digest), 0, size);
      const got = digestOf([bytes]);
      if (got !== digest) throw altered(digest, `has content of digest ${got}`);
      return bytes;
    } finally {
      closeSync(file);
    }
  }

  /**
   * Bytes of a part of a blob, unchecked: for content that is checked as a whole afterwards.
   * @throws PolyheadError STORE_DAMAGED
   */
  async readRange(digest: Digest, offset: number, length: number): Promise<Uint8Array> {
    const file = openRegular(this.path(digest));
    if (file === undefined) throw missing(digest);
    try {
      return await readExactly(file, hexOf(digest), offset, length);
    } finally {
      closeSync(file);
    }
  }

  /**
   * Reads a blob through and throws when it is not what its name says.
   * @throws PolyheadError STORE_DAMAGED
   */
  async check({ digest, size }: BlobName): Promise<void> {
    const file = openRegular(this.path(digest));
    if (file === undefined) throw missing(digest);
    const hash = createHash("sha256");
    try {
      const { size: length } = fstatSync(file);
      if (length !== size) throw altered(digest, `has ${length} bytes; expected ${size}`);
      for (let at = 0; at < size; at += STEP)
        hash.update(await readExactly(file, hexOf(digest), at, Math.min(STEP, size - at)));
    } finally {
      closeSync(file);
    }
    const got: Digest = `sha256:${hash.digest("hex")}`;
    if (got !== digest) throw altered(digest, `has content of digest ${got}`);
  }

  /** Whether a blob is there and what its name says. */
  async isSound(name: BlobName): Promise<boolean> {
    if (!this.has(name)) return false;
    return this.check(name).then(
      () => true,
      () => false,
    );
  }

  /** All blobs in the folder; files with other names are not the store's. */
  async list(): Promise<BlobFile[]> {
    const found: BlobFile[] = [];
    for (const name of await readdir(this.#folder).catch(() => [])) {
      if (!isHex(name)) continue;
      const digest: Digest = `sha256:${name}`;
      const stat = await lstat(this.path(digest)).catch(() => undefined);
      if (stat && !stat.isDirectory())
        found.push({ digest, size: stat.size, modified: Math.floor(stat.mtimeMs) });
    }
    return found;
  }

  /** Takes a blob away, if it is there. */
  async remove(digest: Digest): Promise<void> {
    await removeFile(this.path(digest));
  }

  async #write(contents: readonly BlobContent[]): Promise<void> {
    const [first] = contents;
    if (!first) return;
    for (const { digest, pieces } of contents) await writeNamed(this.path(digest), pieces, this.#temporaries);
    await flushNames(this.path(first.digest));
  }
}

/** Content with its digest and size. */
export function blobOf(pieces: readonly Uint8Array[]): BlobContent {
  return { digest: digestOf(pieces), size: pieces.reduce((sum, piece) => sum + piece.length, 0), pieces };
}

function missing(digest: Digest): PolyheadError {
  return damaged(
    `The blob ${digest} is missing from the store. Put the model that it belongs to once more, or restore the folder from a copy.`,
    { digest },
  );
}

function altered(digest: Digest, how: string): PolyheadError {
  return damaged(
    `The blob ${digest} ${how}. Put the model that it belongs to once more, or restore the folder from a copy.`,
    { digest, how },
  );
}
