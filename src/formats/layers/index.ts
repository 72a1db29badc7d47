/** Models of Keras' layers to ONNX. */
export type { LayersImport, LayersImportOptions } from "./convert.js";
export {
  isTeachableMachine,
  readTeachableMachine,
  type TeachableMachineMetadata,
} from "./teachable-machine.js";
export { importTfjsLayers, isTfjsLayersModel } from "./tfjs.js";
