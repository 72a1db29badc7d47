/** The rungs against feature pairs whose truth is known. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { applyAffine } from "../../src/adapt/affine.js";
import { CLOSED_RUNGS, climb } from "../../src/adapt/ladder.js";
import { fitLeastSquares } from "../../src/adapt/least-squares.js";
import { fitLowRank } from "../../src/adapt/low-rank.js";
import { fitProcrustes } from "../../src/adapt/procrustes.js";
import { fitScaling } from "../../src/adapt/scaling.js";
import { gaussian, seededRandom } from "../../src/base/random.js";
import { type Matrix, multiplyTransposed, row, transpose } from "../../src/teach/index.js";

/** Independent normal numbers. */
function noise(rows: number, columns: number, random: () => number, size = 1): Matrix {
  return {
    rows,
    columns,
    data: Float64Array.from({ length: rows * columns }, () => size * gaussian(random)),
  };
}

/** Rows that are orthonormal (Gram-Schmidt), at most as many as columns. */
function orthonormal(rows: number, columns: number, random: () => number): Matrix {
  const made = noise(rows, columns, random);
  for (let at = 0; at < rows; at++) {
    const own = row(made, at);
    for (let other = 0; other < at; other++) {
      const past = row(made, other);
      const along = own.reduce((sum, value, place) => sum + value * (past[place] ?? 0), 0);
      own.forEach((value, place) => {
        own[place] = value - along * (past[place] ?? 0);
      });
    }
    const length = Math.hypot(...own);
    own.forEach((value, place) => {
      own[place] = value / length;
    });
  }
  return made;
}

function shifted(features: Matrix, by: (feature: number) => number): Matrix {
  return { ...features, data: features.data.map((value, at) => value + by(at % features.columns)) };
}

function furthest(a: Matrix, b: Matrix): number {
  expect([a.rows, a.columns]).toEqual([b.rows, b.columns]);
  return Math.max(...a.data.map((value, at) => Math.abs(value - (b.data[at] ?? Number.NaN))));
}

const dealt = (examples: number, folds = 5) => Array.from({ length: examples }, (_, at) => at % folds);
const sizes = fc.record({
  width: fc.integer({ min: 1, max: 12 }),
  more: fc.integer({ min: 0, max: 6 }),
  seed: fc.integer(),
});

describe("Procrustes", () => {
  it("recovers rotations, with their scale and shift, to 1e-6", () => {
    fc.assert(
      fc.property(sizes, fc.double({ min: 0.1, max: 10, noNaN: true }), ({ width, seed }, scale) => {
        const random = seededRandom(seed);
        const rotation = orthonormal(width, width, random);
        const source = noise(4 * width + 4, width, random);
        const turned = multiplyTransposed(source, rotation);
        const target = shifted(
          { ...turned, data: turned.data.map((value) => scale * value) },
          (at) => at - 2,
        );
        const { weights, bias } = fitProcrustes(source, target);
        const truth = { ...rotation, data: rotation.data.map((value) => scale * value) };
        expect(furthest(weights, truth)).toBeLessThan(1e-6);
        bias.forEach((value, at) => {
          expect(Math.abs(value - (at - 2))).toBeLessThan(1e-6);
        });
      }),
      { numRuns: 40 },
    );
  });

  it("recovers projections to fewer features up to their scale, and embeddings into more exactly", () => {
    fc.assert(
      fc.property(sizes, ({ width, more, seed }) => {
        const random = seededRandom(seed);
        const rows = orthonormal(width, width + more, random);
        const small = noise(60, width, random);
        const large = multiplyTransposed(small, transpose(rows));
        expect(furthest(applyAffine(fitProcrustes(small, large), small), large)).toBeLessThan(1e-6);
        expect(furthest(applyAffine(fitProcrustes(large, small), large), small)).toBeLessThan(1e-6);
      }),
      { numRuns: 20 },
    );
  });

  it("with fewer examples than features turns what it has seen, and maps all else to the centre", () => {
    const random = seededRandom(3);
    const rotation = orthonormal(30, 30, random);
    const source = noise(8, 30, random);
    const target = multiplyTransposed(source, rotation);
    const map = fitProcrustes(source, target);
    expect(furthest(applyAffine(map, source), target)).toBeLessThan(1e-6);
    const span = Math.hypot(...map.weights.data) ** 2;
    expect(span).toBeCloseTo(7, 6); // seven directions are left of eight examples once they are centred
  });
});

describe("least squares", () => {
  it("recovers affine maps", () => {
    fc.assert(
      fc.property(sizes, ({ width, more, seed }) => {
        const random = seededRandom(seed);
        const truth = noise(width + more, width, random);
        const source = noise(3 * width + 10, width, random);
        const target = shifted(multiplyTransposed(source, truth), (at) => 3 * at);
        const { weights, bias } = fitLeastSquares(source, target);
        expect(furthest(weights, truth)).toBeLessThan(1e-5);
        bias.forEach((value, at) => {
          expect(Math.abs(value - 3 * at)).toBeLessThan(1e-5);
        });
      }),
      { numRuns: 40 },
    );
  });

  it("shrinks what is noise, and does no harm where there is nothing to learn", () => {
    const random = seededRandom(5);
    const [source, target] = [noise(40, 30, random), noise(40, 10, random)];
    const [rung] = climb({ source, target, folds: dealt(40) }, ["least-squares"]);
    expect(rung?.explained).toBeGreaterThan(-0.2);
    expect(rung?.explained).toBeLessThan(0.2);
  });
});

