/** How maps are fitted and chosen: the same for vectors and for feature maps, for features and for folders of images. */
import type { OpenModel } from "../onnx/runner.js";
import type { Runtime } from "../runtime/runtime.js";
import type { RungName } from "./ladder.js";

/** What an adapter that is trained through the head is made of. */
export const ADAPTER_SHAPES = ["linear", "relu", "residual"] as const;

/**
 * `linear`: one layer. `relu`: one layer and a rectifier. `residual`: what the best fitted map makes, and a hidden layer
 * beside it.
 */
export type AdapterShape = (typeof ADAPTER_SHAPES)[number];

/** What learns from classes. */
export const LEARNERS = ["adapter", "both"] as const;

/** `adapter`: the adapter alone, through the frozen head. `both`: after that, adapter and head together. */
export type Learning = (typeof LEARNERS)[number];

/** Settings of the ladder and of what is enough. */
export interface FitOptions {
  readonly open: OpenModel;
  /** Opens a runtime of one worker, on which rungs are trained; without it all are fitted in closed form. */
  readonly openTrainer?: (() => Promise<Runtime>) | undefined;
  /** Rungs to try; all by default. */
  readonly rungs?: readonly RungName[] | undefined;
  /** What learns from the classes; nothing by default. */
  readonly learn?: Learning | undefined;
  /** Of an adapter that is trained through the head; `linear` by default. */
  readonly shape?: AdapterShape | undefined;
  /** Width of hidden layers; 64 by default. */
  readonly hidden?: number | undefined;
  /** Parts of the cross-validation; 5 by default. */
  readonly folds?: number | undefined;
  readonly seed?: number | undefined;
  /** Share of the head's quality that has to be kept; 0.9 by default. */
  readonly floor?: number | undefined;
  /** Standard errors by which a smaller map or a cheaper tap may do worse than the best; 1 by default. */
  readonly slack?: number | undefined;
}

/** These settings alone, out of options that have more. */
export function fitOptionsOf(options: FitOptions): FitOptions {
  const { open, openTrainer, rungs, learn, shape, hidden, folds, seed, floor, slack } = options;
  return { open, openTrainer, rungs, learn, shape, hidden, folds, seed, floor, slack };
}
