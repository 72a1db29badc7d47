/** The engine: models in, routes published, requests answered. */
export type { Answer, RouteAnswer, ShadowAnswer } from "./answer.js";
export type { RunOptions } from "./answering.js";
export * from "./engine.js";
export type { LoadedModel } from "./generation.js";
export type { Binding, Signature } from "./member.js";
export type { Inputs } from "./request.js";
export type { RouteTarget, WeightedRevision } from "./route.js";
export type { SchedulerOptions } from "./scheduler.js";
