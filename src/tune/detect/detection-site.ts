/**
 * Where a detection head is trained: a backbone in evaluation mode, the maps that the head reads, and how images come in.
 * Maps are [batch, channels, height, width], each a whole number of times smaller than the model's input.
 */
import { PolyheadError } from "../../base/errors.js";
import { toEvaluation } from "../../onnx/evaluation.js";
import { GraphIndex } from "../../onnx/graph.js";
import { identify } from "../../onnx/identity.js";
import { inlined } from "../../onnx/inline.js";
import { readMetadata, type Tap } from "../../onnx/metadata.js";
import type { Model } from "../../onnx/model.js";
import { inferTypes } from "../../onnx/shapes.js";
import { formatShape, isConcrete, type Shape } from "../../tensor/shape.js";
import { bindShapes } from "../../train/bind-shapes.js";
import { imageInput, preprocessingFor } from "../../vision/model-input.js";
import { inputShape, type Preprocessing } from "../../vision/preprocessing.js";

/** A map that the head reads. */
export interface MapTap {
  readonly tap: Tap;
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  /** Pixels of the model's input that a cell is wide and high. */
  readonly stride: number;
}

/** A backbone and its maps, the finest first. */
export interface DetectionSite {
  readonly model: Model;
  /** The image. */
  readonly input: string;
  readonly maps: readonly [MapTap, ...MapTap[]];
  readonly preprocessing: Preprocessing;
  readonly notes: readonly string[];
}

/**
 * Looks at a model.
 * @param taps names of values; by default all taps, or outputs, that are maps
 * @param preprocess recipe or JSON record, where the model does not say it itself
 * @throws PolyheadError NOT_FOUND for a value that the model does not compute; MODEL_UNSUPPORTED for a value that is no
 *   map, maps whose sizes do not go together, or several inputs; as `preprocessingFor` does
 */
export async function detectionSite(
  given: Model,
  taps: readonly string[] = [],
  preprocess?: string,
): Promise<DetectionSite> {
  const { model: evaluation, notes } = toEvaluation(given);
  const model = inlined(evaluation);
  const preprocessing = preprocessingFor(model, preprocess);
  const { name: input } = imageInput(model);
  const types = inferTypes(model);
  const sized = inferTypes(bindShapes(model, new Map([[input, inputShape(preprocessing)]])));
  const identities = await identify(model);
  const index = new GraphIndex(model.graph);
  const offered = readMetadata(model).taps?.map(({ name }) => name) ?? index.outputNames;
  const find = (name: string): MapTap | string => {
    const type = types.get(name);
    const shape = sized.get(name)?.shape;
    const identity = identities.get(name);
    if (!index.producers.has(name) || !identity || !type) return "it is no value that the model computes";
    if (type.dtype !== "float32" || !shape || !isConcrete(shape) || shape.length !== 4) {
      return `it is ${type.dtype} ${shape ? formatShape(shape) : "of unknown shape"}; expected float32 [batch, channels, height, width]`;
    }
    const stride = strideOf(shape, preprocessing);
    if (stride === undefined) {
      return `it is ${formatShape(shape)} for an input of ${preprocessing.height} x ${preprocessing.width}; expected sides of which the input's are one whole multiple`;
    }
    const [, channels = 1, height = 1, width = 1] = shape;
    const open = ["batch", channels, ...(type.shape?.slice(2) ?? [height, width])];
    return { tap: { name, dtype: "float32", shape: open, identity }, channels, height, width, stride };
  };
  const wanted = taps.length > 0 ? taps : offered;
  const found = wanted.map((name) => ({ name, map: find(name) }));
  const refused = found.flatMap(({ name, map }) => (typeof map === "string" ? [{ name, reason: map }] : []));
  const [first] = refused;
  const maps = found.flatMap(({ map }) => (typeof map === "string" ? [] : [map]));
  const [finest, ...others] = maps.toSorted((a, b) => a.stride - b.stride);
  if (first && (taps.length > 0 || !finest)) {
    throw new PolyheadError(
      index.producers.has(first.name) ? "MODEL_UNSUPPORTED" : "NOT_FOUND",
      `A detection head cannot read ${JSON.stringify(first.name)}: ${first.reason}. Name maps with --tap; \`polyhead inspect\` shows values.`,
      { tap: first.name, expected: offered },
    );
  }
  if (!finest) throw new PolyheadError("MODEL_UNSUPPORTED", "The model has no tap and no output.", {});
  const odd = others.find(({ stride }) => stride % finest.stride !== 0);
  if (odd) {
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `The maps ${JSON.stringify(finest.tap.name)} and ${JSON.stringify(odd.tap.name)} have strides ${finest.stride} and ${odd.stride}; expected one to be a whole multiple of the other.`,
      { strides: maps.map(({ stride }) => stride) },
    );
  }
  return { model, input, maps: [finest, ...others], preprocessing, notes };
}

function strideOf([, , height = 0, width = 0]: Shape, input: Preprocessing): number | undefined {
  const stride = input.height / height;
  return Number.isInteger(stride) && input.width / width === stride ? stride : undefined;
}
