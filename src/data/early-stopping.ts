/** When training has stopped to become better. A function of what was measured so far; there is no state to keep. */

/** How long to wait for something better. */
export interface Patience {
  /** Measurements without a new best after which training stops. */
  readonly patience: number;
  /** A new best is better than the last by more than this; 0 by default. */
  readonly least?: number;
}

/** What the measurements say. */
export interface Verdict {
  /** Place of the best measurement, the first of equals; -1 when there is none. */
  readonly best: number;
  /** Whether the last measurement is the best. */
  readonly isBest: boolean;
  readonly shouldStop: boolean;
}

/**
 * Judges a training by its quality after each epoch, where more is better. A measurement that is no number is never
 * the best.
 */
export function judgeProgress(qualities: readonly number[], { patience, least = 0 }: Patience): Verdict {
  let best = -1;
  qualities.forEach((quality, at) => {
    const known = qualities[best];
    if (Number.isNaN(quality)) return;
    if (known === undefined || quality > known + least) best = at;
  });
  const last = qualities.length - 1;
  return {
    best,
    isBest: best >= 0 && best === last,
    shouldStop: last - Math.max(best, 0) >= patience && last >= 0,
  };
}