describe("scaling", () => {
  it("recovers a scale and a shift of each feature", () => {
    fc.assert(
      fc.property(sizes, ({ width, seed }) => {
        const random = seededRandom(seed);
        const factors = Array.from({ length: width }, () => gaussian(random));
        const source = noise(20, width, random, 5);
        const scaled = source.data.map((value, at) => value * (factors[at % width] ?? 0));
        const target = shifted({ ...source, data: scaled }, (at) => at);
        expect(furthest(applyAffine(fitScaling(source, target), source), target)).toBeLessThan(1e-9);
      }),
      { numRuns: 30 },
    );
  });
});

describe("low rank", () => {
  it.each([0, 0.01])("finds the rank of the truth under noise of %d", (size) => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 6 }), fc.integer(), (rank, seed) => {
        const random = seededRandom(seed);
        const [left, right] = [orthonormal(rank, 14, random), orthonormal(rank, 10, random)];
        const truth = multiplyTransposed(transpose(left), transpose(right));
        const source = noise(200, 10, random);
        const clean = multiplyTransposed(source, truth);
        const disturbance = noise(200, 14, random, size);
        const target = { ...clean, data: clean.data.map((value, at) => value + (disturbance.data[at] ?? 0)) };
        const [rung] = climb({ source, target, folds: dealt(200) }, ["low-rank"]);
        expect(rung?.rank).toBe(rank);
      }),
      { numRuns: 15 },
    );
  });

  it("at full rank is least squares", () => {
    const random = seededRandom(11);
    const [source, target] = [noise(50, 8, random), noise(50, 5, random)];
    const ridge = fitLeastSquares(source, target);
    const maps = fitLowRank(source, ridge);
    expect(maps.most).toBe(5);
    expect(furthest(maps.of(maps.most).weights, ridge.weights)).toBeLessThan(1e-9);
  });

  it("tells the error of every rank as its map has it", () => {
    const random = seededRandom(12);
    const [source, target] = [noise(30, 6, random), noise(30, 9, random)];
    const maps = fitLowRank(source, fitLeastSquares(source, target));
    const mean = (column: number) => {
      let sum = 0;
      for (let at = 0; at < 30; at++) sum += (target.data[at * 9 + column] ?? 0) / 30;
      return sum;
    };
    const deviations = Array.from({ length: 9 }, (_, column) => {
      let sum = 0;
      for (let at = 0; at < 30; at++) sum += ((target.data[at * 9 + column] ?? 0) - mean(column)) ** 2 / 30;
      return Math.sqrt(sum);
    });
    const errors = maps.errors(source, target);
    for (const rank of [1, 3, maps.most]) {
      const answers = applyAffine(maps.of(rank), source);
      for (const example of [0, 17]) {
        let expected = 0;
        for (let column = 0; column < 9; column++) {
          const off = (answers.data[example * 9 + column] ?? 0) - (target.data[example * 9 + column] ?? 0);
          expected += (off / (deviations[column] ?? 1)) ** 2;
        }
        expect(row(errors, example)[rank]).toBeCloseTo(expected, 8);
      }
    }
  });
});

describe("the ladder on degenerate data", () => {
  const random = seededRandom(21);
  const plain = noise(24, 6, random);
  const constant = { ...plain, data: plain.data.map(() => 2) };
  const copied = { ...plain, data: plain.data.map((_, at) => plain.data[at % 6] ?? 0) };
  const flat = { ...plain, data: plain.data.map((value, at) => (at % 6 === 0 ? 1 : value)) };
  it.each([
    ["constant features of the source", constant, plain],
    ["constant features of the target", plain, constant],
    ["twenty-four copies of one example", copied, copied],
    ["one feature that never changes", flat, plain],
    ["more features than examples", noise(10, 40, random), noise(10, 25, random)],
  ])("%s give finite maps of every rung", (_, source, target) => {
    const rungs = climb({ source, target, folds: dealt(source.rows, 4) });
    expect(rungs.length).toBeGreaterThanOrEqual(CLOSED_RUNGS.length - 1);
    for (const { map, explained } of rungs) {
      expect(map.weights.data.every(Number.isFinite)).toBe(true);
      expect(map.bias.every(Number.isFinite)).toBe(true);
      expect(explained).toBeLessThanOrEqual(1);
      expect(Number.isFinite(explained)).toBe(true);
    }
  });

  it("is the same for the same data", () => {
    const target = noise(24, 4, random);
    const [once, again] = [0, 1].map(() => climb({ source: plain, target, folds: dealt(24) }));
    const figures = (rungs: typeof once) =>
      rungs?.map(({ name, explained, map }) => ({ name, explained, map }));
    expect(figures(once)).toEqual(figures(again));
  });
});
