/** Written for the tests alone, so that what they compare with is not the code they judge. */

/** exp(x) over the sum of all. */
export function softmax(values: ArrayLike<number>): number[] {
  const powers = Array.from(values, (value) => Math.exp(value - Math.max(...Array.from(values))));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/** Product of dimensions. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
