/**
 * Files that survive a crash: written under a temporary name, flushed, renamed, and the folder flushed too, in this
 * order, so that a name never stands for a part of its content. Reading follows no symbolic link and takes no more
 * than the caller expects. Windows cannot flush folders; there the last names may be lost with the power, not more.
 *
 * To make, read, write and flush a file is left to other threads, because that waits for the disk. To open, rename and close
 * one takes less than it costs to ask another thread for it: a server does that among its requests.
 */
import { randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  fsync,
  ftruncateSync,
  open,
  openSync,
  read,
  readdirSync,
  renameSync,
  unlinkSync,
  write,
} from "node:fs";
import { unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { asError, PolyheadError } from "../base/errors.js";
import { makeFolder } from "../files/disk.js";

/** One write call takes no more than this; Node refuses 2 GiB and more at once. */
const SLICE = 2 ** 30;
const [make, readFrom, writeTo, flush] = [
  promisify(open),
  promisify(read),
  promisify(write),
  promisify(fsync),
];
/** Up to this many bytes are written at once, and flushed by the write itself where the system can. */
const SMALL = 2 ** 16;
const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
const FLUSHES = process.platform === "linux" ? constants.O_DSYNC : 0;
/** No links, and no waiting for the writer of a pipe; Windows has neither flag. */
const REGULAR = (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);
const READ_ONLY = constants.O_RDONLY | REGULAR;

/**
 * Writes a file whole or not at all; when this returns it outlasts a loss of power. Folders are made where they are
 * missing.
 * @param temporaries a folder of the same file system for the unfinished file
 * @param old the path of a file that nothing needs any more and that may become this one; it is gone afterwards
 * @throws PolyheadError FILE_NOT_WRITTEN
 */
export async function writeDurable(
  path: string,
  pieces: readonly Uint8Array[],
  temporaries: string,
  old?: string,
): Promise<void> {
  await writeNamed(path, pieces, temporaries, old);
  await flushNames(path);
}

/**
 * The same but for the flush of the folder, for several files in one: their names outlast a loss of power when
 * {@link flushNames} returns for one of them.
 * @throws PolyheadError FILE_NOT_WRITTEN
 */
export async function writeNamed(
  path: string,
  pieces: readonly Uint8Array[],
  temporaries: string,
  old?: string,
): Promise<void> {
  const folder = dirname(path);
  const temporary = join(temporaries, randomUUID());
  try {
    const isWritten = old !== undefined && (await writeAnew(old, temporary, pieces));
    if (!isWritten)
      await writeFlushed(temporary, pieces).catch(async (thrown) => {
        if (!isMissing(thrown)) throw thrown;
        await makeFolder(temporaries);
        await writeFlushed(temporary, pieces);
      });
    try {
      renameSync(temporary, path);
    } catch (thrown) {
      if (!isMissing(thrown)) throw thrown;
      await makeFolder(folder);
      await flushFolder(dirname(folder));
      renameSync(temporary, path);
    }
  } catch (thrown) {
    removeNow(temporary);
    throw notWritten(path, thrown);
  }
}

/** @throws PolyheadError FILE_NOT_WRITTEN */
export async function flushNames(path: string): Promise<void> {
  await flushFolder(dirname(path)).catch((thrown: unknown) => {
    throw notWritten(path, thrown);
  });
}

/**
 * Makes an old file the temporary one: to make a file and to delete one takes longer than to write it. It is taken away
 * first, so that nobody else can do the same; who reads it at this moment sees that it is not what its name says.
 * @returns whether it is written and flushed; when not, the old file is gone
 */
async function writeAnew(old: string, temporary: string, pieces: readonly Uint8Array[]): Promise<boolean> {
  try {
    renameSync(old, temporary);
    const file = openSync(temporary, constants.O_WRONLY | REGULAR | FLUSHES);
    try {
      const { nlink, size } = fstatSync(file);
      if (nlink > 1) throw new Error("it is in a copy of the folder too");
      const bytes = Buffer.concat(pieces);
      if (size > bytes.length) ftruncateSync(file, bytes.length);
      await writeWhole(file, bytes);
      if (FLUSHES === 0) await flush(file);
    } finally {
      closeSync(file);
    }
    return true;
  } catch {
    removeNow(temporary);
    return false;
  }
}

async function writeFlushed(path: string, pieces: readonly Uint8Array[]): Promise<void> {
  const isSmall = pieces.reduce((sum, { length }) => sum + length, 0) <= SMALL;
  const flushes = isSmall ? FLUSHES : 0;
  const file = await make(path, NEW_FILE | flushes);
  try {
    for (const piece of isSmall ? [Buffer.concat(pieces)] : pieces) await writeWhole(file, piece);
    if (flushes === 0) await flush(file);
  } finally {
    closeSync(file);
  }
}

async function writeWhole(file: number, piece: Uint8Array): Promise<void> {
  for (let at = 0; at < piece.length; ) {
    const { bytesWritten } = await writeTo(file, piece, at, Math.min(SLICE, piece.length - at));
    at += bytesWritten;
  }
}

/** The names in a folder of few files; none where there is no folder. */
export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** Takes a file away, if it is there. */
export async function removeFile(path: string): Promise<void> {
  await unlink(path).catch((thrown: unknown) => {
    if (!isMissing(thrown)) throw thrown;
  });
}

/** The same at once, for files that others clear away where this does not. */
export function removeNow(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // It is not there, or it is rubbish from now on.
  }
}

