/** Numbers as the bits of floats of 16 bits: IEEE 754 half precision and bfloat16, rounded to nearest, ties to even. */

interface Format {
  readonly fractionBits: number;
  readonly leastExponent: number;
  readonly infinity: number;
}

const HALF: Format = { fractionBits: 10, leastExponent: -14, infinity: 0x7c00 };
const BFLOAT: Format = { fractionBits: 7, leastExponent: -126, infinity: 0x7f80 };

/** The bits of the half-precision number next to `value`; those of infinity beyond its range. */
export function numberToHalf(value: number): number {
  return toBits(value, HALF);
}

/** The bits of the bfloat16 number next to `value`; those of infinity beyond its range. */
export function numberToBfloat(value: number): number {
  return toBits(value, BFLOAT);
}

function toBits(value: number, { fractionBits, leastExponent, infinity }: Format): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  if (Number.isNaN(value)) return infinity | (1 << (fractionBits - 1));
  const size = Math.abs(value);
  if (size === Number.POSITIVE_INFINITY) return sign | infinity;
  const exponent = Math.max(exponentOf(size), leastExponent);
  // In units of the last place this is below 2^(fractionBits + 1); a carry beyond it raises the exponent by itself.
  const units = roundToEven(size / 2 ** (exponent - fractionBits));
  const bits = ((exponent - leastExponent) << fractionBits) + units;
  return sign | Math.min(bits, infinity);
}

/** The whole number e with 2^e <= size < 2^(e + 1); far below every least exponent for 0. */
function exponentOf(size: number): number {
  if (size === 0) return -1100;
  const guess = Math.floor(Math.log2(size));
  if (2 ** guess > size) return guess - 1;
  return 2 ** (guess + 1) <= size ? guess + 1 : guess;
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
