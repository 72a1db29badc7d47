/** PyTorch's files to ONNX. */
export type { Architecture, LayerEntry } from "./architecture.js";
export { type TorchKind, torchKind } from "./container.js";
export { importSafetensors, importTorch, type TorchImport, type TorchImportOptions } from "./import.js";
