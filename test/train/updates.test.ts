/** Where the variables of a training lie. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { arenasOf } from "../../src/train/updates.js";

const BYTES = 2 ** 32;

describe("the arenas of parameters", () => {
  it("hold all that is kept of each, and follow the order of the parameters", () => {
    const sizes = fc.array(fc.integer({ min: 0, max: 2 ** 26 }), { maxLength: 40 });
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 4 }), (elements, kept) => {
        const arenas = arenasOf(new Map(elements.map((size, at) => [`p${at}`, size])), kept);
        const numbers = elements.map((_, at) => arenas.get(`p${at}`) ?? -1);
        expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
        for (const arena of new Set(numbers)) {
          const own = elements.filter((_, at) => numbers[at] === arena);
          expect(own.reduce((sum, size) => sum + 4 * kept * size, 0)).toBeLessThan(BYTES);
        }
      }),
    );
  });

  it("are one where everything has room, and more where it has not", () => {
    const large = new Map([
      ["a", 2 ** 27],
      ["b", 2 ** 27],
      ["c", 2 ** 27],
    ]);
    expect([...arenasOf(large, 1).values()]).toEqual([0, 0, 0]);
    expect([...arenasOf(large, 3).values()]).toEqual([0, 0, 1]);
  });

  it("refuse a parameter that has room in none, by name", () => {
    const sizes = new Map([
      ["small", 10],
      ["vast", 2 ** 29],
    ]);
    expect(() => arenasOf(sizes, 3)).toThrow(
      expect.objectContaining({
        code: "MODEL_UNSUPPORTED",
        details: expect.objectContaining({ parameter: "vast" }),
      }),
    );
    expect(arenasOf(sizes, 1).get("vast")).toBe(0);
  });
});
