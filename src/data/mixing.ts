/**
 * Mixing of the images of a batch with each other, and of their classes in the same proportion: mixup (Zhang et al.
 * 2018) adds two images, CutMix (Yun et al. 2019) puts a rectangle of one into the other.
 */
import { between, gaussian, type Random, shuffled } from "../base/random.js";
import { float32, type Tensor } from "../tensor/tensor.js";
import type { Collate } from "./batches.js";

/** How a batch is mixed. */
export interface Mixing {
  /** Parameter of the beta distribution that mixup's proportion is drawn from; 0 for no mixup. */
  readonly mixup: number;
  /** Likewise for CutMix; where both are above 0, each batch has the one or the other. */
  readonly cutmix: number;
  /** Where pixels lie in a row. */
  readonly layout: "nchw" | "nhwc";
}

/**
 * Mixes float32 batches of images; `y` becomes the share of every class, float32 [examples, classes]. Each image is
 * mixed with another of its batch, all in one proportion.
 */
export function mixedClasses(classes: number, mixing: Mixing): Collate<number, Tensor> {
  return (x, targets, random) => {
    const partners = shuffled(targets.keys(), random);
    const { mixup, cutmix } = mixing;
    const cuts = cutmix > 0 && (mixup === 0 || random() < 0.5);
    const alpha = cuts ? cutmix : mixup;
    const drawn = alpha > 0 ? beta(alpha, random) : 1;
    const { values, share } = cuts
      ? cutTogether(x, partners, drawn, mixing.layout, random)
      : { values: addTogether(x, partners, drawn), share: drawn };
    const y = new Float32Array(targets.length * classes);
    targets.forEach((own, row) => {
      const other = targets[partners[row] ?? 0] ?? 0;
      y[row * classes + own] = (y[row * classes + own] ?? 0) + share;
      y[row * classes + other] = (y[row * classes + other] ?? 0) + 1 - share;
    });
    return { x: float32(x.shape, values), y: float32([targets.length, classes], y) };
  };
}

function addTogether(x: Tensor, partners: readonly number[], share: number): Float32Array {
  const from = x.data as Float32Array;
  const width = from.length / partners.length;
  return Float32Array.from(from, (value, at) => {
    const row = Math.floor(at / width);
    const other = from[(partners[row] ?? 0) * width + (at % width)] ?? 0;
    return share * value + (1 - share) * other;
  });
}

/** A rectangle of 1 - `wanted` of the area, its middle anywhere; what the edge cuts off counts in the share. */
function cutTogether(
  x: Tensor,
  partners: readonly number[],
  wanted: number,
  layout: Mixing["layout"],
  random: Random,
): { values: Float32Array; share: number } {
  const [, a = 1, b = 1, c = 1] = x.shape;
  const [channels, height, width] = layout === "nchw" ? [a, b, c] : [c, a, b];
  const side = Math.sqrt(1 - wanted);
  const range = (size: number): readonly [number, number] => {
    const middle = between(random, 0, size);
    const half = (side * size) / 2;
    return [Math.max(0, Math.round(middle - half)), Math.min(size, Math.round(middle + half))];
  };
  const [left, right] = range(width);
  const [top, bottom] = range(height);
  const from = x.data as Float32Array;
  const values = from.slice();
  const size = channels * height * width;
  partners.forEach((partner, row) => {
    for (let y = top; y < bottom; y++) {
      for (let at = left; at < right; at++) {
        for (let channel = 0; channel < channels; channel++) {
          const place =
            layout === "nchw" ? (channel * height + y) * width + at : (y * width + at) * channels + channel;
          values[row * size + place] = from[partner * size + place] ?? 0;
        }
      }
    }
  });
  return { values, share: 1 - ((right - left) * (bottom - top)) / (width * height) };
}

/** Beta(alpha, alpha), by two gamma variates. */
function beta(alpha: number, random: Random): number {
  const [first, second] = [gamma(alpha, random), gamma(alpha, random)];
  // For very small alpha both can underflow; the distribution then has its mass at the ends.
  return first + second > 0 ? first / (first + second) : Math.round(random());
}

/** Gamma(shape, 1) after Marsaglia and Tsang (2000), with their boost for shapes below 1. */
function gamma(shape: number, random: Random): number {
  if (shape < 1) return gamma(shape + 1, random) * (1 - random()) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const normal = gaussian(random);
    const v = (1 + c * normal) ** 3;
    if (v > 0 && Math.log(1 - random()) < normal ** 2 / 2 + d - d * v + d * Math.log(v)) return d * v;
  }
}
