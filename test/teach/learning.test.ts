/** Closed-form learning: the algebra, the folds, the methods, the scale of scores. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { gaussian, seededRandom } from "../../src/base/random.js";
import { stratifiedFolds } from "../../src/data/index.js";
import {
  cholesky,
  crossEntropy,
  crossValidate,
  dot,
  fitClassifiers,
  fitNearestMean,
  fitRidge,
  fitScale,
  gramOfRows,
  logitsOf,
  type Matrix,
  METHODS,
  matrixOf,
  row,
  selectRows,
  solveWith,
  standardisationOf,
  unitRows,
} from "../../src/teach/index.js";
import { clouds } from "./examples.js";

function randomMatrix(rows: number, columns: number, seed: number): Matrix {
  const random = seededRandom(seed);
  return matrixOf(
    Array.from({ length: rows }, () => Array.from({ length: columns }, () => gaussian(random))),
  );
}

/** Columns of mean 0. */
function centred(matrix: Matrix): Matrix {
  const { mean } = standardisationOf(matrix);
  return { ...matrix, data: matrix.data.map((value, at) => value - (mean[at % matrix.columns] ?? 0)) };
}

/** Solves by Gauss-Jordan elimination with pivoting: an oracle that shares nothing with Cholesky. */
function eliminate(square: readonly number[][], right: readonly number[]): number[] {
  const rows = square.map((values, at) => [...values, right[at] ?? 0]);
  rows.forEach((_, pivot) => {
    const best = rows.reduce(
      (most, values, at) =>
        at >= pivot && Math.abs(values[pivot] ?? 0) > Math.abs(rows[most]?.[pivot] ?? 0) ? at : most,
      pivot,
    );
    const chosen = rows[best] ?? [];
    rows[best] = rows[pivot] ?? [];
    rows[pivot] = chosen.map((value) => value / (chosen[pivot] ?? 1));
    rows.forEach((values, at) => {
      if (at === pivot) return;
      const factor = values[pivot] ?? 0;
      rows[at] = values.map((value, column) => value - factor * (rows[pivot]?.[column] ?? 0));
    });
  });
  return rows.map((values) => values.at(-1) ?? 0);
}

/** Ridge weights with an intercept that is not penalised, from the normal equations; last entry the intercept. */
function normalEquations(features: Matrix, targets: readonly number[], shift: number): number[] {
  const design = Array.from({ length: features.rows }, (_, at) => [...row(features, at), 1]);
  const size = features.columns + 1;
  const square = Array.from({ length: size }, (_, i) =>
    Array.from(
      { length: size },
      (_, j) =>
        design.reduce((sum, values) => sum + (values[i] ?? 0) * (values[j] ?? 0), 0) +
        (i === j && i < features.columns ? shift : 0),
    ),
  );
  const right = Array.from({ length: size }, (_, i) =>
    design.reduce((sum, values, at) => sum + (values[i] ?? 0) * (targets[at] ?? 0), 0),
  );
  return eliminate(square, right);
}

describe("Cholesky", () => {
  it("solves any symmetric positive definite system", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 25 }), fc.integer(), (size, seed) => {
        const matrix = gramOfRows(randomMatrix(size, size + 3, seed));
        const truth = row(randomMatrix(1, size, seed + 1), 0);
        const right = Float64Array.from({ length: size }, (_, at) => {
          return dot(row(matrix, at), truth) + 0.5 * (truth[at] ?? 0);
        });
        const found = solveWith(cholesky(matrix, 0.5), right);
        for (let at = 0; at < size; at++) expect(found[at]).toBeCloseTo(truth[at] ?? 0, 8);
      }),
    );
  });

  it("refuses a matrix that is not positive definite", () => {
    expect(() =>
      cholesky(
        matrixOf([
          [1, 2],
          [2, 1],
        ]),
      ),
    ).toThrow(/not positive definite/);
    expect(() => cholesky(matrixOf([[Number.NaN]]))).toThrow(/not positive definite/);
  });
});

