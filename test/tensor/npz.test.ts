import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { zipSync } from "fflate";
import { describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { float32, readNpz, writeNpy, writeNpz } from "../../src/tensor/index.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { arbitraryTensor } from "./arbitrary.js";
import numpy from "./numpy-files.json" with { type: "json" };

const decode = (base64: string) => new Uint8Array(Buffer.from(base64, "base64"));
const malformed = expect.objectContaining({ code: "DATA_MALFORMED" });
const sample = { a: float32([2], [1, 2]), "head/b": float32([], [3]) };

/** Changes a number in the only directory entry of an archive. */
function withDirectoryField(bytes: Uint8Array, offset: number, value: number): Uint8Array {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  const directory = view.getUint32(copy.length - 22 + 16, true);
  view.setUint32(directory + offset, value, true);
  return copy;
}

describe("readNpz", () => {
  for (const [name, archive] of Object.entries(numpy.archives)) {
    it(`reads what NumPy saved: ${name}`, () => {
      const arrays = readNpz(decode(archive));
      expect([...arrays.keys()]).toEqual(["features", "labels", "head/logits"]);
      expect(arrays.get("features")).toEqual(
        float32(
          [8, 8],
          Float32Array.from({ length: 64 }, (_, index) => index),
        ),
      );
      expect(arrays.get("labels")).toEqual({ dtype: "string", shape: [2], data: ["cat", "dog"] });
      expect([...(arrays.get("head/logits")?.data ?? [])]).toEqual([1n, 2n, 3n, 4n, 5n, 6n]);
    });
  }

  it.skipIf(!hasFixtures)("reads the fixtures' goldens", () => {
    const arrays = readNpz(readFileSync(join(fixturesDir, "family/goldens.npz")));
    expect(arrays.get("input")?.dtype).toBe("float32");
    expect(arrays.get("animals")?.shape[0]).toBe(arrays.get("input")?.shape[0]);
    expect(readNpz(writeNpz(arrays))).toEqual(arrays);
  });

  it("reads ZIP64 sizes and directories", () => {
    const plain = writeNpz({ a: sample.a });
    const view = new DataView(plain.buffer);
    const start = view.getUint32(plain.length - 22 + 16, true);
    const size = view.getUint32(start + 24, true);
    const field = new Uint8Array(28);
    const fieldView = new DataView(field.buffer);
    fieldView.setUint16(0, 1, true);
    fieldView.setUint16(2, 24, true);
    fieldView.setBigUint64(4, BigInt(size), true);
    fieldView.setBigUint64(12, BigInt(size), true);
    const entry = plain.slice(start, plain.length - 22);
    const entryView = new DataView(entry.buffer);
    for (const at of [20, 24, 42]) entryView.setUint32(at, 0xffffffff, true);
    entryView.setUint16(30, field.length, true);
    const end64 = new Uint8Array(56 + 20);
    const end64View = new DataView(end64.buffer);
    end64View.setUint32(0, 0x06064b50, true);
    end64View.setBigUint64(32, 1n, true);
    end64View.setBigUint64(48, BigInt(start), true);
    end64View.setUint32(56, 0x07064b50, true);
    end64View.setBigUint64(56 + 8, BigInt(start + entry.length + field.length), true);
    const end = plain.slice(plain.length - 22).fill(255, 8, 20);
    const wide = Buffer.concat([plain.subarray(0, start), entry, field, end64, end]);
    expect(readNpz(wide)).toEqual(new Map([["a", sample.a]]));
  });

  const file = writeNpy(sample.a);
  const deflated = zipSync({ "a.npy": file }, { level: 9 });
  const stored = zipSync({ "a.npy": file }, { level: 0 });
  const broken: Record<string, Uint8Array> = {
    "an empty file": new Uint8Array(),
    "an array alone": file,
    "a truncated archive": stored.subarray(0, -30),
    "a member that is no array": zipSync({ "a.txt": file }),
    "two arrays of one name": duplicated(),
    "a stored size that lies": withDirectoryField(stored, 24, 4_000_000_000),
    "an impossible ratio": withDirectoryField(deflated, 24, 400_000_000),
    "a deflated size that lies": withDirectoryField(deflated, 24, 4096),
    "a compressed size beyond the file": withDirectoryField(deflated, 20, 1_000_000),
    "a wrong checksum": withDirectoryField(stored, 16, 1),
    "an unknown method": withDirectoryField(stored, 8, 14 << 16),
    "an encrypted member": withDirectoryField(stored, 8, 1),
    "an offset outside": withDirectoryField(stored, 42, 1_000_000),
    "an absurd number of members": manyMembers(),
  };
  for (const [name, bytes] of Object.entries(broken)) {
    it(`refuses ${name}`, () => expect(() => readNpz(bytes)).toThrow(malformed));
  }

  function duplicated(): Uint8Array {
    const copy = writeNpz({ a: sample.a, b: sample.a });
    return copy.map((byte, at) => (byte === 98 && copy[at + 1] === 46 ? 97 : byte));
  }

  function manyMembers(): Uint8Array {
    const copy = stored.slice();
    new DataView(copy.buffer).setUint32(copy.length - 22 + 8, 0xffffffff, true);
    return copy;
  }

  it("refuses to inflate beyond the limit", () => {
    const bomb = zipSync({ "a.npy": writeNpy(float32([1000], new Float32Array(1000))) });
    expect(() => readNpz(bomb, { inflatedBytes: 1000 })).toThrow(
      expect.objectContaining({ code: "LIMIT_EXCEEDED" }),
    );
    expect(readNpz(bomb).get("a")?.shape).toEqual([1000]);
  });

  it("answers any damaged file with a value or a typed error", () => {
    fc.assert(
      fc.property(fc.constantFrom(stored, deflated), fc.nat(400), fc.nat(255), (whole, at, byte) => {
        const damaged = whole.slice();
        damaged[at % damaged.length] = byte;
        try {
          readNpz(damaged);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(PolyheadError);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("writeNpz", () => {
  it("gives back every archive, names and order included", () => {
    const name = fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(name, arbitraryTensor), { maxLength: 4, selector: ([key]) => key }),
        (list) => {
          const arrays = new Map(list);
          expect([...readNpz(writeNpz(arrays))]).toEqual([...arrays]);
        },
      ),
    );
  });

  it("is deterministic and takes a plain object", () => {
    expect(writeNpz(sample)).toEqual(writeNpz(new Map(Object.entries(sample))));
    expect([...readNpz(writeNpz(sample)).keys()]).toEqual(["a", "head/b"]);
    expect(readNpz(writeNpz({})).size).toBe(0);
  });
});
