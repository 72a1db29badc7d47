/**
 * Which preprocessing a model wants: what its metadata says, or what the caller says, completed by what the
 * declared shape of its image input shows.
 */

import { asError, PolyheadError } from "../base/errors.js";
import { GraphIndex } from "../onnx/graph.js";
import { readMetadata } from "../onnx/metadata.js";
import { declaredType, type Model, type ValueInfo } from "../onnx/model.js";
import { formatShape } from "../tensor/shape.js";
import {
  type PartialPreprocessing,
  PREPROCESSING_RECIPES,
  type Preprocessing,
  parsePreprocessing,
  preprocessingRecipe,
} from "./preprocessing.js";

/**
 * The model's only input, which takes the image.
 * @throws PolyheadError MODEL_UNSUPPORTED for a model with no or several inputs
 */
export function imageInput(model: Model): ValueInfo {
  const { inputs } = new GraphIndex(model.graph);
  const [input] = inputs;
  if (input && inputs.length === 1) return input;
  const names = inputs.map(({ name }) => JSON.stringify(name)).join(", ") || "none";
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The model has the inputs ${names}; expected one that takes an image.`,
    { got: inputs.map(({ name }) => name) },
  );
}

/**
 * How an image becomes the model's input.
 * @param given a recipe's name or a record as JSON text; size, layout, dtype and grey follow the input's declared
 *   shape where it says them. Without it the model's own metadata decides.
 * @throws PolyheadError INVALID_ARGUMENT when neither says it or `given` is wrong; MODEL_MALFORMED for a broken
 *   record in the metadata; MODEL_UNSUPPORTED for several inputs
 */
export function preprocessingFor(model: Model, given?: string): Preprocessing {
  const shown = shownByInput(imageInput(model));
  if (given !== undefined) {
    const text = given.trim();
    if (!text.startsWith("{")) return preprocessingRecipe(text, shown);
    return parsePreprocessing({ ...shown, ...parseRecord(text) }, "INVALID_ARGUMENT");
  }
  const { preprocessing } = readMetadata(model);
  if (preprocessing !== undefined) return parsePreprocessing(preprocessing);
  const shape = declaredType(imageInput(model))?.shape;
  const expected = Object.keys(PREPROCESSING_RECIPES);
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `The model does not say how images become its input${shape ? ` of shape ${formatShape(shape)}` : ""}. Say it with --preprocess: ${expected.join(", ")}, or a record such as '{"range":[0,1]}'.`,
    { expected },
  );
}

function parseRecord(text: string): object {
  try {
    return Object(JSON.parse(text));
  } catch (thrown) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The preprocessing ${text.slice(0, 100)} is not JSON: ${asError(thrown).message}.`,
      {},
      { cause: thrown },
    );
  }
}

/** What an input of rank 4 with 1 or 3 channels gives away. */
function shownByInput(input: ValueInfo): PartialPreprocessing {
  const { dtype, shape = [] } = declaredType(input) ?? {};
  const [, second, third, fourth] = shape;
  const isChannels = (size: unknown) => size === 1 || size === 3;
  const layout = isChannels(second) ? "nchw" : isChannels(fourth) ? "nhwc" : undefined;
  if (shape.length !== 4 || !layout) return {};
  const [height, width] = layout === "nchw" ? [third, fourth] : [second, third];
  const isGrey = (layout === "nchw" ? second : fourth) === 1;
  return {
    layout,
    ...(isGrey && { colour: "grey" as const }),
    ...(typeof height === "number" && { height }),
    ...(typeof width === "number" && { width }),
    ...((dtype === "uint8" || dtype === "int8" || dtype === "int32") && { dtype }),
  };
}
