/**
 * What the proofs of this folder need to compute with a model: something that opens it and runs it. Whoever has
 * a runtime passes one in; nothing here knows which.
 */
import type { Tensor } from "../tensor/tensor.js";
import type { Model } from "./model.js";

/** How hard the runtime may rewrite a graph before it runs it; `off` computes node by node as the file says. */
export type Optimisation = "off" | "basic" | "all";

/** A model ready to run. */
export interface OpenedModel {
  /**
   * All outputs by name.
   * @throws PolyheadError INPUT_MISMATCH, RUN_FAILED
   */
  run(inputs: ReadonlyMap<string, Tensor>): Promise<ReadonlyMap<string, Tensor>>;
  /** Frees it; called once. */
  close(): Promise<void>;
}

/**
 * Opens models.
 * @throws PolyheadError LOAD_FAILED
 */
export type OpenModel = (model: Model, optimisation: Optimisation) => Promise<OpenedModel>;