function isMissing(thrown: unknown): boolean {
  return thrown instanceof Error && "code" in thrown && thrown.code === "ENOENT";
}

/** Makes the names in a folder durable. */
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
 * Opens a regular file for reading; the caller closes it.
 * @returns undefined when there is none
 * @throws PolyheadError STORE_DAMAGED when something else has its name, a symbolic link for example
 */
export function openRegular(path: string): number | undefined {
  let file: number;
  try {
    file = openSync(path, READ_ONLY);
  } catch (thrown) {
    const reason = thrown instanceof Error && "code" in thrown ? String(thrown.code) : String(thrown);
    if (reason === "ENOENT") return undefined;
    throw unreadable(path, reason === "ELOOP" ? "it is a symbolic link" : reason);
  }
  if (fstatSync(file).isFile()) return file;
  closeSync(file);
  throw unreadable(path, "it is not a file");
}

/**
 * The bytes of a regular file.
 * @param limit bytes that it may have at most
 * @returns undefined when there is none
 * @throws PolyheadError STORE_DAMAGED, LIMIT_EXCEEDED
 */
export async function readRegular(path: string, limit: number): Promise<Uint8Array | undefined> {
  const file = openRegular(path);
  if (file === undefined) return undefined;
  try {
    const { size } = fstatSync(file);
    if (size > limit) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `${basename(path)} in the store has ${size} bytes; expected ${limit} at most.`,
        { file: basename(path), size, limit },
      );
    }
    return await readExactly(file, basename(path), 0, size);
  } finally {
    closeSync(file);
  }
}

/**
 * A range of an open file.
 * @throws PolyheadError STORE_DAMAGED when the file ends before it
 */
export async function readExactly(
  file: number,
  name: string,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const { bytesRead } = await readFrom(file, bytes, at, Math.min(SLICE, length - at), offset + at);
    if (bytesRead === 0)
      throw damaged(`${name} in the store ended before byte ${offset + length}.`, { file: name });
    at += bytesRead;
  }
  return bytes;
}

function notWritten(path: string, thrown: unknown): PolyheadError {
  const cause = asError(thrown);
  return new PolyheadError(
    "FILE_NOT_WRITTEN",
    `${basename(path)} could not be written to the store: ${cause.message}`,
    { path },
    { cause },
  );
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
