/** Content named by its digest, in `blobs/sha256`: written once, never changed, checked whenever it is read. */
import { createHash } from "node:crypto";
import { fstatSync } from "node:fs";
import { lstat, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { PolyheadError } from "../base/errors.js";
import { type Digest, digestOf, hexOf, isHex } from "./digest.js";
import { damaged, openRegular, readExactly, writeDurable } from "./durable.js";

/** Bytes read at once where a blob is only hashed. */
const STEP = 2 ** 20;

/** What is said of a blob where it is referred to. */
export interface BlobName {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
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
  async has({ digest, size }: BlobName): Promise<boolean> {
    const found = await lstat(this.path(digest)).catch(() => undefined);
    return found?.isFile() === true && found.size === size;
  }

  /**
   * Keeps content; nothing is written when it is there already and sound.
   * @throws PolyheadError FILE_NOT_WRITTEN
   */
  async put(pieces: readonly Uint8Array[]): Promise<BlobName> {
    const name = nameOf(pieces);
    if (!(await this.isSound(name))) await this.#write(name, pieces);
    return name;
  }

  /** Writes content again that was taken away since it was put. */
  async restore(name: BlobName, pieces: readonly Uint8Array[]): Promise<void> {
    if (!(await this.has(name))) await this.#write(name, pieces);
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
    const file = await openRegular(this.path(digest));
    if (!file) throw missing(digest);
    try {
      const { size: length } = fstatSync(file.fd);
      if (length !== size) throw altered(digest, `has ${length} bytes; expected ${size}`);
      const bytes = await readExactly(file, hexOf(digest), 0, size);
      const got = digestOf([bytes]);
      if (got !== digest) throw altered(digest, `has content of digest ${got}`);
      return bytes;
    } finally {
      await file.close();
    }
  }

  /**
   * Bytes of a part of a blob, unchecked: for content that is checked as a whole afterwards.
   * @throws PolyheadError STORE_DAMAGED
   */
  async readRange(digest: Digest, offset: number, length: number): Promise<Uint8Array> {
    const file = await openRegular(this.path(digest));
    if (!file) throw missing(digest);
    try {
      return await readExactly(file, hexOf(digest), offset, length);
    } finally {
      await file.close();
    }
  }

  /**
   * Reads a blob through and throws when it is not what its name says.
   * @throws PolyheadError STORE_DAMAGED
   */
  async check({ digest, size }: BlobName): Promise<void> {
    const file = await openRegular(this.path(digest));
    if (!file) throw missing(digest);
    const hash = createHash("sha256");
    let length = 0;
    try {
      // One byte more than there should be, so that a longer file is found out.
      const buffer = new Uint8Array(Math.min(STEP, size + 1));
      for (;;) {
        const { bytesRead } = await file.read(buffer, 0, buffer.length, length);
        if (bytesRead === 0) break;
        hash.update(buffer.subarray(0, bytesRead));
        length += bytesRead;
      }
    } finally {
      await file.close();
    }
    const got: Digest = `sha256:${hash.digest("hex")}`;
    if (length !== size) throw altered(digest, `has ${length} bytes; expected ${size}`);
    if (got !== digest) throw altered(digest, `has content of digest ${got}`);
  }

  /** Whether a blob is there and what its name says. */
  async isSound(name: BlobName): Promise<boolean> {
    if (!(await this.has(name))) return false;
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
    await rm(this.path(digest), { force: true });
  }

  async #write({ digest }: BlobName, pieces: readonly Uint8Array[]): Promise<void> {
    await writeDurable(this.path(digest), pieces, this.#temporaries);
  }
}

/** Digest and size of content. */
export function nameOf(pieces: readonly Uint8Array[]): BlobName {
  return { digest: digestOf(pieces), size: pieces.reduce((sum, piece) => sum + piece.length, 0) };
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
