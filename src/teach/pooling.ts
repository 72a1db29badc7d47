/**
 * One vector from a tap of any usual shape: the mean over everything but batch and channels. The same axes are
 * used when features are computed and in the head's graph.
 */
import { PolyheadError } from "../base/errors.js";
import type { Shape, SymbolicShape } from "../tensor/shape.js";
import { formatShape } from "../tensor/shape.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";

/** Where a tap has its channels: directly after the batch, or at the end. */
export type ChannelPlace = "first" | "last";

/** How a tap becomes a vector. */
export interface Pooling {
  /** Axes to take the mean over, ascending; none for a tap that is a vector. */
  readonly axes: readonly number[];
  /** Length of the vector. */
  readonly channels: number;
}

/**
 * How a tap of this shape is pooled. [N,C] is taken as it is; [N,T,C] (tokens) has its channels last; of rank 4,
 * the two equal sizes are height and width, and where that does not tell, `fallback` does.
 * @param given overrides all of this
 * @throws PolyheadError MODEL_UNSUPPORTED for other ranks and for channels of unknown number
 */
export function poolingOf(
  shape: SymbolicShape,
  given?: ChannelPlace,
  fallback: ChannelPlace = "first",
): Pooling {
  const rank = shape.length;
  const place = given ?? (rank === 4 ? (squareSays(shape) ?? fallback) : "last");
  const channelAxis = place === "first" ? 1 : rank - 1;
  const channels = shape[channelAxis];
  if (rank < 2 || rank > 4 || typeof channels !== "number" || channels < 1) {
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `A head is taught on a tap of shape [N,C], [N,T,C], [N,C,H,W] or [N,H,W,C]; this one is ${formatShape(shape)}. Choose another tap.`,
      { got: shape },
    );
  }
  const axes = [...shape.keys()].filter((axis) => axis !== 0 && axis !== channelAxis);
  return { axes, channels };
}

function squareSays([, second, third, fourth]: SymbolicShape): ChannelPlace | undefined {
  const isFirst = third === fourth && second !== third;
  const isLast = second === third && third !== fourth;
  if (isFirst) return "first";
  return isLast ? "last" : undefined;
}

/** The vector of a tap's only row, in float32. */
export function pooled(value: Tensor, { axes, channels }: Pooling): Float32Array {
  const numbers = toNumbers(value);
  const area = numbers.length / channels;
  const isLast = axes.length === 0 || axes[0] === 1;
  const sums = new Float64Array(channels);
  numbers.forEach((number, at) => {
    const channel = isLast ? at % channels : Math.floor(at / area);
    sums[channel] = (sums[channel] ?? 0) + number / area;
  });
  return Float32Array.from(sums);
}

/** A tap's shape for any batch. */
export function batchShape(shape: Shape): SymbolicShape {
  return ["batch", ...shape.slice(1)];
}
