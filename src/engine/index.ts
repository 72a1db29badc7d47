/** The engine: models in, routes published, requests answered. */
export * from "./engine.js";
export type { Binding } from "./member.js";
export type { Inputs } from "./request.js";
