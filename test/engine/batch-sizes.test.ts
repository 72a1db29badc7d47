/** The size of batches, learnt from machines whose rows get cheaper, or dearer, in larger ones. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BatchSizes } from "../../src/engine/batch-sizes.js";

/** The sizes of so many batches on a machine that takes `pace(rows)` milliseconds a row. */
function sizesOn(
  pace: (rows: number) => number,
  { batches = 200, rows = 32, milliseconds = 1000, sizes = new BatchSizes() } = {},
): number[] {
  return Array.from({ length: batches }, () => {
    const size = sizes.next(rows, milliseconds);
    sizes.learn(size, size * pace(size));
    return size;
  });
}

function commonest(sizes: readonly number[]): number {
  const count = (size: number) => sizes.filter((each) => each === size).length;
  return [...new Set(sizes)].sort((a, b) => count(b) - count(a))[0] ?? 0;
}

describe("batches", () => {
  it("begin with one row, which is a measurement", () => {
    expect(new BatchSizes().next(32, 100)).toBe(1);
  });

  it("grow as long as rows get cheaper", () => {
    expect(commonest(sizesOn((rows) => 1 + 10 / rows))).toBe(32);
    expect(commonest(sizesOn((rows) => 1 + 10 / rows, { rows: 12 }))).toBe(8);
  });

  it("stay at one row where larger ones take longer for each", () => {
    const sizes = sizesOn((rows) => 30 + 5 * rows);
    expect(sizes.filter((size) => size > 1).length).toBeLessThan(sizes.length / 8);
  });

  it("have the size in the middle that is cheapest", () => {
    expect(commonest(sizesOn((rows) => 10 / rows + rows))).toBe(4);
  });

  it("find the new best size when the machine has changed", () => {
    const sizes = new BatchSizes();
    sizesOn((rows) => 1 + 10 / rows, { sizes });
    const after = sizesOn((rows) => 1 + rows, { sizes, batches: 2000 });
    expect(commonest(after.slice(-200))).toBe(1);
  });

  it("of several rows never have more than is allowed, in rows or in expected time", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0.01, max: 50, noNaN: true }), { minLength: 6, maxLength: 6 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 500 }),
        (paces, rows, milliseconds) => {
          const pace = (size: number) => paces[Math.floor(Math.log2(size))] ?? 1;
          const sizes = sizesOn(pace, { rows, milliseconds });
          expect(Math.max(...sizes)).toBeLessThanOrEqual(rows);
          const over = sizes.filter((size) => size > 1 && size * pace(size) > milliseconds);
          // A size is known to take too long once it was tried.
          expect(over.length).toBeLessThanOrEqual(6);
        },
      ),
    );
  });
});
