/**
 * How many rows a batch should have, learnt from how long batches took. Larger ones share what is done once for each
 * batch; but where the values between operators outgrow the processor's caches, they take longer for each row. So
 * sizes double as long as rows get cheaper, and now and then a neighbouring size is tried again.
 */

/** How much the newest measurement counts in what is expected of the next. */
const NEWEST = 0.2;
/** Every so many batches a neighbouring size is tried. */
const TRIAL = 16;
/** A larger size must save so much: answers of small batches are there sooner. */
const WORTH = 0.95;

/** Batches of one kind. */
export class BatchSizes {
  /** Milliseconds for each row, by the size's largest power of two. */
  readonly #paces = new Map<number, number>();
  #turns = 0;

  /** A batch of `rows` took `milliseconds` of its worker, while all workers were busy. */
  learn(rows: number, milliseconds: number): void {
    const size = 2 ** Math.floor(Math.log2(Math.max(1, rows)));
    const pace = milliseconds / rows;
    const before = this.#paces.get(size) ?? pace;
    this.#paces.set(size, before + NEWEST * (pace - before));
  }

  /**
   * Rows that the next batch may have.
   * @param rows at most
   * @param milliseconds that a batch of several rows should take at most
   */
  next(rows: number, milliseconds: number): number {
    const best = this.#best();
    const pace = this.#paces.get(best);
    if (pace === undefined) return 1; // the first one is a measurement
    const isAllowed = (size: number) =>
      size === 1 || (size <= rows && size * (this.#paces.get(size) ?? pace) <= milliseconds);
    const larger = best * 2;
    if (!this.#paces.has(larger) && isAllowed(larger)) return larger;
    const turn = ++this.#turns;
    const trial = turn % (2 * TRIAL) === 0 ? best / 2 : turn % TRIAL === 0 ? larger : best;
    if (trial >= 1 && isAllowed(trial)) return trial;
    return isAllowed(best) ? best : Math.max(1, Math.min(rows, Math.floor(milliseconds / pace)));
  }

  /** The smallest size that no larger one betters by what is worth it. */
  #best(): number {
    let best = 1;
    let least = Number.POSITIVE_INFINITY;
    for (const [size, pace] of [...this.#paces].sort(([a], [b]) => a - b)) {
      if (pace >= least * WORTH) continue;
      [best, least] = [size, pace];
    }
    return best;
  }
}
