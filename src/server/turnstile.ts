/**
 * Lets only so many through at once, first come first served, and turns away whom the line is too long for. For work
 * that takes memory before it can be queued: the pixels of images that are being decoded.
 */
import { PolyheadError } from "../base/errors.js";

/** A bounded number of tasks at once, and a bounded line. */
export class Turnstile {
  readonly #places: number;
  readonly #line: number;
  readonly #waiting: (() => void)[] = [];
  #inside = 0;

  /**
   * @param places tasks at once
   * @param line tasks that may wait
   */
  constructor(places: number, line: number) {
    this.#places = places;
    this.#line = line;
  }

  /** @throws PolyheadError OVERLOADED when whoever came now would be turned away */
  admit(): void {
    if (this.#inside < this.#places || this.#waiting.length < this.#line) return;
    throw new PolyheadError(
      "OVERLOADED",
      `${this.#waiting.length} images wait to be decoded, which is the limit; try again in 1 s.`,
      { limit: this.#line, retryAfter: 1 },
    );
  }

  /**
   * Does the task when its turn comes; not at all when the signal was aborted by then.
   * @throws PolyheadError OVERLOADED, ABORTED, and what the task throws
   */
  async pass<T>(task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    this.admit();
    if (this.#inside < this.#places) this.#inside++;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve)); // takes over the place of who leaves
    try {
      if (signal?.aborted) throw new PolyheadError("ABORTED", "The caller gave up before its turn came.", {});
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#inside--;
    }
  }
}
