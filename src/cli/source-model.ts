/**
 * Whatever file a user has, as a model: ONNX and TF.js graph models are read, other known formats are refused by
 * name. The content decides, not the file's ending.
 */
import { createHash } from "node:crypto";
import { basename, dirname } from "node:path";
import { bytesToHex } from "@noble/hashes/utils.js";
import { PolyheadError } from "../base/errors.js";
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
  /** SHA-256 of that file; weights in other files are not part of it. */
  readonly sha256: string;
}

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
  const folder = new DiskFolder(dirname(path));
  const start = bytesToHex(bytes.subarray(0, 64));
  const refused = REFUSED.find(({ begins }) => begins.test(start));
  if (refused) throw unsupported(file, refused.kind, refused.mend);
  const source = { file, sha256: createHash("sha256").update(bytes).digest("hex") };
  if (/^(efbbbf)?(20|09|0a|0d)*7b/.test(start)) {
    if (isLayersModel(bytes)) {
      throw unsupported(
        file,
        "a TF.js layers model (as Teachable Machine writes them)",
        "convert it with tensorflowjs_converter --input_format=tfjs_layers_model --output_format=tfjs_graph_model",
      );
    }
    return { ...source, ...(await importTfjsGraph(folder, file)), format: "tfjs-graph" };
  }
  return { ...source, model: await readModel(bytes, folder), notes: [], format: "onnx" };
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