describe("ridge regression", () => {
  const shapes = [
    { rows: 12, columns: 5 },
    { rows: 12, columns: 12 },
    { rows: 9, columns: 30 },
  ];

  it.each(shapes)(
    "with $rows examples of $columns features solves the normal equations",
    ({ rows, columns }) => {
      const features = centred(randomMatrix(rows, columns, 5));
      const classes = Array.from({ length: rows }, (_, at) => at % 3);
      const { weights, bias } = fitRidge(features, classes, 3, [0.3]);
      const trace = dot(features.data, features.data);
      const shift = (0.3 * trace) / Math.min(rows, columns);
      for (let each = 0; each < 3; each++) {
        const expected = normalEquations(
          features,
          classes.map((own) => (own === each ? 1 : 0)),
          shift,
        );
        [...row(weights, each), bias[each] ?? 0].forEach((value, at) => {
          expect(value).toBeCloseTo(expected[at] ?? 0, 9);
        });
      }
    },
  );

  it.each(shapes)(
    "with $rows examples of $columns features leaves out what it says it leaves out",
    ({ rows, columns }) => {
      const features = centred(randomMatrix(rows, columns, 6));
      const classes = Array.from({ length: rows }, (_, at) => at % 2);
      const { leftOut } = fitRidge(features, classes, 2, [0.1]);
      const shift = (0.1 * dot(features.data, features.data)) / Math.min(rows, columns);
      for (let example = 0; example < rows; example++) {
        const others = [...classes.keys()].filter((at) => at !== example);
        const solved = normalEquations(
          selectRows(features, others),
          others.map((at) => (classes[at] === 1 ? 1 : 0)),
          shift,
        );
        const score = [...row(features, example), 1].reduce(
          (sum, value, at) => sum + value * (solved[at] ?? 0),
          0,
        );
        expect(row(leftOut, example)[1]).toBeCloseTo(score, 9);
      }
    },
  );

  it("gives the same in dual and primal form", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 4, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        fc.integer(),
        (rows, columns, seed) => {
          const features = centred(randomMatrix(rows, columns, seed));
          const classes = Array.from({ length: rows }, (_, at) => at % 2);
          const wide = { rows, columns: columns + rows, data: new Float64Array(rows * (columns + rows)) };
          for (let at = 0; at < rows; at++) row(wide, at).set(row(features, at));
          // Columns of zeros change no solution, but make the system a wide one, of another mean eigenvalue.
          const padded = fitRidge(wide, classes, 2, [0.5]);
          const plain = fitRidge(features, classes, 2, [(0.5 * Math.min(rows, columns)) / rows]);
          for (let each = 0; each < 2; each++) {
            row(plain.weights, each).forEach((value, at) => {
              expect(row(padded.weights, each)[at]).toBeCloseTo(value, 7);
            });
          }
          plain.leftOut.data.forEach((value, at) => {
            expect(padded.leftOut.data[at]).toBeCloseTo(value, 6);
          });
        },
      ),
    );
  });

  it("chooses a strong strength for noise and a weak one for a clear signal", () => {
    const noise = randomMatrix(60, 40, 3);
    const classes = Array.from({ length: 60 }, (_, at) => at % 2);
    const clear = { ...noise, data: noise.data.slice() };
    classes.forEach((each, at) => {
      row(clear, at)[0] = each * 20;
    });
    expect(fitRidge(centred(noise), classes, 2).strength).toBeGreaterThan(
      10 * fitRidge(centred(clear), classes, 2).strength,
    );
  });
});

describe("nearest class mean", () => {
  it("leaves an example out of its own class's mean", () => {
    const { features, classes } = clouds([5, 4, 3], 6, 1);
    const units = unitRows(features);
    const { leftOut } = fitNearestMean(units, classes, 3);
    classes.forEach((_, example) => {
      const own = row(units, example);
      const distances = [0, 1, 2].map((each) => {
        const members = [...classes.keys()].filter((at) => classes[at] === each && at !== example);
        const mean = own.map((_, column) =>
          members.reduce((sum, at) => sum + (row(units, at)[column] ?? 0) / members.length, 0),
        );
        return own.reduce((sum, value, column) => sum + (value - (mean[column] ?? 0)) ** 2, 0);
      });
      // Score = (1 - squared distance) / 2 for features of length 1.
      distances.forEach((distance, each) => {
        expect(row(leftOut, example)[each]).toBeCloseTo((1 - distance) / 2, 9);
      });
    });
  });
});

describe("folds", () => {
  it("are stratified, of even size and the same for the same seed", () => {
    const sizes = fc.array(fc.integer({ min: 2, max: 40 }), { minLength: 2, maxLength: 6 });
    fc.assert(
      fc.property(sizes, fc.integer({ min: 2, max: 6 }), fc.integer(), (each, count, seed) => {
        const classes = each.flatMap((size, name) => Array<number>(size).fill(name));
        const folds = stratifiedFolds(classes, count, seed);
        expect(stratifiedFolds(classes, count, seed)).toEqual(folds);
        for (const own of [undefined, ...each.keys()]) {
          const members = [...classes.keys()].filter((at) => own === undefined || classes[at] === own);
          const counts = Array.from({ length: count }, (_, fold) => {
            return members.filter((at) => folds[at] === fold).length;
          });
          expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
          expect(counts.reduce((sum, value) => sum + value, 0)).toBe(members.length);
        }
      }),
    );
  });

  it("differ between seeds", () => {
    const classes = Array.from({ length: 100 }, (_, at) => at % 2);
    expect(stratifiedFolds(classes, 5, 1)).not.toEqual(stratifiedFolds(classes, 5, 2));
  });
});

