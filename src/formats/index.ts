/** Other people's files to ONNX. */

export * from "./layers/index.js";
export { isSafetensors } from "./safetensors.js";
export * from "./tfjs/index.js";
export * from "./torch/index.js";
