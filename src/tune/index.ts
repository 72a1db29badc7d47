/** The ways to train, from examples to models that say how good they are. */

export * from "./detect/tune-detector.js";
export * from "./fit.js";
