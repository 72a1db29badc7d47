/** Numbers between JSON and tensors: 16-bit floats against their definition, long whole numbers against BigInt. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseJson } from "../../../src/server/http/json-text.js";
import { numberToBfloat, numberToHalf } from "../../../src/server/http/small-float.js";
import { bfloatToNumber, halfToNumber } from "../../../src/tensor/tensor.js";

const FORMATS = [
  { name: "half precision", toBits: numberToHalf, toNumber: halfToNumber, largest: 0x7bff, infinity: 0x7c00 },
  { name: "bfloat16", toBits: numberToBfloat, toNumber: bfloatToNumber, largest: 0x7f7f, infinity: 0x7f80 },
];

describe.each(FORMATS)("a number as $name", ({ toBits, toNumber, largest, infinity }) => {
  it("keeps every value that the format has", () => {
    for (let bits = 0; bits <= infinity; bits++) {
      expect(toBits(toNumber(bits))).toBe(bits);
      expect(toBits(-toNumber(bits))).toBe(bits | 0x8000);
    }
    expect(toNumber(toBits(Number.NaN))).toBeNaN();
  });

  it("is the nearest value, the even one of two", () => {
    for (let bits = 0; bits < largest; bits++) {
      const [below, above] = [toNumber(bits), toNumber(bits + 1)];
      const middle = (below + above) / 2;
      expect(toBits(middle)).toBe(bits % 2 === 0 ? bits : bits + 1);
      expect(toBits(middle - (above - below) / 1024)).toBe(bits);
      expect(toBits(middle + (above - below) / 1024)).toBe(bits + 1);
    }
  });

  it("is infinity beyond the range", () => {
    const half = (toNumber(largest) - toNumber(largest - 1)) / 2;
    expect(toBits(toNumber(largest) + half * 0.99)).toBe(largest);
    expect(toBits(toNumber(largest) + half)).toBe(infinity);
    expect(toBits(-1e300)).toBe(infinity | 0x8000);
  });
});

describe("JSON", () => {
  const parse = (text: string) => parseJson(new TextEncoder().encode(text), "The body");

  it("is what JSON.parse says where numbers are short", () => {
    fc.assert(
      fc.property(fc.jsonValue({ noUnicodeString: false }), (value) => {
        const text = JSON.stringify(value);
        fc.pre(!/\d{16}/.test(text));
        expect(parse(text)).toEqual(JSON.parse(text));
      }),
    );
  });

  it("keeps long whole numbers exactly, and texts and fractions as they are, in any surroundings", () => {
    const long = fc
      .bigInt({ min: 10n ** 15n, max: 10n ** 40n })
      .chain((value) => fc.constantFrom(value, -value));
    fc.assert(
      fc.property(
        long,
        fc.string(),
        fc.double({ noNaN: true, noDefaultInfinity: true }),
        (value, text, fraction) => {
          fc.pre(!Number.isInteger(fraction));
          const parts = [
            String(value),
            JSON.stringify(`${text}${value}"\\`),
            String(fraction),
            `${value}e-3`,
            `0.${"1".repeat(20)}`,
          ];
          const [integer, quoted, ...rest] = parse(`[${parts.join(" , ")}]`) as unknown[];
          expect(typeof integer === "bigint" ? integer : BigInt(integer as number)).toBe(value);
          expect(quoted).toBe(`${text}${value}"\\`);
          expect(rest).toEqual([fraction, Number(`${value}e-3`), Number(`0.${"1".repeat(20)}`)]);
        },
      ),
    );
  });
});
