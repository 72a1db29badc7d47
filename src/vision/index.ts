/** Images in, preprocessing, decoding of results, metrics and pictures of results. */
export * from "./average-precision.js";
export * from "./centre-head.js";
export * from "./classes.js";
export * from "./classification.js";
export * from "./classification-quality.js";
export * from "./coco.js";
export * from "./decoding.js";
export * from "./detections.js";
export * from "./draw.js";
export * from "./image.js";
export * from "./metrics.js";
export * from "./model-input.js";
export * from "./placement.js";
export * from "./preprocessing.js";
