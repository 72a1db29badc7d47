/**
 * Whatever file a user has, as a model: ONNX and TF.js graph models are read, other known formats are refused by
 * name. The content decides, not the file's ending.
 */
import { createHash, type Hash } from "node:crypto";
import { basename, dirname } from "node:path";
import { bytesToHex } from "@noble/hashes/utils.js";
import { PolyheadError } from "../base/errors.js";
import type { Folder } from "../base/folder.js";
import { DiskFolder, readFileBytes } from "../files/disk.js";
import { importTfjsGraph, isTfjsGraphModel } from "../formats/index.js";
import type { Model } from "../onnx/model.js";
import { readModel } from "../onnx/read.js";

/** A model with where it came from. */
export interface SourceModel {
  readonly model: Model;
  /** Remarks of the reader. */
  readonly notes: readonly string[];
  readonly format: "onnx" | "tfjs-graph";
  /** Name of the file without its folder. */
  readonly file: string;
  /** SHA-256 of that file; of several files, that of the list of theirs: what `sha256sum FILE ... | sha256sum` says. */
  readonly sha256: string;
  /** SHA-256 of every file that the model was read from, weight files included, by name and sorted by it. */
  readonly files: Readonly<Record<string, string>>;
}

const PIECE = 2 ** 24;
const SUPPORTED = ["ONNX files", "TF.js graph models (model.json with its weight files)"];

/** How files begin (in hexadecimal) that are known but not read, and how to bring their models into a form that is. */
const REFUSED: readonly { kind: string; begins: RegExp; mend: string }[] = [
  {
    kind: "an HDF5 file, as Keras writes them",
    begins: /^894844460d0a/,
    mend: "convert it with tf2onnx, or with tensorflowjs_converter into a graph model",
  },
  {
    kind: "a zip file, as PyTorch and Keras write them",
    begins: /^504b0304/,
    mend: "export it with torch.onnx.export or tf2onnx",
  },
  {
    kind: "a Python pickle, as PyTorch writes them",
    begins: /^800[2-5]/,
    mend: "export it with torch.onnx.export",
  },
  { kind: "a TFLite file", begins: /^.{8}54464c33/, mend: "convert it with tf2onnx" },
  {
    kind: "a safetensors file",
    begins: /^.{12}00007b/,
    mend: "export the model that these weights belong to with torch.onnx.export",
  },
];

/**
 * The model in a file.
 * @throws PolyheadError FILE_NOT_FOUND, MODEL_UNSUPPORTED for other formats and operators, MODEL_MALFORMED,
 *   LIMIT_EXCEEDED, PATH_REFUSED
 */
export async function readSourceModel(path: string): Promise<SourceModel> {
  const bytes = await readFileBytes(path);
  const file = basename(path);
  const folder = new RememberingFolder(new DiskFolder(dirname(path)));
  const start = bytesToHex(bytes.subarray(0, 64));
  const refused = REFUSED.find(({ begins }) => begins.test(start));
  if (refused) throw unsupported(file, refused.kind, refused.mend);
  if (/^(efbbbf)?(20|09|0a|0d)*7b/.test(start)) {
    if (isLayersModel(bytes)) {
      throw unsupported(
        file,
        "a TF.js layers model (as Teachable Machine writes them)",
        "convert it with tensorflowjs_converter --input_format=tfjs_layers_model --output_format=tfjs_graph_model",
      );
    }
    const { model, notes } = await importTfjsGraph(folder, file);
    return { model, notes, format: "tfjs-graph", file, ...(await digests(file, bytes, folder)) };
  }
  const model = await readModel(bytes, folder);
  return { model, notes: [], format: "onnx", file, ...(await digests(file, bytes, folder)) };
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

/** Broken JSON is left to the importer, which says what is wrong with it. */
function isLayersModel(bytes: Uint8Array): boolean {
  try {
    const json: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return typeof json === "object" && json !== null && "modelTopology" in json && !isTfjsGraphModel(json);
  } catch {
    return false;
  }
}

function unsupported(file: string, kind: string, mend: string): PolyheadError {
  return new PolyheadError(
    "MODEL_UNSUPPORTED",
    `${JSON.stringify(file)} is ${kind}; expected one of ${SUPPORTED.join(", ")}. To use it, ${mend}.`,
    { file, got: kind, expected: SUPPORTED },
  );
}
