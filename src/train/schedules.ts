/** Learning rates over time. */

/** How the rate goes from the first step to the last. */
export interface Schedule {
  /** `constant` by default; `cosine` falls to `end` by half a cosine, `step` falls at each of `milestones`. */
  readonly kind?: "constant" | "cosine" | "step";
  /** Steps over which the rate rises evenly from nothing to its full height; 0 by default. */
  readonly warmup?: number;
  /** Share of the rate at the end of `cosine`; 0 by default. */
  readonly end?: number;
  /** Steps after which `step` multiplies by `factor`. */
  readonly milestones?: readonly number[];
  /** 0.1 by default. */
  readonly factor?: number;
}

/** Names of all schedules. */
export const SCHEDULE_KINDS = ["constant", "cosine", "step"] as const;

/**
 * The factor of the rate in a step.
 * @param step from 0
 * @param steps how many there will be
 */
export function rateFactor(schedule: Schedule, step: number, steps: number): number {
  const { kind = "constant", warmup = 0, end = 0, milestones = [], factor = 0.1 } = schedule;
  if (step < warmup) return (step + 1) / warmup;
  if (kind === "step") return factor ** milestones.filter((milestone) => step >= milestone).length;
  if (kind === "constant") return 1;
  const part = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
  return end + (1 - end) * 0.5 * (1 + Math.cos(Math.PI * part));
}
