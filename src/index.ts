/** Polyhead: one backbone, many heads, switched live. */
export * from "./base/errors.js";
export * from "./base/folder.js";