describe("the scale of scores", () => {
  it("is where the cross-entropy is least", () => {
    const random = seededRandom(9);
    const classes = Array.from({ length: 400 }, () => Math.floor(random() * 3));
    const scores = matrixOf(
      classes.map((own) => [0, 1, 2].map((each) => 0.1 * ((own === each ? 1 : 0) + gaussian(random)))),
    );
    const best = fitScale(scores, classes);
    const smoothing = 1 / 401;
    const loss = crossEntropy(scores, classes, best, smoothing);
    for (const factor of [0.5, 0.9, 0.98, 1.02, 1.1, 2])
      expect(crossEntropy(scores, classes, best * factor, smoothing)).toBeGreaterThan(loss);
    // For Gaussian scores of equal deviation s the posterior is softmax(scores * distance / s^2): 0.1 / 0.01.
    expect(best).toBeGreaterThan(7);
    expect(best).toBeLessThan(13);
  });

  it("stays finite without a single error", () => {
    const scores = matrixOf([
      [1, 0],
      [1, 0],
      [0, 1],
      [0, 1],
    ]);
    expect(crossEntropy(scores, [0, 0, 1, 1], fitScale(scores, [0, 0, 1, 1]))).toBeGreaterThan(0.01);
  });
});

describe("cross-validation", () => {
  const folds = (classes: readonly number[]) => stratifiedFolds(classes, 5, 0);

  it("finds nothing in noise, however many features there are", () => {
    const features = randomMatrix(200, 300, 17);
    const classes = Array.from({ length: 200 }, (_, at) => at % 2);
    const found = crossValidate(features, classes, 2, folds(classes), METHODS);
    expect(found.accuracy.mean).toBeGreaterThan(0.35);
    expect(found.accuracy.mean).toBeLessThan(0.65);
    expect(found.baseline).toBe(0.5);
    expect(found.logLoss).toBeLessThan(0.8);
  });

  it("gives the classes of the fold it judges no say in what it answers", () => {
    const { features, classes } = clouds([21, 21], 8, 0.7);
    const assigned = stratifiedFolds(classes, 3, 0);
    const turned = classes.map((each, example) => (assigned[example] === 0 ? 1 - each : each));
    const [right] = crossValidate(features, classes, 2, assigned, METHODS).accuracy.folds;
    const [wrong] = crossValidate(features, turned, 2, assigned, METHODS).accuracy.folds;
    expect(right).toBeGreaterThan(0.6);
    expect(wrong).toBeCloseTo(1 - (right ?? 0), 12);
  });

  it("tells clouds apart and counts each example once", () => {
    const { features, classes } = clouds([30, 20, 10], 12, 2);
    const found = crossValidate(features, classes, 3, folds(classes), METHODS);
    expect(found.accuracy.mean).toBeGreaterThan(0.95);
    expect(found.baseline).toBe(0.5);
    expect(found.perClass.map(({ support }) => support)).toEqual([30, 20, 10]);
    expect(found.confusion.flat().reduce((sum, value) => sum + value, 0)).toBe(60);
    expect(found.methods.map(({ method }) => method)).toEqual(["ridge", "nearest-mean"]);
  });

  it("gives calibrated probabilities for classes that overlap", () => {
    const { features, classes } = clouds([200, 200], 6, 0.35, 4);
    const found = crossValidate(features, classes, 2, folds(classes), METHODS);
    expect(found.accuracy.mean).toBeLessThan(0.95);
    expect(found.calibrationError).toBeLessThan(0.1);
    expect(found.logLoss).toBeLessThan(Math.log(2));
  });
});

describe("a classifier", () => {
  it("does not care about the units of a feature, nor about one that never changes", () => {
    const { features, classes } = clouds([15, 15, 15], 7, 1);
    const other = {
      ...features,
      data: features.data.map((value, at) => (at % 7) * 2 + value * 10 ** (at % 7)),
    };
    const constant = { ...features, data: features.data.map((value, at) => (at % 7 === 3 ? 5 : value)) };
    for (const method of METHODS) {
      const [plain] = fitClassifiers(features, classes, 3, [method]);
      const [scaled] = fitClassifiers(other, classes, 3, [method]);
      const [without] = fitClassifiers(constant, classes, 3, [method]);
      if (!plain || !scaled || !without) throw new Error("no classifier");
      const logits = logitsOf(scaled, other).data;
      logitsOf(plain, features).data.forEach((value, at) => {
        expect(logits[at]).toBeCloseTo(value, 5);
      });
      expect(logitsOf(without, constant).data.every(Number.isFinite)).toBe(true);
    }
  });
});
