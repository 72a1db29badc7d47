/**
 * The ladder of maps, from the one with the least freedom to the one with the most; those in closed form are fitted here.
 * Every rung is judged on examples that it was not fitted on (cross-validation by folds of whole images); which rung is
 * enough is for the caller to say, who knows what the head makes of the features.
 */
import { type Matrix, row, selectRows, zeros } from "../teach/linear-algebra.js";
import { mean, standardDeviation } from "../vision/metrics.js";
import { type AffineMap, applyAffine } from "./affine.js";
import type { FeatureMap } from "./feature-map.js";
import { fitLeastSquares, type LeastSquares } from "./least-squares.js";
import { fitLowRank, type RankedMaps } from "./low-rank.js";
import { fitProcrustes } from "./procrustes.js";
import { fitScaling } from "./scaling.js";

/** The rungs that are fitted in closed form, cheapest first. */
export const CLOSED_RUNGS = ["scaling", "procrustes", "low-rank", "least-squares"] as const;

/** All rungs, cheapest first; those that are trained come last. */
export const RUNGS = [...CLOSED_RUNGS, "residual", "trained", "together"] as const;

/** The name of a rung. */
export type RungName = (typeof RUNGS)[number];

/** The name of a rung in closed form. */
type ClosedName = (typeof CLOSED_RUNGS)[number];

/** Features of the same inputs from two backbones. */
export interface FeaturePairs {
  /** [n, source width], a row an example. */
  readonly source: Matrix;
  /** [n, target width]: what the head was trained on. */
  readonly target: Matrix;
  /** Fold of each example, from 0; rows of one image belong into one fold. */
  readonly folds: readonly number[];
}

/** A rung that was climbed. */
export interface Rung {
  readonly name: RungName;
  /** Fitted on all examples. */
  readonly map: FeatureMap;
  /** Numbers that were fitted. */
  readonly parameters: number;
  /** Of a low-rank map. */
  readonly rank?: number;
  /** Relative penalty of a ridge regression. */
  readonly strength?: number;
  /** Steps of training after which it was best; at 0 training found nothing better than what it began as. */
  readonly steps?: number;
  /** Share of the target features' variance that the map explains on examples it was not fitted on; 1 at best. */
  readonly explained: number;
  /** Fitted without each fold. */
  readonly maps: readonly FeatureMap[];
  /** What the map of the other folds makes of each example: [n, target width]. */
  readonly heldOut: Matrix;
  /** Milliseconds for all of it. */
  readonly milliseconds: number;
}

/** Examples to fit on, and those that are held out meanwhile. */
interface Part {
  readonly source: Matrix;
  readonly target: Matrix;
  readonly test: readonly number[];
}

/** The maps of one rung: of each part, and of all examples. */
interface Fits extends Pick<Rung, "parameters" | "rank" | "strength"> {
  readonly map: AffineMap;
  readonly maps: readonly AffineMap[];
}

/**
 * Climbs the rungs in closed form.
 * @param names which; those that need equal widths are left out where widths differ
 */
export function climb(pairs: FeaturePairs, names: readonly RungName[] = RUNGS): Rung[] {
  const { source, target } = pairs;
  const parts = partsOf(pairs);
  const ladder = new Ladder(pairs, parts);
  return CLOSED_RUNGS.filter((name) => names.includes(name))
    .filter((name) => name !== "scaling" || source.columns === target.columns)
    .map((name) => {
      const start = performance.now();
      const { maps, ...fit } = ladder.rung(name);
      const heldOut = heldOutBy(pairs, (features, fold) => {
        const map = maps[fold];
        return map ? applyAffine(map, features) : zeros(features.rows, target.columns);
      });
      const milliseconds = performance.now() - start;
      return { name, ...fit, maps, heldOut, explained: explainedVariance(heldOut, target), milliseconds };
    });
}

/** What is made of each example by the map that has not seen it: [n, target width]. */
export function heldOutBy(
  { source, target, folds }: FeaturePairs,
  apply: (features: Matrix, fold: number) => Matrix,
): Matrix {
  const heldOut = zeros(target.rows, target.columns);
  for (let fold = 0; fold <= Math.max(...folds); fold++) {
    const test = [...folds.keys()].filter((example) => folds[example] === fold);
    const answers = apply(selectRows(source, test), fold);
    test.forEach((example, at) => {
      row(heldOut, example).set(row(answers, at));
    });
  }
  return heldOut;
}

