/** ONNX models as data: read, write, identify, split, join, share. */

export * from "./batch.js";
export * from "./canonical.js";
export * from "./constant.js";
export * from "./cost.js";
export * from "./cuts.js";
export * from "./evaluation.js";
export * from "./extract.js";
export * from "./graph.js";
export * from "./identity.js";
export * from "./join.js";
export * from "./merge.js";
export * from "./metadata.js";
export * from "./model.js";
export * from "./partition.js";
export * from "./read.js";
export * from "./revision.js";
export * from "./runner.js";
export * from "./samples.js";
export * from "./segment-model.js";
export * from "./shapes.js";
export * from "./share.js";
export * from "./split.js";
export * from "./template.js";
export * from "./verify.js";
export * from "./weight.js";
export * from "./write.js";
