/** ONNX models as data: read, write, identify. */
export * from "./constant.js";
export * from "./graph.js";
export * from "./identity.js";
export * from "./model.js";
export * from "./read.js";
export * from "./shapes.js";
export * from "./weight.js";
export * from "./write.js";
