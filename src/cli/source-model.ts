/**
 * Whatever file a user has, as a model. The content decides what it is, not the file's ending; `source-formats.ts`
 * has the table. A folder that holds one model (TF.js, Teachable Machine) is read as that model.
 */
import { createHash, type Hash } from "node:crypto";
import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { PolyheadError } from "../base/errors.js";
import type { Folder } from "../base/folder.js";
import { DiskFolder, readFileBytes } from "../files/disk.js";
import type { Model } from "../onnx/model.js";
import {
  checkOptions,
  findFormat,
  type Known,
  type SourceFile,
  type SourceFormat,
  type SourceOptions,
} from "./source-formats.js";

/** A model with where it came from. */
export interface SourceModel {
  readonly model: Model;
  /** Remarks of the reader. */
  readonly notes: readonly string[];
  readonly format: string;
  /** What the file is, in words. */
  readonly label: string;
  /** What the file says beside the graph. */
  readonly known: Known;
  /** Name of the file without its folder. */
  readonly file: string;
  /** SHA-256 of that file; of several files, that of the list of theirs: what `sha256sum FILE ... | sha256sum` says. */
  readonly sha256: string;
  /** SHA-256 of every file that the model was read from, weight files included, by name and sorted by it. */
  readonly files: Readonly<Record<string, string>>;
}

const PIECE = 2 ** 24;

/**
 * The model in a file, or in a folder that holds one.
 * @throws PolyheadError FILE_NOT_FOUND, MODEL_UNSUPPORTED for other formats and operators, MODEL_MALFORMED,
 *   LIMIT_EXCEEDED, PATH_REFUSED; INVALID_ARGUMENT for options of another format
 */
export async function readSourceModel(path: string, options: SourceOptions = {}): Promise<SourceModel> {
  const { source, folder } = await openSource(path);
  const format = await formatOf(source);
  checkOptions(format, source.file, options);
  const { model, notes = [], known = {} } = await format.read(source, options);
  const { file, bytes } = source;
  const { format: name, label } = format;
  return { model, notes, format: name, label, known, file, ...(await digests(file, bytes, folder)) };
}

/** What a file is. */
export interface Description {
  readonly format: string;
  /** In words. */
  readonly label: string;
  /** Whether its content (for ONNX, its name) says so; else it was only not recognised as anything else. */
  readonly isSure: boolean;
  /** Names of the other files in its folder that belong to it, as far as they are known without reading the model. */
  readonly parts: readonly string[];
}

/**
 * What a file is; read no further than that needs.
 * @throws PolyheadError FILE_NOT_FOUND, LIMIT_EXCEEDED
 */
export async function describeSource(path: string): Promise<Description> {
  const { source } = await openSource(path);
  const { format, label, isSure, parts } = await formatOf(source);
  return { format, label, isSure: isSure?.(source) ?? true, parts: (await parts?.(source)) ?? [] };
}

async function openSource(path: string): Promise<{ source: SourceFile; folder: RememberingFolder }> {
  const inner = (await isDirectory(path)) ? join(path, "model.json") : path;
  const folder = new RememberingFolder(new DiskFolder(dirname(inner)));
  const bytes = await readFileBytes(inner);
  return { source: { bytes, file: basename(inner), folder }, folder };
}

/** Whether a path leads to a directory. */
export async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}

async function formatOf(source: SourceFile): Promise<SourceFormat> {
  const format = await findFormat(source);
  if (format) return format;
  throw new PolyheadError(
    "MODEL_MALFORMED",
    `${JSON.stringify(source.file)} is no model file that is known.`,
    { file: source.file },
  );
}

/** A folder that knows which of its files were read. */
class RememberingFolder implements Folder {
  readonly names = new Set<string>();
  readonly #folder: Folder;

  constructor(folder: Folder) {
    this.#folder = folder;
  }

  size(name: string): Promise<number> {
    return this.#folder.size(name);
  }

  read(name: string, offset?: number, length?: number): Promise<Uint8Array> {
    this.names.add(name);
    return this.#folder.read(name, offset, length);
  }
}

async function digests(
  file: string,
  bytes: Uint8Array,
  folder: RememberingFolder,
): Promise<Pick<SourceModel, "sha256" | "files">> {
  const files: Record<string, string> = {};
  for (const name of [...new Set([file, ...folder.names])].sort()) {
    const hash = createHash("sha256");
    files[name] = (name === file ? hash.update(bytes) : await hashFile(hash, name, folder)).digest("hex");
  }
  const own = files[file] ?? "";
  if (Object.keys(files).length === 1) return { sha256: own, files };
  const list = Object.entries(files).map(([name, digest]) => `${digest}  ${name}\n`);
  return { sha256: createHash("sha256").update(list.join("")).digest("hex"), files };
}

/** Weight files may be larger than memory. */
async function hashFile(hash: Hash, name: string, folder: Folder): Promise<Hash> {
  const size = await folder.size(name);
  for (let offset = 0; offset < size; offset += PIECE)
    hash.update(await folder.read(name, offset, Math.min(PIECE, size - offset)));
  return hash;
}
