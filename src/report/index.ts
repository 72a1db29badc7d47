/** Plots and reports that need nothing from outside. */
export * from "./html.js";
export * from "./picture.js";
export * from "./plot.js";
export * from "./training-report.js";
