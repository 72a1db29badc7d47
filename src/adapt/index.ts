/** Heads on features that they were not made for: adapters, fitted in closed form or trained, and judged by what the head makes of them. */
export * from "./adapt-head.js";
export * from "./adapt-images.js";
export * from "./adapt-places.js";
export * from "./adapter-model.js";
export * from "./affine.js";
export * from "./agreement.js";
export * from "./feature-map.js";
export * from "./fit-options.js";
export * from "./fold.js";
export * from "./head-reading.js";
export * from "./judgement.js";
export * from "./ladder.js";
export * from "./sources.js";
export * from "./through-adapter.js";
export * from "./upgrade.js";
