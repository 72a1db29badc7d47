/** Models of Keras' layers to ONNX. */
export type { LayersImport, LayersImportOptions } from "./convert.js";
export { importTfjsLayers, isTfjsLayersModel } from "./tfjs.js";
