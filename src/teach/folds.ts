/** Folds of a cross-validation: stratified, seeded and disjoint. */

/** A generator of numbers from 0 up to 1, the same for the same seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let value = Math.imul(state ^ (state >>> 15), 1 | state);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return ((value ^ (value >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * The fold of every example, from 0 to `count` - 1. Each class is shuffled and dealt out one by one, and the next
 * class goes on where the last one ended: folds differ by at most one example, in all and in every class.
 */
export function stratifiedFolds(classes: readonly number[], count: number, seed: number): number[] {
  const random = seededRandom(seed);
  const members = new Map<number, number[]>();
  classes.forEach((each, example) => {
    const list = members.get(each);
    if (list) list.push(example);
    else members.set(each, [example]);
  });
  const folds = Array<number>(classes.length).fill(0);
  let next = 0;
  for (const each of [...members.keys()].sort((a, b) => a - b)) {
    for (const example of shuffled(members.get(each) ?? [], random)) folds[example] = next++ % count;
  }
  return folds;
}

/** Fisher-Yates. */
function shuffled(values: readonly number[], random: () => number): number[] {
  const list = [...values];
  for (let at = list.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1));
    const value = list[at] ?? 0;
    list[at] = list[other] ?? 0;
    list[other] = value;
  }
  return list;
}