/**
 * Share of the variance of the features that predictions explain, 1 - |y - p|² / |y - mean|², over all features
 * together; 0 where nothing varies.
 */
export function explainedVariance(predictions: Matrix, target: Matrix): number {
  const { rows, columns, data } = target;
  const means = new Float64Array(columns);
  data.forEach((value, at) => {
    means[at % columns] = (means[at % columns] ?? 0) + value / rows;
  });
  let [error, variance] = [0, 0];
  data.forEach((value, at) => {
    error += (value - (predictions.data[at] ?? 0)) ** 2;
    variance += (value - (means[at % columns] ?? 0)) ** 2;
  });
  return variance > 0 ? 1 - error / variance : 0;
}

/** Fits rungs; what two rungs have in common is fitted once. */
class Ladder {
  readonly #whole: Part;
  readonly #parts: readonly Part[];
  readonly #pairs: FeaturePairs;
  #leastSquares: { readonly parts: readonly LeastSquares[]; readonly whole: LeastSquares } | undefined;

  constructor(pairs: FeaturePairs, parts: readonly Part[]) {
    this.#pairs = pairs;
    this.#whole = { ...pairs, test: [] };
    this.#parts = parts;
  }

  rung(name: ClosedName): Fits {
    const [inputs, outputs] = [this.#whole.source.columns, this.#whole.target.columns];
    const parameters = outputs * inputs + outputs;
    switch (name) {
      case "scaling":
        return { ...this.#simple(fitScaling), parameters: 2 * outputs };
      case "procrustes":
        return { ...this.#simple(fitProcrustes), parameters };
      case "least-squares": {
        const { parts, whole } = this.#ridge();
        return { maps: parts, map: affine(whole), strength: whole.strength, parameters };
      }
      case "low-rank": {
        const { parts, whole } = this.#ridge();
        const ranked = this.#parts.flatMap(({ source }, at) => {
          const ridge = parts[at];
          return ridge ? [fitLowRank(source, ridge)] : [];
        });
        const all = fitLowRank(this.#whole.source, whole);
        const rank = Math.min(this.#bestRank(ranked), all.most);
        return {
          maps: ranked.map((maps) => maps.of(rank)),
          map: all.of(rank),
          rank,
          parameters: rank * (inputs + outputs) + outputs,
        };
      }
    }
  }

  #simple(between: (source: Matrix, target: Matrix) => AffineMap): Pick<Fits, "maps" | "map"> {
    const { source, target } = this.#whole;
    return {
      maps: this.#parts.map((part) => between(part.source, part.target)),
      map: between(source, target),
    };
  }

  #ridge() {
    this.#leastSquares ??= {
      parts: this.#parts.map(({ source, target }) => fitLeastSquares(source, target)),
      whole: fitLeastSquares(this.#whole.source, this.#whole.target),
    };
    return this.#leastSquares;
  }

  /**
   * The smallest rank whose error is within one standard error of the best one's (Breiman et al. 1984), as examples
   * that were left out tell it.
   */
  #bestRank(ranked: readonly RankedMaps[]): number {
    const { source, target } = this.#pairs;
    const rows = this.#parts.flatMap(({ test }, fold) => {
      const errors = ranked[fold]?.errors(selectRows(source, test), selectRows(target, test));
      return errors ? test.map((_, at) => row(errors, at)) : [];
    });
    const most = Math.min(...ranked.map((maps) => maps.most));
    if (!(most > 0)) return 0;
    const errorsAt = (rank: number) => rows.map((own) => own[rank] ?? 0);
    const means = Array.from({ length: most + 1 }, (_, rank) => mean(errorsAt(rank)));
    const least = Math.min(...means);
    const noise = standardDeviation(errorsAt(means.indexOf(least))) / Math.sqrt(rows.length);
    // Beyond what rounding leaves of the whole, a difference means something.
    const rounding = 1e-12 * (means[0] ?? 0);
    return Math.max(
      1,
      means.findIndex((error) => error <= least + noise + rounding),
    );
  }
}

function affine({ weights, bias }: AffineMap): AffineMap {
  return { weights, bias };
}

function partsOf({ source, target, folds }: FeaturePairs): Part[] {
  const examples = [...folds.keys()];
  return Array.from({ length: Math.max(...folds) + 1 }, (_, fold) => {
    const train = examples.filter((example) => folds[example] !== fold);
    return {
      source: selectRows(source, train),
      target: selectRows(target, train),
      test: examples.filter((example) => folds[example] === fold),
    };
  });
}
