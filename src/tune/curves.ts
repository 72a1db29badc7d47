/** How a training went, as plots: the loss of each step, and how good it was on what was held back. */
import type { Plot } from "../report/plot.js";

/** What was measured after epochs, and where it begins. */
export interface Judged {
  readonly title: string;
  readonly label: string;
  /** After each epoch; no plot where there are none. */
  readonly values: readonly number[];
  /** Steps in an epoch. */
  readonly perEpoch: number;
  /** Before the first step. */
  readonly start?: number | undefined;
  readonly includes?: readonly number[];
}

/** Both plots; the second only where something was judged. @param losses before each step */
export function trainingCurves(losses: readonly number[], judged: Judged): Plot[] {
  const loss: Plot = {
    title: "Loss",
    x: { label: "step" },
    y: { label: "loss before the step", includes: [0] },
    series: [{ label: "training", points: losses.map((value, at) => [at + 1, value] as const) }],
  };
  const { title, label, values, perEpoch, start, includes = [] } = judged;
  if (values.length === 0) return [loss];
  const first = start === undefined ? [] : [[0, start] as const];
  const points = [...first, ...values.map((value, at) => [(at + 1) * perEpoch, value] as const)];
  const quality: Plot = {
    title,
    x: { label: "step" },
    y: { label, includes },
    series: [{ label: "held back", points, kind: "both" }],
  };
  return [loss, quality];
}
