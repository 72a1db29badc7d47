/** What feeds training and says when it may stop: data sets, splits, augmentation, batches. */

export * from "./array-set.js";
export * from "./augmentation.js";
export * from "./balance.js";
export * from "./batches.js";
export * from "./coco-file.js";
export * from "./data-set.js";
export * from "./early-stopping.js";
export * from "./folds.js";
export * from "./image-file.js";
export * from "./image-folder.js";
export * from "./image-rows.js";
export * from "./list-file.js";
export * from "./listing.js";
export * from "./mixing.js";
export * from "./rows.js";
export * from "./shapes.js";
export * from "./source.js";
export * from "./voc-folder.js";
