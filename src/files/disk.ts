/**
 * Files on this machine: a directory as a {@link Folder}, models read from and written to paths. A write
 * goes to a temporary name and is renamed, so that a reader sees the old file or the new one, never a part.
 */
import { createHash, randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { access, type FileHandle, mkdir, open, readdir, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { asError, PolyheadError } from "../base/errors.js";
import { type Folder, insideFolder, rangeError } from "../base/folder.js";
import type { Model } from "../onnx/model.js";
import { readModel } from "../onnx/read.js";
import { bigWeightBytes, serializeModel } from "../onnx/write.js";

/** Weights of more than this many bytes in all go into an external data file, which runtimes map into memory. */
const EXTERNAL_FROM = 2 ** 20;
/** One read call asks for no more than this; Node refuses 2 GiB and more at once. */
const SLICE = 2 ** 30;

/** Opening a pipe that nobody writes to must not wait; Windows has no such flag and no such pipes. */
const NO_WAIT = constants.O_NONBLOCK ?? 0;

/** A directory, read by name; symbolic links may not lead out of it. */
export class DiskFolder implements Folder {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = resolve(directory);
  }

  async size(name: string): Promise<number> {
    const file = await this.#open(name);
    try {
      return (await file.stat()).size;
    } finally {
      await file.close();
    }
  }

  async read(name: string, offset = 0, length?: number): Promise<Uint8Array> {
    const file = await this.#open(name);
    try {
      const { size } = await file.stat();
      const count = length ?? size - offset;
      if (offset < 0 || count < 0 || offset + count > size) throw rangeError(name, offset, count, size);
      return await readRange(file, offset, count);
    } finally {
      await file.close();
    }
  }

  async #open(name: string): Promise<FileHandle> {
    const path = join(this.#directory, insideFolder(name));
    const [real, root] = await Promise.all([realpath(path), realpath(this.#directory)]).catch((thrown) => {
      throw notFound(name, thrown);
    });
    const inside = relative(root, real);
    if (inside === ".." || inside.startsWith(`..${sep}`)) {
      throw new PolyheadError("PATH_REFUSED", `${JSON.stringify(name)} leads out of the model's folder.`, {
        path: name,
      });
    }
    return openFile(real);
  }
}

/**
 * The bytes of a file.
 * @param limit refuse files that are larger
 * @throws PolyheadError FILE_NOT_FOUND, LIMIT_EXCEEDED
 */
export async function readFileBytes(path: string, limit = 2 ** 31 - 1): Promise<Uint8Array> {
  const file = await openFile(path);
  try {
    const { size } = await file.stat();
    if (size > limit) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `${basename(path)} has ${size} bytes; the limit for it is ${limit}.`,
        { size, limit },
      );
    }
    return await readRange(file, 0, size);
  } finally {
    await file.close();
  }
}

/**
 * The model at a path, its external data included.
 * @throws PolyheadError FILE_NOT_FOUND, MODEL_MALFORMED, LIMIT_EXCEEDED, PATH_REFUSED
 */
export async function loadModel(path: string): Promise<Model> {
  return readModel(await readFileBytes(path), new DiskFolder(dirname(path)));
}

/** How {@link saveModel} stores weights. */
export interface SaveOptions {
  /** Put big weights into a data file beside the model; by default when they are more than 1 MiB in all. */
  readonly external?: boolean;
}

/**
 * Writes a model. A data file is named by its content, so that an old model never meets new weights; data
 * files that an earlier model of this name left behind are removed.
 * @returns the bytes written
 * @throws PolyheadError FILE_NOT_WRITTEN
 */
export async function saveModel(path: string, model: Model, options: SaveOptions = {}): Promise<number> {
  return saveModels([[path, model]], options);
}

/**
 * Writes several models as {@link saveModel} does, all of them or none: nothing is put in its place before everything
 * is on the disk.
 * @returns the bytes written
 * @throws PolyheadError FILE_NOT_WRITTEN
 */
export async function saveModels(
  models: readonly (readonly [path: string, model: Model])[],
  options: SaveOptions = {},
): Promise<number> {
  const staged: StagedFile[] = [];
  const stale: (() => Promise<void>)[] = [];
  try {
    for (const [path, model] of models) {
      const stem = basename(path).replace(/\.onnx$/, "");
      const external = options.external ?? bigWeightBytes(model) > EXTERNAL_FROM;
      const dataName = external ? `${stem}.${contentName(model)}.data` : undefined;
      const { file, external: data } = serializeModel(model, dataName);
      if (dataName) staged.push(await stageFile(join(dirname(path), dataName), data));
      staged.push(await stageFile(path, file));
      stale.push(() => removeStale(dirname(path), stem, dataName));
    }
    for (const each of staged) await each.commit();
  } finally {
    for (const each of staged) await each.discard();
  }
  for (const remove of stale) await remove();
  return staged.reduce((sum, { written }) => sum + written, 0);
}

