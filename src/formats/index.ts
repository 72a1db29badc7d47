/** Other people's files to ONNX. */

export { ZipFolder } from "../base/zip-folder.js";
export { isHdf5 } from "./hdf5/file.js";
export * from "./layers/index.js";
export { isSafetensors } from "./safetensors.js";
export * from "./tfjs/index.js";
export * from "./torch/index.js";
