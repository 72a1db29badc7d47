/**
 * TF.js layers models, which `model.save` of tf.Sequential and tf.LayersModel and tensorflowjs_converter write:
 * `model.json` holds Keras' configuration and the list of weight files.
 */
import { asError, PolyheadError } from "../../base/errors.js";
import type { Folder } from "../../base/folder.js";
import { isRecord, malformed } from "../tfjs/json.js";
import { loadWeights, readManifest } from "../tfjs/weights.js";
import {
  convertLayers,
  type LayersImport,
  type LayersImportOptions,
  refuseUnknownLayers,
} from "./convert.js";
import { readModelSpec } from "./topology.js";
import { bindByName } from "./weights.js";

/** A `model.json` longer than this many bytes is refused. */
const LONGEST_JSON = 2 ** 28;

/** Whether parsed JSON looks like a TF.js layers model. */
export function isTfjsLayersModel(json: unknown): boolean {
  return isRecord(json) && isRecord(topologyOf(json)) && !isRecord(graphOf(json));
}

/**
 * Imports a TF.js layers model. Inputs and outputs are called after their layers and keep TF.js' shapes and
 * layout (images are NHWC).
 * @param modelJsonName the file `model.json`; its weights lie beside it
 * @throws PolyheadError MODEL_UNSUPPORTED with all layers and uses that are not covered, MODEL_MALFORMED,
 *   FILE_NOT_FOUND, PATH_REFUSED, LIMIT_EXCEEDED, INVALID_ARGUMENT
 */
export async function importTfjsLayers(
  folder: Folder,
  modelJsonName: string,
  options: LayersImportOptions = {},
): Promise<LayersImport> {
  const json = await readJson(folder, modelJsonName);
  const topology = isRecord(json) ? topologyOf(json) : undefined;
  if (!isRecord(json) || !topology) {
    throw malformed("This is no TF.js layers model: expected modelTopology with class_name and config.");
  }
  const spec = readModelSpec(topology);
  refuseUnknownLayers(spec);
  if (json.weightsManifest === undefined) {
    throw malformed("The model has a configuration but no weights: model.json has no weightsManifest.");
  }
  const directory = modelJsonName.slice(0, modelJsonName.lastIndexOf("/") + 1);
  const groups = readManifest(json.weightsManifest).map((group) => ({
    ...group,
    paths: group.paths.map((path) => directory + path),
  }));
  const weights = bindByName(spec, "tfjs", await loadWeights(folder, groups));
  return convertLayers(spec, "tfjs", weights, options);
}

/**
 * The JSON in a file.
 * @throws PolyheadError MODEL_MALFORMED, LIMIT_EXCEEDED, FILE_NOT_FOUND
 */
export async function readJson(folder: Folder, name: string): Promise<unknown> {
  const size = await folder.size(name);
  if (size > LONGEST_JSON) {
    throw new PolyheadError(
      "LIMIT_EXCEEDED",
      `${JSON.stringify(name)} has ${size} bytes; expected at most ${LONGEST_JSON}.`,
      {
        size,
        limit: LONGEST_JSON,
      },
    );
  }
  try {
    return JSON.parse(new TextDecoder().decode(await folder.read(name)));
  } catch (cause) {
    if (cause instanceof PolyheadError) throw cause;
    throw malformed(`${JSON.stringify(name)} is not JSON: ${asError(cause).message}`);
  }
}

/** The configuration of the model, which the converter puts one step deeper than TF.js does. */
function topologyOf(json: Readonly<Record<string, unknown>>): unknown {
  const { modelTopology } = json;
  if (!isRecord(modelTopology)) return undefined;
  const topology = isRecord(modelTopology.model_config) ? modelTopology.model_config : modelTopology;
  return typeof topology.class_name === "string" ? topology : undefined;
}

function graphOf(json: Readonly<Record<string, unknown>>): unknown {
  return isRecord(json.modelTopology) && Array.isArray(json.modelTopology.node)
    ? json.modelTopology
    : undefined;
}
