/**
 * Keras' own files: HDF5 files of whole models (Keras 1.2 to 3) and the archives of Keras 3 (`.keras`: a zip with
 * `config.json` and `model.weights.h5`). Both are read as data; a layer's code, where a file holds some, is never run.
 */
import { asError, PolyheadError } from "../../base/errors.js";
import type { ZipFolder } from "../../base/zip-folder.js";
import { type Hdf5Object, openHdf5 } from "../hdf5/file.js";
import { isRecord, malformed } from "../tfjs/json.js";
import {
  convertLayers,
  type LayersImport,
  type LayersImportOptions,
  refuseUnknownLayers,
} from "./convert.js";
import { bindByOrder, bindByPath, listedTexts } from "./keras-weights.js";
import type { Dialect } from "./rule.js";
import { readModelSpec } from "./topology.js";

/** A configuration longer than this many letters is refused. */
const LONGEST_CONFIG = 2 ** 28;

/**
 * Imports an HDF5 file of a whole Keras model.
 * @throws PolyheadError MODEL_UNSUPPORTED for layers and uses that are not covered and for files of weights only,
 *   MODEL_MALFORMED, LIMIT_EXCEEDED, INVALID_ARGUMENT
 */
export function importKerasHdf5(bytes: Uint8Array, options: LayersImportOptions = {}): LayersImport {
  const root = openHdf5(bytes);
  const [config] = root.texts("model_config") ?? [];
  if (config === undefined) throw withoutConfig(root);
  const spec = readModelSpec(parse(config, "The attribute model_config"));
  refuseUnknownLayers(spec);
  const dialect = dialectOf(root.texts("keras_version")?.[0]);
  const weights = bindByOrder(spec, dialect, root.find("model_weights") ?? root);
  return convertLayers(spec, dialect, weights, options);
}

/**
 * Imports a Keras 3 archive.
 * @throws PolyheadError as {@link importKerasHdf5}
 */
export async function importKerasArchive(
  archive: ZipFolder,
  options: LayersImportOptions = {},
): Promise<LayersImport> {
  if (!archive.names.includes("config.json") || !archive.names.includes("model.weights.h5")) {
    throw malformed("This is no Keras archive: expected config.json and model.weights.h5 in the zip file.");
  }
  const config = parse(new TextDecoder().decode(await archive.read("config.json")), "config.json");
  const spec = readModelSpec(config);
  refuseUnknownLayers(spec);
  const weights = bindByPath(spec, openHdf5(await archive.read("model.weights.h5")));
  return convertLayers(spec, await archiveDialect(archive), weights, options);
}

/** TensorFlow 2.12 to 2.15 wrote such archives with Keras 2. */
async function archiveDialect(archive: ZipFolder): Promise<Dialect> {
  if (!archive.names.includes("metadata.json")) return "keras3";
  const metadata = parse(new TextDecoder().decode(await archive.read("metadata.json")), "metadata.json");
  const version = isRecord(metadata) ? metadata.keras_version : undefined;
  return typeof version === "string" ? dialectOf(version) : "keras3";
}

function dialectOf(version: string | undefined): Dialect {
  return Number.parseInt(version ?? "2", 10) >= 3 ? "keras3" : "keras2";
}

function parse(text: string, what: string): unknown {
  if (text.length > LONGEST_CONFIG) {
    throw new PolyheadError(
      "LIMIT_EXCEEDED",
      `${what} has ${text.length} letters; expected at most ${LONGEST_CONFIG}.`,
      {
        limit: LONGEST_CONFIG,
      },
    );
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    // Keras writes the numbers that JSON does not have as Python does; none of them is read here.
    const mended = text.replace(/-?\b(?:Infinity|NaN)\b/g, "null");
    if (mended !== text) return parse(mended, what);
    throw malformed(`${what} is not JSON: ${asError(cause).message}`);
  }
}

/** A file without configuration holds weights only, or is no Keras file. */
function withoutConfig(root: Hdf5Object): PolyheadError {
  const layers = listedTexts(root, "layer_names") ?? root.find("layers")?.names ?? [];
  if (layers.length === 0) {
    return new PolyheadError(
      "MODEL_UNSUPPORTED",
      `This HDF5 file holds no Keras model: it has no configuration, and no weights of layers. It has ${root.names.slice(0, 8).join(", ") || "nothing"}.`,
      { names: root.names.slice(0, 64) },
    );
  }
  return new PolyheadError(
    "MODEL_UNSUPPORTED",
    `This file holds weights only, of the layers ${layers.slice(0, 8).join(", ")}${layers.length > 8 ? ", ..." : ""}; what is missing is how the layers are connected. ` +
      "Save the whole model where it was made: model.save('model.keras'), not save_weights.",
    { layers, missing: "model_config" },
  );
}
