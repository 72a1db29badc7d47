import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { bytesOf, fromBytes, halfToNumber, readNpy, type Tensor, writeNpy } from "../../src/tensor/index.js";
import { arbitraryTensor } from "./arbitrary.js";
import numpy from "./numpy-files.json" with { type: "json" };

const decode = (base64: string) => new Uint8Array(Buffer.from(base64, "base64"));
const malformed = expect.objectContaining({ code: "DATA_MALFORMED" });

/** Values as Python prints them, but as numbers where they are numbers. */
function comparable(values: readonly string[], dtype: string): unknown[] {
  if (dtype === "string") return [...values];
  return values.map((value) =>
    dtype.endsWith("64") && dtype.includes("int") ? BigInt(value) : pythonNumber(value),
  );
}

function pythonNumber(text: string): number {
  return Number(text.replace("inf", "Infinity").replace("nan", "NaN"));
}

function elements({ dtype, data }: Tensor): unknown[] {
  return dtype === "float16" ? Array.from(data as Uint16Array, halfToNumber) : [...data];
}

/** A file with this header text and these elements. */
function file(header: string, length = 0, version = 1): Uint8Array {
  const bytes = Buffer.from(
    `\x93NUMPY${String.fromCharCode(version)}\0\0\0${header}${"\0".repeat(length)}`,
    "latin1",
  );
  bytes.writeUInt16LE(header.length, 8);
  return new Uint8Array(bytes);
}

describe("readNpy", () => {
  for (const [name, expected] of Object.entries(numpy.arrays)) {
    it(`reads what NumPy saved: ${name}`, () => {
      const got = readNpy(decode(expected.file));
      expect(got.dtype).toBe(expected.dtype);
      expect(got.shape).toEqual(expected.shape);
      const values = comparable(expected.values, expected.dtype);
      const float16Digits = expected.dtype === "float16" ? 1e-3 : 0;
      elements(got).forEach((value, index) => {
        if (float16Digits && Number.isFinite(value)) expect(value).toBeCloseTo(Number(values[index]), 3);
        else expect(value).toEqual(values[index]);
      });
      expect(got.data.length).toBe(values.length);
    });
  }

  for (const [name, bytes] of Object.entries(numpy.refused)) {
    it(`refuses ${name}`, () => expect(() => readNpy(decode(bytes))).toThrow(malformed));
  }

  const header = (shape: string, descr = "'<f4'") =>
    `{'descr': ${descr}, 'fortran_order': False, 'shape': ${shape}, }\n`;
  const broken: Record<string, Uint8Array> = {
    "an empty file": new Uint8Array(),
    "another format": new TextEncoder().encode("PK\x03\x04 not an array at all"),
    "version 9": file(header("(1,)"), 4, 9),
    "a header longer than the file": file(header("(1,)"), 4).subarray(0, 40),
    "no shape": file("{'descr': '<f4', 'fortran_order': False}\n", 4),
    "a negative dimension": file(header("(-1,)"), 4),
    "a dimension beyond whole numbers": file(header("(99999999999999999999,)"), 4),
    "more elements than bytes": file(header("(1000000000000, 1000)"), 4),
    "a product that overflows": file(header(`(${"9007199254740991, ".repeat(20)})`), 4),
    "too many dimensions": file(header(`(${"1, ".repeat(65)})`), 4),
    "bytes after the elements": file(header("(1,)"), 8),
    "text of no width in absurd number": file(header("(9007199254740991,)", "'<U0'"), 0),
    "text beyond Unicode": Uint8Array.of(...file(header("(1,)", "'>U1'")), 255, 255, 255, 255),
    "an unknown type": file(header("(1,)", "'<q7'"), 7),
    "expressions instead of data": file(header("(1,)", "__import__('os')"), 4),
  };
  for (const [name, bytes] of Object.entries(broken)) {
    it(`refuses ${name}`, () => expect(() => readNpy(bytes)).toThrow(malformed));
  }

  it("reads Python 2's long dimensions and loose spacing", () => {
    expect(readNpy(file("{ 'shape':(2L,),'descr' : '<i1','fortran_order':False }", 2)).shape).toEqual([2]);
  });

  it("answers any damaged file with a value or a typed error", () => {
    const whole = writeNpy({ dtype: "string", shape: [2, 2], data: ["a", "bc", "", "é"] });
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.nat(whole.length), (at, byte, end) => {
        const damaged = whole.slice(0, Math.max(at, end));
        damaged[at] = byte;
        try {
          readNpy(damaged);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(PolyheadError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("writeNpy", () => {
  for (const [name, { file: saved }] of Object.entries(numpy.arrays)) {
    if (/big-endian|fortran|version|bytes/.test(name)) continue;
    it(`writes NumPy's own bytes: ${name}`, () => {
      expect(Buffer.from(writeNpy(readNpy(decode(saved))))).toEqual(Buffer.from(decode(saved)));
    });
  }

  it("gives back every tensor bit for bit", () => {
    fc.assert(
      fc.property(arbitraryTensor, (value) => {
        const back = readNpy(writeNpy(value));
        expect(back.dtype).toBe(value.dtype);
        expect(back.shape).toEqual(value.shape);
        if (value.dtype === "string") expect(back.data).toEqual(value.data);
        else expect(bytesOf(back)).toEqual(bytesOf(value));
      }),
    );
  });

  it("reads elements in place when they are aligned, and at any offset", () => {
    const saved = writeNpy({ dtype: "float64", shape: [2], data: Float64Array.of(1.5, -2) });
    expect(bytesOf(readNpy(saved)).buffer).toBe(saved.buffer);
    const shifted = new Uint8Array(saved.length + 1);
    shifted.set(saved, 1);
    expect([...readNpy(shifted.subarray(1)).data]).toEqual([1.5, -2]);
  });

  it("leaves the bytes of a Node Buffer as they are", () => {
    const saved = Buffer.from(decode(numpy.arrays["big-endian f4"].file));
    const before = Buffer.from(saved);
    expect([...readNpy(saved).data]).toEqual([1, 2, 3, 4, 5, 6]);
    expect(saved).toEqual(before);
  });

  it("refuses a dtype that NumPy has not", () => {
    const value = fromBytes("bfloat16", [1], new Uint8Array(2));
    expect(() => writeNpy(value)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
  });
});
