/** TF.js models to ONNX. */
export { isTfjsGraphModel } from "./artifact.js";
export { importTfjsGraph, type TfjsImport, type TfjsImportOptions } from "./import.js";
