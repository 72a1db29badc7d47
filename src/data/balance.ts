/** Weights against imbalance: of classes in the loss, or of examples when they are drawn. Use one of both. */

/** Number of examples of each class. */
export function classCounts(classes: Iterable<number>, count: number): number[] {
  const counts = Array<number>(count).fill(0);
  for (const each of classes) counts[each] = (counts[each] ?? 0) + 1;
  return counts;
}

/**
 * Weights of the classes in a loss: the inverse of their frequency, 1 in the mean over examples (scikit-learn's
 * `balanced`). A class without examples has weight 0.
 * @param strength 1 balances fully, 0 not at all; in between the ratios are raised to that power
 */
export function classWeights(counts: readonly number[], strength = 1): number[] {
  const raw = counts.map((count) => (count > 0 ? count ** -strength : 0));
  const total = counts.reduce((sum, count) => sum + count, 0);
  const weighted = counts.reduce((sum, count, at) => sum + count * (raw[at] ?? 0), 0);
  return raw.map((weight) => (weight * total) / weighted);
}

/** How likely each example is drawn when every class shall come up equally often, or nearly so. */
export function exampleWeights(classes: readonly number[], count: number, strength = 1): number[] {
  const weights = classWeights(classCounts(classes, count), strength);
  return classes.map((each) => weights[each] ?? 0);
}