/**
 * Writes a file whole or not at all, with the folders it needs.
 * @returns the bytes written
 * @throws PolyheadError FILE_NOT_WRITTEN
 */
export async function writeFileAtomic(
  path: string,
  content: string | Uint8Array | readonly Uint8Array[],
): Promise<number> {
  const staged = await stageFile(path, content);
  try {
    await staged.commit();
  } finally {
    await staged.discard();
  }
  return staged.written;
}

/**
 * Finds out whether a file could be written, so that long work does not end with that; what is there stays as it is.
 * @throws PolyheadError FILE_NOT_WRITTEN
 */
export async function requireWritable(path: string): Promise<void> {
  await (await stageFile(path, "")).discard();
}

/** A file on the disk that is not in its place yet. */
interface StagedFile {
  readonly written: number;
  /** Puts it there. @throws PolyheadError FILE_NOT_WRITTEN */
  commit(): Promise<void>;
  /** Gives it up; does nothing to a file that is in its place. */
  discard(): Promise<void>;
}

async function stageFile(
  path: string,
  content: string | Uint8Array | readonly Uint8Array[],
): Promise<StagedFile> {
  const pieces =
    typeof content === "string"
      ? [Buffer.from(content)]
      : content instanceof Uint8Array
        ? [content]
        : content;
  const temporary = `${path}.${randomUUID()}.part`;
  const discard = () => rm(temporary, { force: true }).catch(() => {});
  try {
    await makeFolder(dirname(path));
    const inPlace = await stat(path).catch(() => undefined);
    if (inPlace?.isDirectory()) throw new Error("a folder of that name is there");
    const file = await open(temporary, "wx");
    let written = 0;
    try {
      for (const piece of pieces) {
        for (let at = 0; at < piece.length; at += SLICE) {
          written += (await file.write(piece.subarray(at, at + SLICE))).bytesWritten;
        }
      }
      await file.sync();
    } finally {
      await file.close();
    }
    const commit = () =>
      rename(temporary, path).catch((thrown) => {
        throw notWritten(path, thrown);
      });
    return { written, commit, discard };
  } catch (thrown) {
    await discard();
    throw notWritten(path, thrown);
  }
}

function notWritten(path: string, thrown: unknown): PolyheadError {
  const cause = asError(thrown);
  return new PolyheadError(
    "FILE_NOT_WRITTEN",
    `${basename(path)} could not be written: ${cause.message}`,
    { path },
    { cause },
  );
}

/** Makes a folder with those above it. Not with `recursive`: Node then never returns where folders cannot be made at all, below `/proc` say. */
export async function makeFolder(path: string): Promise<void> {
  const make = () =>
    mkdir(path).catch((thrown) => {
      if (codeOf(thrown) !== "EEXIST") throw thrown;
    });
  await make().catch(async (thrown) => {
    if (codeOf(thrown) !== "ENOENT" || dirname(path) === path) throw thrown;
    await makeFolder(dirname(path));
    await make();
  });
}

function codeOf(thrown: unknown): unknown {
  return thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
}

/** Whether a file can be read. */
export async function exists(path: string): Promise<boolean> {
  return access(path, constants.R_OK).then(
    () => true,
    () => false,
  );
}

function contentName(model: Model): string {
  const hash = createHash("sha256");
  for (const bytes of new Set(model.graph.initializer.map(({ rawData }) => rawData))) hash.update(bytes);
  return hash.digest("hex").slice(0, 16);
}

async function removeStale(folder: string, stem: string, keep: string | undefined): Promise<void> {
  for (const name of await readdir(folder)) {
    const isData = name.startsWith(`${stem}.`) && /^[0-9a-f]{16}\.data$/.test(name.slice(stem.length + 1));
    if (isData && name !== keep) await rm(join(folder, name), { force: true });
  }
}

async function readRange(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const { bytesRead } = await file.read(bytes, at, Math.min(SLICE, length - at), offset + at);
    if (bytesRead === 0)
      throw new PolyheadError("FILE_NOT_FOUND", "A file became shorter while it was read.", {});
    at += bytesRead;
  }
  return bytes;
}

async function openFile(path: string): Promise<FileHandle> {
  const file = await open(path, constants.O_RDONLY | NO_WAIT).catch((thrown) => {
    throw notFound(path, thrown);
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw notFound(path, "it is not a file");
}

function notFound(path: string, thrown: unknown): PolyheadError {
  const reason = thrown instanceof Error && "code" in thrown ? String(thrown.code) : asError(thrown).message;
  return new PolyheadError(
    "FILE_NOT_FOUND",
    `${path} cannot be read (${reason}); expected a readable file.`,
    { path, reason },
  );
}
