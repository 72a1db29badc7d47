/**
 * Parts of a data set: folds of a cross-validation, and what is held back from training. Stratified, seeded and
 * disjoint; copies of one image stay together, because an answer that was seen in training judges nothing.
 */
import { PolyheadError } from "../base/errors.js";
import { type Random, seededRandom, shuffled } from "../base/random.js";

/**
 * The fold of every example, from 0 to `count` - 1. Each class is shuffled and dealt out one by one, and the next
 * class goes on where the last one ended: folds differ by at most one example, in all and in every class.
 * @param classes class of each example
 * @param groups examples with the same group (the digest of an image, say) get the same fold, that of the first of
 *   them; by default every example is a group of its own. Groups of several examples make folds less even.
 */
export function stratifiedFolds(
  classes: readonly number[],
  count: number,
  seed: number,
  groups?: readonly unknown[],
): number[] {
  const folds = Array<number>(classes.length).fill(0);
  let next = 0;
  for (const members of stratifiedGroups(classes, groups, seededRandom(seed)).flat()) {
    for (const example of members) folds[example] = next % count;
    next++;
  }
  return folds;
}

/** Examples to learn from, and examples that are held back to judge by; each in rising order. */
export interface Split {
  readonly training: readonly number[];
  readonly validation: readonly number[];
}

/**
 * Holds back a share of every class: as near to `share` as whole groups allow, at least one group of each class that
 * has two, and never the last one.
 * @param share from 0 to below 1
 * @throws PolyheadError INVALID_ARGUMENT for another share
 */
export function stratifiedSplit(
  classes: readonly number[],
  share: number,
  seed: number,
  groups?: readonly unknown[],
): Split {
  if (!(share >= 0 && share < 1)) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Got ${share} as the share to hold back; expected a number from 0 to below 1, such as 0.2.`,
      { got: share },
    );
  }
  const validation: number[] = [];
  for (const ofClass of stratifiedGroups(classes, groups, seededRandom(seed))) {
    const wanted = Math.round(share * ofClass.length);
    const held = share === 0 ? 0 : Math.min(ofClass.length - 1, Math.max(1, wanted));
    validation.push(...ofClass.slice(0, held).flat());
  }
  const isHeld = new Set(validation);
  return {
    training: [...classes.keys()].filter((example) => !isHeld.has(example)),
    validation: validation.sort((a, b) => a - b),
  };
}

/** By class: groups of examples in random order. A group belongs to the class of its first example. */
function stratifiedGroups(
  classes: readonly number[],
  groups: readonly unknown[] | undefined,
  random: Random,
): number[][][] {
  const members = new Map<unknown, number[]>();
  const ofClass = new Map<number, number[][]>();
  classes.forEach((each, example) => {
    const key = groups ? groups[example] : example;
    const known = members.get(key);
    if (known) {
      known.push(example);
      return;
    }
    const group = [example];
    members.set(key, group);
    const list = ofClass.get(each);
    if (list) list.push(group);
    else ofClass.set(each, [group]);
  });
  return [...ofClass.keys()].sort((a, b) => a - b).map((each) => shuffled(ofClass.get(each) ?? [], random));
}
