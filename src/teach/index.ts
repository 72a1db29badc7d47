/** Heads from examples: features of images, closed-form classifiers, honest figures. */
export * from "./calibration.js";
export * from "./classifier.js";
export * from "./cross-validation.js";
export * from "./feature-cache.js";
export * from "./features.js";
export * from "./head-model.js";
export * from "./linear-algebra.js";
export * from "./nearest-mean.js";
export * from "./pooling.js";
export * from "./ridge.js";
export * from "./tap-source.js";
export * from "./teach-head.js";
export * from "./teach-images.js";
