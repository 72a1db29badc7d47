/** Random numbers that are the same for the same seed, on every machine. Not for secrets. */

/** Gives numbers from 0 up to 1. */
export type Random = () => number;

/** A generator of numbers from 0 up to 1, the same for the same seed (mulberry32). */
export function seededRandom(seed: number): Random {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    return finalised(state) / 2 ** 32;
  };
}

/**
 * One 32-bit seed from several whole numbers, such as a seed, an epoch and an example: close numbers give unrelated
 * seeds, so that what is drawn for an example depends on nothing that was drawn before.
 */
export function combinedSeed(...numbers: readonly number[]): number {
  let hash = 0x9e3779b9;
  for (const number of numbers) {
    const high = Math.floor(number / 2 ** 32);
    for (const half of [number | 0, high | 0]) hash = finalised((Math.imul(hash, 31) + half) | 0) | 0;
  }
  return hash;
}

/** The values in a random order (Fisher-Yates). */
export function shuffled<Value>(values: Iterable<Value>, random: Random): Value[] {
  const list = [...values];
  for (let at = list.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1));
    [list[at], list[other]] = [list[other] as Value, list[at] as Value];
  }
  return list;
}

/** A number from `low` up to `high`. */
export function between(random: Random, low: number, high: number): number {
  return low + (high - low) * random();
}

/** A normally distributed number with mean 0 and deviation 1 (Box-Muller). */
export function gaussian(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** The finalising steps of mulberry32, from 0 to 2^32 - 1. */
function finalised(state: number): number {
  let value = Math.imul(state ^ (state >>> 15), 1 | state);
  value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
  return (value ^ (value >>> 14)) >>> 0;
}
