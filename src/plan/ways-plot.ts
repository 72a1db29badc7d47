/** Quality against what a request costs, one point a way, with the interval of its quality. */
import type { Plot } from "../report/plot.js";
import type { Measured } from "./measured.js";

/** The plot of what was measured. */
export function waysPlot(ways: readonly Measured[]): Plot {
  return {
    title: "Ways to the head",
    x: { label: "milliseconds of a request alone", includes: [0] },
    y: { label: "accuracy or agreement, %" },
    width: 720,
    height: 400,
    series: [
      {
        label: "ways",
        kind: "points",
        points: ways.map(({ milliseconds, quality }) => [milliseconds.alone, 100 * quality.value] as const),
        names: ways.map(({ name, measure }) => (measure === "accuracy" ? name : `${name} (${measure})`)),
        intervals: ways.map(({ quality }) => [100 * quality.low, 100 * quality.high] as const),
      },
    ],
  };
}
