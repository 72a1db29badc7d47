/** Made-up features for the tests of this folder: Gaussian clouds around class centres. */
import { gaussian, seededRandom } from "../../src/base/random.js";
import { type Matrix, matrixOf } from "../../src/teach/index.js";

/** Clouds with `sizes` examples each; the larger the distance of the centres, the easier. */
export function clouds(
  sizes: readonly number[],
  columns: number,
  distance: number,
  seed = 1,
): { features: Matrix; classes: number[] } {
  const random = seededRandom(seed);
  const centres = sizes.map(() => Array.from({ length: columns }, () => distance * gaussian(random)));
  const classes = sizes.flatMap((size, each) => Array<number>(size).fill(each));
  const rows = classes.map((each) =>
    Array.from(
      { length: columns },
      (_, column) => 3 * ((centres[each]?.[column] ?? 0) + gaussian(random)) + column,
    ),
  );
  return { features: matrixOf(rows), classes };
}
