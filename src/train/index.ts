/** Training: differentiation of ONNX graphs, losses, optimisers, steps. */

export * from "./array-batches.js";
export * from "./autodiff/differentiate.js";
export * from "./batch-norms.js";
export * from "./bind-shapes.js";
export * from "./gradients.js";
export * from "./initial.js";
export * from "./losses.js";
export * from "./network.js";
export * from "./optimizers.js";
export * from "./parameter-rules.js";
export * from "./parameters.js";
export * from "./schedules.js";
export * from "./step-model.js";
export * from "./targets.js";
export * from "./train-batches.js";
export * from "./trainer.js";
export * from "./training-model.js";
export * from "./updates.js";
