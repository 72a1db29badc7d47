/** Other people's files to ONNX. */
export * from "./tfjs/index.js";
