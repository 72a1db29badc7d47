/** Raw contents against bytes written by hand, and against every shorter and longer version of them. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { DATATYPES, datatypeOf, dtypeOf, metadataShape } from "../../src/server/protocol/datatypes.js";
import { DEFAULT_LIMITS } from "../../src/server/protocol/limits.js";
import { checkShape, readRawTensor, writeRawTensor } from "../../src/server/protocol/raw-tensor.js";
import type { DType } from "../../src/tensor/dtype.js";

const read = (dtype: DType, shape: number[], bytes: Uint8Array) =>
  readRawTensor(dtype, shape, bytes, 'Input "x"', DEFAULT_LIMITS);
const codeOf = (act: () => unknown) => {
  try {
    act();
  } catch (thrown) {
    return thrown instanceof PolyheadError ? thrown.code : thrown;
  }
  return undefined;
};

/** Two elements of each datatype with their bytes. */
const EXAMPLES: Readonly<Record<string, { bytes: number[]; data: readonly unknown[] }>> = {
  BOOL: { bytes: [1, 0], data: [1, 0] },
  UINT8: { bytes: [7, 255], data: [7, 255] },
  UINT16: { bytes: [1, 2, 255, 255], data: [513, 65535] },
  UINT32: { bytes: [1, 0, 0, 0, 0, 0, 0, 128], data: [1, 2147483648] },
  UINT64: {
    bytes: [1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255],
    data: [1n, 2n ** 64n - 1n],
  },
  INT8: { bytes: [127, 128], data: [127, -128] },
  INT16: { bytes: [0, 128, 255, 255], data: [-32768, -1] },
  INT32: { bytes: [0, 0, 0, 128, 2, 0, 0, 0], data: [-2147483648, 2] },
  INT64: {
    bytes: [0, 0, 0, 0, 0, 0, 0, 128, 255, 255, 255, 255, 255, 255, 255, 255],
    data: [-(2n ** 63n), -1n],
  },
  FP16: { bytes: [0, 0x3c, 0, 0xc0], data: [0x3c00, 0xc000] },
  FP32: { bytes: [0, 0, 128, 63, 0, 0, 0, 192], data: [1, -2] },
  FP64: { bytes: [0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0], data: [1, -2] },
  BYTES: { bytes: [2, 0, 0, 0, 0xc3, 0xa4, 0, 0, 0, 0], data: ["ä", ""] },
  BF16: { bytes: [0x80, 0x3f, 0, 0xc0], data: [0x3f80, 0xc000] },
};

describe("raw tensor contents", () => {
  it("has an example of every datatype", () => {
    expect(Object.keys(EXAMPLES)).toEqual([...DATATYPES]);
  });

  it.each(Object.entries(EXAMPLES))("reads and writes %s", (datatype, { bytes, data }) => {
    const dtype = dtypeOf(datatype, "x");
    expect(datatypeOf(dtype)).toBe(datatype);
    const tensor = read(dtype, [2, 1], Uint8Array.from(bytes));
    expect([...tensor.data]).toEqual(data);
    expect(tensor.shape).toEqual([2, 1]);
    expect([...writeRawTensor(tensor)]).toEqual(bytes);
  });

  it.each(Object.entries(EXAMPLES))("refuses %s of any other size", (datatype, { bytes }) => {
    const dtype = dtypeOf(datatype, "x");
    for (let length = 0; length < bytes.length; length++) {
      expect(codeOf(() => read(dtype, [2], Uint8Array.from(bytes.slice(0, length))))).toMatch(
        /MISMATCH|MALFORMED/,
      );
    }
    expect(codeOf(() => read(dtype, [2], Uint8Array.from([...bytes, 0])))).toMatch(/MISMATCH|MALFORMED/);
    expect(codeOf(() => read(dtype, [2], Uint8Array.from([...bytes, 0, 0, 0, 0])))).toMatch(
      /MISMATCH|MALFORMED/,
    );
  });

  it("uses aligned numbers where they lie and copies others", () => {
    const buffer = new Uint8Array(12);
    buffer.set([0, 0, 128, 63], 4);
    const aligned = read("float32", [1], buffer.subarray(4, 8));
    expect(ArrayBuffer.isView(aligned.data) && aligned.data.buffer).toBe(buffer.buffer);
    buffer.set([0, 0, 128, 63], 5);
    const copied = read("float32", [1], buffer.subarray(5, 9));
    expect([...copied.data]).toEqual([1]);
    expect(ArrayBuffer.isView(copied.data) && copied.data.buffer).not.toBe(buffer.buffer);
  });

  it("never takes memory or time for what is not there", () => {
    expect(codeOf(() => read("string", [2 ** 24], Uint8Array.of(255, 255, 255, 255)))).toBe("DATA_MALFORMED");
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat(6), (bytes, count) => {
        const code = codeOf(() => read("string", [count], bytes));
        expect([undefined, "DATA_MALFORMED", "INPUT_MISMATCH"]).toContain(code);
      }),
    );
  });

  it("refuses bools beyond 1 and text that is not UTF-8", () => {
    expect(codeOf(() => read("bool", [2], Uint8Array.of(1, 2)))).toBe("DATA_MALFORMED");
    expect(codeOf(() => read("string", [1], Uint8Array.of(1, 0, 0, 0, 0xff)))).toBe("DATA_MALFORMED");
  });
});

describe("a client's shape", () => {
  const check = (shape: unknown) => checkShape(shape, 'Input "x"', DEFAULT_LIMITS);

  it("is a list of whole numbers", () => {
    expect(check([])).toEqual([]);
    expect(check([2, 0, 3])).toEqual([2, 0, 3]);
    for (const shape of [
      undefined,
      null,
      3,
      "3",
      [1.5],
      [-1],
      ["2"],
      [null],
      [[2]],
      [Number.NaN],
      [2 ** 1023 * 2],
    ]) {
      expect(codeOf(() => check(shape))).toBe("INVALID_ARGUMENT");
    }
  });

  it("has a limit on elements that zeros and overflow do not lift", () => {
    for (const shape of [[2 ** 25], [2 ** 53, 0], [2 ** 31, 2 ** 31, 4], [1e300, 1e300]]) {
      expect(codeOf(() => check(shape))).toBe("LIMIT_EXCEEDED");
    }
    expect(codeOf(() => check(Array(17).fill(1)))).toBe("LIMIT_EXCEEDED");
  });
});

describe("datatypes", () => {
  it("have no names for types that the protocol lacks", () => {
    expect(codeOf(() => datatypeOf("complex64"))).toBe("MODEL_UNSUPPORTED");
    for (const name of ["fp32", "FLOAT", "", "constructor", 3, undefined, { a: 1 }]) {
      expect(codeOf(() => dtypeOf(name, "x"))).toBe("INVALID_ARGUMENT");
    }
  });

  it("show open dimensions as -1", () => {
    expect(metadataShape(["batch", 3, 224])).toEqual([-1, 3, 224]);
  });
});
