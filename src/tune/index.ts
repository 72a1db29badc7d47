/** The ways to train, from examples to models that say how good they are. */
export * from "./choice.js";
export * from "./depths.js";
export * from "./detect/tune-detector.js";
export * from "./examples.js";
export * from "./fit.js";
export * from "./head-network.js";
export * from "./judge.js";
export * from "./learner.js";
export * from "./network.js";
export * from "./other-heads.js";
export * from "./result.js";
export * from "./rows.js";
export * from "./scores.js";
export * from "./site.js";
export * from "./train-head.js";
export * from "./tune-images.js";
export * from "./tune-report.js";
