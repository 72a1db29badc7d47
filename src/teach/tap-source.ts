/** The part of a backbone that computes one tap from an image. */
import { PolyheadError } from "../base/errors.js";
import { extract } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import { type Identity, identify } from "../onnx/identity.js";
import { readMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import type { DType } from "../tensor/dtype.js";
import { imageInput } from "../vision/model-input.js";

/** Names and model of one tap. */
export interface TapSource {
  /** Computes the tap and nothing else. */
  readonly model: Model;
  readonly input: string;
  readonly tap: string;
  readonly dtype: DType;
  readonly identity: Identity;
}

/**
 * The part of a model that computes a tap.
 * @param tap any value the model computes; may be left out where it has one tap or output only
 * @throws PolyheadError NOT_FOUND with the taps there are; INVALID_ARGUMENT when there are several and none is
 *   named; CUT_INVALID when the value's dtype cannot be told; MODEL_UNSUPPORTED for several inputs
 */
export async function tapSource(model: Model, tap?: string): Promise<TapSource> {
  const index = new GraphIndex(model.graph);
  const { name: input } = imageInput(model);
  const taps = readMetadata(model).taps?.map(({ name }) => name) ?? index.outputNames;
  const wanted = tap ?? (taps.length === 1 ? taps[0] : undefined);
  const listed = taps.map((name) => JSON.stringify(name)).join(", ");
  if (wanted === undefined) {
    throw new PolyheadError("INVALID_ARGUMENT", `The backbone has the taps ${listed}; name one with --tap.`, {
      expected: taps,
    });
  }
  if (!index.producers.has(wanted)) {
    throw new PolyheadError(
      "NOT_FOUND",
      `The backbone computes no value ${JSON.stringify(wanted)}; its taps are ${listed}. Any other value of its graph can be named too, see \`polyhead inspect\`.`,
      { got: wanted, expected: taps },
    );
  }
  const types = inferTypes(model);
  const part = extract(model, index, [input], [wanted], types);
  const identity = (await identify(model)).get(wanted);
  const dtype = types.get(wanted)?.dtype;
  if (identity === undefined || dtype === undefined) {
    throw new PolyheadError("CUT_INVALID", `The type of ${JSON.stringify(wanted)} is not known.`, {
      value: wanted,
    });
  }
  return { model: part, input, tap: wanted, dtype, identity };
}
