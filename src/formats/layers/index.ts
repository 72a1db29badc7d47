/** Models of Keras' layers to ONNX. */
export type { LayersImport, LayersImportOptions } from "./convert.js";
export { importKerasArchive, importKerasHdf5 } from "./keras.js";
export {
  isTeachableMachine,
  readTeachableMachine,
  type TeachableMachineMetadata,
} from "./teachable-machine.js";
export { importTfjsLayers, isTfjsLayersModel } from "./tfjs.js";
