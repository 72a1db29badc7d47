/** Dtypes, shapes, tensors and NumPy's array files. */
export * from "./dtype.js";
export * from "./npy.js";
export * from "./npz.js";
export * from "./rows.js";
export * from "./shape.js";
export * from "./tensor.js";
