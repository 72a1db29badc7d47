/**
 * What layers over images have in common: where channels and spatial axes stand, and how the value is stored.
 * Images whose channels are last are stored channels first, so that no transpose stands around a convolution.
 */
import type { Dimension, SymbolicShape } from "../../../tensor/shape.js";
import { malformed } from "../../tfjs/json.js";
import { unsupported } from "../../tfjs/unsupported.js";
import { size, type Value } from "../../tfjs/value.js";
import type { LayerCall } from "../rule.js";

/** An image with any number of spatial axes. */
export interface Image {
  /** The image with its channels stored behind the batch. */
  readonly value: Value;
  readonly batch: Dimension;
  readonly spatial: SymbolicShape;
  readonly channels: Dimension;
  /** Places of the spatial axes. */
  readonly axes: readonly number[];
  /** Type of an image of other sizes that stands as this one does. */
  readonly typed: (spatial: SymbolicShape, channels: Dimension) => Pick<Value, "dtype" | "shape" | "layout">;
}

/**
 * Understands a value as an image.
 * @param rank number of spatial axes
 * @throws PolyheadError MODEL_MALFORMED for values of another rank
 */
export function imageOf(call: LayerCall, given: Value, rank: number): Image {
  if (given.shape.length !== rank + 2) {
    throw malformed(`The layer is given a value of rank ${given.shape.length}; expected ${rank + 2}.`, {
      rank: given.shape.length,
      expected: rank + 2,
    });
  }
  const isFirst = call.config.isChannelsFirst;
  const value = isFirst ? call.builder.plain(given) : call.builder.channelsFirst(given);
  const batch = size(given, 0);
  const { dtype, layout } = value;
  return {
    value,
    batch,
    spatial: isFirst ? given.shape.slice(2) : given.shape.slice(1, -1),
    channels: size(given, isFirst ? 1 : -1),
    axes: Array.from({ length: rank }, (_, axis) => axis + (isFirst ? 2 : 1)),
    typed: (spatial, channels) => ({
      dtype,
      shape: isFirst ? [batch, channels, ...spatial] : [batch, ...spatial, channels],
      layout,
    }),
  };
}

/**
 * The number of an image's channels.
 * @throws PolyheadError MODEL_UNSUPPORTED when it is open
 */
export function channelCount(image: Image): number {
  if (typeof image.channels === "number" && image.channels > 0) return image.channels;
  throw unsupported("an image whose number of channels is open");
}
