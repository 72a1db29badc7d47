/**
 * Files that survive a crash: written under a temporary name, flushed, renamed, and the folder flushed too, in this
 * order, so that a name never stands for a part of its content. Reading follows no symbolic link and takes no more
 * than the caller expects. Windows cannot flush folders; there the last names may be lost with the power, not more.
 */
import { randomUUID } from "node:crypto";
import { closeSync, constants, fstatSync, fsync, openSync } from "node:fs";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { asError, PolyheadError } from "../base/errors.js";
import { makeFolder } from "../files/disk.js";

/** One write call takes no more than this; Node refuses 2 GiB and more at once. */
const SLICE = 2 ** 30;
const flush = promisify(fsync);
/** Up to this many bytes are written at once, and flushed by the write itself where the system can. */
const SMALL = 2 ** 16;
const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
const FLUSHES = process.platform === "linux" ? constants.O_DSYNC : 0;
/** No links, and no waiting for the writer of a pipe; Windows has neither flag. */
const READ_ONLY = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

/**
 * Writes a file whole or not at all; when this returns it outlasts a loss of power. Folders are made where they are
 * missing.
 * @param temporaries a folder of the same file system for the unfinished file
 * @throws PolyheadError FILE_NOT_WRITTEN
 */
export async function writeDurable(
  path: string,
  pieces: readonly Uint8Array[],
  temporaries: string,
): Promise<void> {
  const folder = dirname(path);
  const temporary = join(temporaries, randomUUID());
  try {
    await writeFlushed(temporary, pieces).catch(async (thrown) => {
      if (!isMissing(thrown)) throw thrown;
      await makeFolder(temporaries);
      await writeFlushed(temporary, pieces);
    });
    await rename(temporary, path).catch(async (thrown) => {
      if (!isMissing(thrown)) throw thrown;
      await makeFolder(folder);
      await flushFolder(dirname(folder));
      await rename(temporary, path);
    });
    await flushFolder(folder);
  } catch (thrown) {
    await rm(temporary, { force: true }).catch(() => {});
    const cause = asError(thrown);
    throw new PolyheadError(
      "FILE_NOT_WRITTEN",
      `${basename(path)} could not be written to the store: ${cause.message}`,
      { path },
      { cause },
    );
  }
}

async function writeFlushed(path: string, pieces: readonly Uint8Array[]): Promise<void> {
  const isSmall = pieces.reduce((sum, { length }) => sum + length, 0) <= SMALL;
  const flushes = isSmall ? FLUSHES : 0;
  const file = await open(path, NEW_FILE | flushes);
  try {
    for (const piece of isSmall ? [Buffer.concat(pieces)] : pieces) {
      for (let at = 0; at < piece.length; at += SLICE) await file.writeFile(piece.subarray(at, at + SLICE));
    }
    if (flushes === 0) await file.sync();
  } finally {
    await file.close();
  }
}

function isMissing(thrown: unknown): boolean {
  return thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT";
}

/** Makes the names in a folder durable. Only the flush itself is left to another thread: the rest takes less than that costs. */
export async function flushFolder(path: string): Promise<void> {
  if (process.platform === "win32") return;
  const folder = openSync(path, constants.O_RDONLY);
  try {
    await flush(folder);
  } finally {
    closeSync(folder);
  }
}

/**
 * Opens a regular file for reading.
 * @returns undefined when there is none
 * @throws PolyheadError STORE_DAMAGED when something else has its name, a symbolic link for example
 */
export async function openRegular(path: string): Promise<FileHandle | undefined> {
  let file: FileHandle;
  try {
    file = await open(path, READ_ONLY);
  } catch (thrown) {
    const reason = thrown instanceof Error && "code" in thrown ? String(thrown.code) : String(thrown);
    if (reason === "ENOENT") return undefined;
    throw unreadable(path, reason === "ELOOP" ? "it is a symbolic link" : reason);
  }
  // What an open file is costs no look at the disk, but another thread would.
  if (fstatSync(file.fd).isFile()) return file;
  await file.close();
  throw unreadable(path, "it is not a file");
}

/**
 * The bytes of a regular file.
 * @param limit bytes that it may have at most
 * @returns undefined when there is none
 * @throws PolyheadError STORE_DAMAGED, LIMIT_EXCEEDED
 */
export async function readRegular(path: string, limit: number): Promise<Uint8Array | undefined> {
  const file = await openRegular(path);
  if (!file) return undefined;
  try {
    const { size } = fstatSync(file.fd);
    if (size > limit) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `${basename(path)} in the store has ${size} bytes; expected ${limit} at most.`,
        { file: basename(path), size, limit },
      );
    }
    return await readExactly(file, basename(path), 0, size);
  } finally {
    await file.close();
  }
}

/**
 * A range of an open file.
 * @throws PolyheadError STORE_DAMAGED when the file ends before it
 */
export async function readExactly(
  file: FileHandle,
  name: string,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const { bytesRead } = await file.read(bytes, at, Math.min(SLICE, length - at), offset + at);
    if (bytesRead === 0)
      throw damaged(`${name} in the store ended before byte ${offset + length}.`, { file: name });
    at += bytesRead;
  }
  return bytes;
}

/** The error for a store that is not as it was written. */
export function damaged(message: string, details: Readonly<Record<string, unknown>>): PolyheadError {
  return new PolyheadError("STORE_DAMAGED", message, details);
}

function unreadable(path: string, reason: string): PolyheadError {
  return damaged(`${basename(path)} in the store cannot be read (${reason}); expected a readable file.`, {
    file: basename(path),
    reason,
  });
}
