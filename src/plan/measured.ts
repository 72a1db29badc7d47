/** What measuring a way to a head found, and the rule by which one is recommended. */
import type { Share } from "../adapt/agreement.js";
import type { Model } from "../onnx/model.js";
import type { Way } from "./reasoning.js";
import type { RequestCost } from "./request-cost.js";

/** One way, measured. */
export interface Measured {
  readonly way: Way;
  /** A word or two that tell it from the others. */
  readonly name: string;
  /** What was done, in a few words. */
  readonly how: string;
  /**
   * Accuracy where the images' classes are known, else agreement with the head on its own backbone; a share of images with
   * its interval of 95 %.
   */
  readonly quality: Share;
  readonly measure: "accuracy" | "agreement";
  /** What it was judged on, in words. */
  readonly judgedOn: string;
  /** Of a request, see {@link RequestCost}. */
  readonly milliseconds: RequestCost;
  /** Bytes of the files that it adds. */
  readonly bytes: number;
  /** Seconds to make, features included. */
  readonly seconds: number;
  /** What it was made of, in words. */
  readonly data: string;
  /** What happens to the other heads. */
  readonly others: string;
  /** The line that does it. */
  readonly command: string;
}

/** A way with the models that it made, ready to be written. */
export interface MadeWay extends Measured {
  /** What is written, by the name of its file; the head comes last. */
  readonly files: ReadonlyMap<string, Model>;
}

/** Why a way was not measured. */
export interface Skipped {
  readonly way: Way;
  readonly how: string;
  readonly why: string;
  /** About how long it would take; where there was no time for it. */
  readonly estimatedSeconds?: number | undefined;
}

/**
 * The rule: of the ways that are measured alike, the first, from the one that changes least to the one that changes most,
 * whose quality is not below the interval of the best. Accuracy goes before agreement, as agreement with a head that is
 * wrong is worth nothing; by agreement alone a way has to reach the floor.
 * @param ways in the order swap, adapt, tune
 */
export function recommended<Each extends Measured>(ways: readonly Each[], floor: number): Each | undefined {
  const byAccuracy = ways.filter(({ measure }) => measure === "accuracy");
  if (byAccuracy.length > 0) {
    const best = byAccuracy.reduce((a, b) => (b.quality.value > a.quality.value ? b : a));
    return byAccuracy.find(({ quality }) => quality.value >= best.quality.low);
  }
  return ways.find(({ quality }) => quality.value >= floor);
}
