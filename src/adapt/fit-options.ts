/** How maps are fitted and chosen: the same for vectors and for feature maps, for features and for folders of images. */
import type { OpenModel } from "../onnx/runner.js";
import type { RungName } from "./ladder.js";

/** Settings of the ladder and of what is enough. */
export interface FitOptions {
  readonly open: OpenModel;
  /** Rungs to try; all by default. */
  readonly rungs?: readonly RungName[] | undefined;
  /** Parts of the cross-validation; 5 by default. */
  readonly folds?: number | undefined;
  readonly seed?: number | undefined;
  /** Share of the head's quality that has to be kept; 0.9 by default. */
  readonly floor?: number | undefined;
  /** Standard errors by which a smaller map or a cheaper tap may do worse than the best; 1 by default. */
  readonly slack?: number | undefined;
}

/** These settings alone, out of options that have more. */
export function fitOptionsOf({ open, rungs, folds, seed, floor, slack }: FitOptions): FitOptions {
  return { open, rungs, folds, seed, floor, slack };
}
