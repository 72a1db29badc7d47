/** Other people's files to ONNX. */

export * from "./layers/index.js";
export * from "./tfjs/index.js";
