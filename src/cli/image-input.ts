/**
 * The input of a model that takes images, and preprocessing that fits it: what the model's file says of size,
 * layout, channels and dtype goes before a recipe's habits, and what the user says before both.
 */
import { PolyheadError } from "../base/errors.js";
import { GraphIndex } from "../onnx/graph.js";
import { declaredType, type Model, type ValueInfo } from "../onnx/model.js";
import { formatShape, type SymbolicShape } from "../tensor/shape.js";
import {
  inputShape,
  type PartialPreprocessing,
  type Preprocessing,
  preprocessingRecipe,
} from "../vision/preprocessing.js";

/** An input of four axes. */
export interface ImageInput {
  readonly info: ValueInfo;
  readonly dtype: string;
  readonly shape: SymbolicShape;
}

/**
 * The one input with four axes.
 * @throws PolyheadError INVALID_ARGUMENT when there is none, or more than one
 */
export function imageInput(model: Model): ImageInput {
  const { inputs } = new GraphIndex(model.graph);
  const found = inputs.flatMap((info) => {
    const type = declaredType(info);
    return type?.shape?.length === 4 ? [{ info, dtype: type.dtype, shape: type.shape }] : [];
  });
  const [input] = found;
  if (input && found.length === 1) return input;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `The model has ${found.length} inputs with four axes among ${inputs.map(({ name }) => name).join(", ") || "none"}; preprocessing of images expects exactly one.`,
    { inputs: inputs.map(({ name }) => name) },
  );
}

/**
 * A recipe made to fit a model's image input.
 * @param changes what the user wants otherwise
 * @throws PolyheadError INVALID_ARGUMENT for an unknown recipe, a wrong field, or when the result does not fit
 */
export function preprocessingFor(
  model: Model,
  recipe: string,
  changes: PartialPreprocessing = {},
): Preprocessing {
  const { info, dtype, shape } = imageInput(model);
  const preprocessing = preprocessingRecipe(recipe, { ...factsOf(dtype, shape), ...changes });
  const made = inputShape(preprocessing);
  const fits =
    preprocessing.dtype === dtype &&
    shape.every((size, axis) => axis === 0 || typeof size === "string" || size === made[axis]);
  if (fits) return preprocessing;
  const [got, expected] = [`${preprocessing.dtype} ${formatShape(made)}`, `${dtype} ${formatShape(shape)}`];
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `The preprocessing makes ${got}; the model's input ${JSON.stringify(info.name)} takes ${expected}. Change size, layout, colour or dtype.`,
    { input: info.name, got, expected },
  );
}

/** What dtype and shape of an input say about preprocessing; nothing of what they leave open. */
function factsOf(dtype: string, shape: SymbolicShape): PartialPreprocessing {
  const isChannels = (axis: number) => shape[axis] === 1 || shape[axis] === 3;
  const layout = isChannels(3) && !isChannels(1) ? "nhwc" : isChannels(1) ? "nchw" : undefined;
  const [height, width, channels] =
    layout === "nhwc" ? [shape[1], shape[2], shape[3]] : [shape[2], shape[3], shape[1]];
  const known = (["float32", "uint8", "int8", "int32"] as const).find((each) => each === dtype);
  return {
    ...(layout && { layout }),
    ...(layout && channels === 1 && { colour: "grey" as const }),
    ...(layout && typeof height === "number" && { height }),
    ...(layout && typeof width === "number" && { width }),
    ...(known && { dtype: known }),
  };
}
