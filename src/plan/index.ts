/** Which way to a head: told from the graphs, measured on images, recommended by a stated rule. */
export * from "./measure-ways.js";
export * from "./measured.js";
export * from "./reasoning.js";
export * from "./request-cost.js";
export * from "./way-to-try.js";
export * from "./ways-plot.js";
