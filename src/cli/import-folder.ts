/**
 * Import of a folder of mixed files: what each of them is, what became of it, and why not where not. Every model is
 * written by itself under a temporary name and renamed; one that is refused does not keep the others from coming.
 */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import { saveModel } from "../files/disk.js";
import { parameterCount } from "../onnx/cost.js";
import { readMetadata } from "../onnx/metadata.js";
import { importModel } from "./import-model.js";
import { describeSource, isDirectory } from "./source-model.js";

/** Files of one folder that are looked at. */
const MOST_FILES = 10_000;

/** What became of one file, or of a folder that holds one model. */
export interface FolderEntry {
  readonly file: string;
  /** What it is, in words. */
  readonly is: string;
  readonly outcome: "imported" | "refused" | "part" | "no model";
  /** The ONNX file that was written. */
  readonly path?: string;
  readonly parameters?: number;
  readonly notes?: readonly string[];
  /** The file whose part it is. */
  readonly of?: string;
  /** Why it was not imported. */
  readonly error?: PolyheadError;
}

/** Something that may be a model. */
interface Candidate {
  readonly name: string;
  readonly is: string;
  readonly parts: readonly string[];
}

/** Whether a folder holds more than one model, or none that `model.json` would be. */
export async function isMixedFolder(path: string): Promise<boolean> {
  if (!(await isDirectory(path))) return false;
  const names = await namesIn(path);
  if (!names.includes("model.json")) return true;
  const { models, others } = await sorted(path, names);
  const parts = models.find(({ name }) => name === "model.json")?.parts ?? [];
  return models.length !== 1 || others.some(({ name }) => name.endsWith(".onnx") && !parts.includes(name));
}

/**
 * Imports all models of a folder into another one, as `NAME.onnx`. Folders within are models when they hold a `model.json`.
 * @throws PolyheadError FILE_NOT_FOUND, LIMIT_EXCEEDED for too many files, FILE_NOT_WRITTEN
 */
export async function importFolder(path: string, out: string): Promise<FolderEntry[]> {
  const names = await namesIn(path);
  const { models, others } = await sorted(path, names);
  const taken = new Set<string>();
  const parts = new Map<string, string>();
  const entries: FolderEntry[] = [];
  for (const { name, is, parts: listed } of models) {
    for (const part of listed) parts.set(part, name);
    entries.push(
      await importOne(join(path, name), { file: name, is }, join(out, freeName(name, taken)), (part) =>
        parts.set(part, name),
      ),
    );
  }
  for (const { name, is } of others) {
    const of = parts.get(name);
    entries.push(
      of === undefined
        ? { file: name, is, outcome: "no model" }
        : { file: name, is: "part of a model", outcome: "part", of },
    );
  }
  return entries.sort((a, b) => (a.file < b.file ? -1 : 1));
}

async function importOne(
  path: string,
  entry: Pick<FolderEntry, "file" | "is">,
  target: string,
  isPart: (file: string) => void,
): Promise<FolderEntry> {
  try {
    const { model, notes } = await importModel(path);
    const files = readMetadata(model).provenance?.files;
    const read = typeof files === "object" && files !== null ? Object.keys(files) : [];
    for (const file of read) if (file !== entry.file) isPart(file);
    await saveModel(target, model);
    return { ...entry, outcome: "imported", path: target, parameters: parameterCount(model), notes };
  } catch (thrown) {
    const error = asPolyheadError(thrown, "INTERNAL", `${entry.file} could not be imported`);
    if (error.code === "FILE_NOT_WRITTEN") throw error;
    return { ...entry, outcome: "refused", error };
  }
}

async function namesIn(path: string): Promise<string[]> {
  const names = await readdir(path).catch((cause: unknown) => {
    throw new PolyheadError(
      "FILE_NOT_FOUND",
      `There is no folder ${JSON.stringify(path)}.`,
      { path },
      { cause },
    );
  });
  if (names.length <= MOST_FILES) return names.sort();
  throw new PolyheadError(
    "LIMIT_EXCEEDED",
    `The folder has ${names.length} files; at most ${MOST_FILES} are looked at.`,
    {
      got: names.length,
      limit: MOST_FILES,
    },
  );
}

/** What may be models, and the rest. */
async function sorted(
  path: string,
  names: readonly string[],
): Promise<{ models: Candidate[]; others: Candidate[] }> {
  const models: Candidate[] = [];
  const others: Candidate[] = [];
  for (const name of names) {
    const inner = join(path, name);
    if ((await isDirectory(inner)) && !(await namesIn(inner)).includes("model.json")) {
      others.push({ name, is: "folder without a model.json", parts: [] });
      continue;
    }
    const found = await describeSource(inner).catch((thrown: unknown) => {
      const error = asPolyheadError(thrown, "INTERNAL", name);
      return { label: error.message, isSure: false, parts: [] };
    });
    if (found.isSure)
      models.push({ name, is: found.label, parts: (await isDirectory(inner)) ? [] : found.parts });
    else others.push({ name, is: "no model that is known", parts: [] });
  }
  return { models, others };
}

/** `faces.hdf5` becomes `faces.onnx`, or `faces.hdf5.onnx` where that is taken. */
function freeName(name: string, taken: Set<string>): string {
  const stem = name.replace(/\.[^.]+$/, "");
  let free = taken.has(stem) ? name : stem;
  for (let copy = 1; taken.has(free); copy++) free = `${name}-${copy}`;
  taken.add(free);
  return `${free}.onnx`;
}
