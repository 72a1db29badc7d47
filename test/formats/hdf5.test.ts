/** The reader of HDF5 against the HDF5 library itself (h5wasm), which writes the files; and damaged files. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import * as h5wasm from "h5wasm/node";
import { beforeAll, describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { type Hdf5Object, openHdf5 } from "../../src/formats/hdf5/file.js";
import { importKerasHdf5 } from "../../src/formats/index.js";
import { toNumbers } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { writtenHdf5 } from "./keras-files.js";

beforeAll(() => h5wasm.ready);

const random = (count: number) =>
  Array.from({ length: count }, (_, at) => Math.fround(Math.sin(at * 12.9898) * 43758));

/** Data sets of every dtype, layout and filter, and what they hold. */
const CASES: [name: string, shape: number[], dtype: string, options: object][] = [
  ["plain", [3, 4, 5], "<f4", {}],
  ["scalar", [], "<f4", {}],
  ["doubles", [7], "<d", {}],
  ["bytes", [9], "<b", {}],
  ["shorts", [9], "<h", {}],
  ["ints", [2, 5], "<i", {}],
  ["unsigned", [6], "<I", {}],
  ["chunked", [10, 7], "<f4", { chunks: [4, 3] }],
  ["gzip", [40, 33], "<f4", { chunks: [16, 16], compression: "gzip", compression_opts: [6] }],
  ["chunks of three axes", [5, 6, 7], "<f4", { chunks: [2, 4, 3], compression: 4 }],
  ["many chunks", [300, 200], "<f4", { chunks: [7, 9] }],
];

function valuesOf(shape: readonly number[], dtype: string): number[] {
  const count = shape.reduce((product, size) => product * size, 1);
  const isWhole = !/f4|d/.test(dtype);
  return random(count).map((value) => (isWhole ? Math.abs(Math.trunc(value)) % 100 : value));
}

describe("files that the HDF5 library writes", () => {
  it.each(CASES)("%s", async (_, shape, dtype, options) => {
    const values = valuesOf(shape, dtype);
    const bytes = await writtenHdf5((file) => {
      const Kind = {
        f4: Float32Array,
        d: Float64Array,
        b: Int8Array,
        h: Int16Array,
        i: Int32Array,
        I: Uint32Array,
      }[dtype.slice(1)];
      const data = Kind ? new Kind(values) : values;
      file.create_group("layer").create_dataset({
        name: "weights",
        data: shape.length === 0 ? (values[0] ?? 0) : data,
        shape,
        dtype,
        ...options,
      });
    });
    const found = openHdf5(bytes).find("layer/weights");
    expect(found?.shape).toEqual(shape);
    expect([...toNumbers(found?.tensor() ?? fail())]).toEqual(values);
  });

  it("texts of fixed and any length, one and many, long ones included", async () => {
    const long = "x".repeat(100_000);
    const names = Array.from({ length: 300 }, (_, at) => `layer_${at}/kernel:0`);
    const bytes = await writtenHdf5((file) => {
      file.create_attribute("long", long);
      file.create_attribute("fixed", "one", [], "S12");
      file.create_attribute("list", names);
      file.create_attribute("fixed list", ["a", "bcd", ""], [3], "S4");
      file.create_attribute("umlaut", "Fußgänger");
    });
    const root = openHdf5(bytes);
    expect(root.texts("long")).toEqual([long]);
    expect(root.texts("fixed")).toEqual(["one"]);
    expect(root.texts("list")).toEqual(names);
    expect(root.texts("fixed list")).toEqual(["a", "bcd", ""]);
    expect(root.texts("umlaut")).toEqual(["Fußgänger"]);
    expect(root.texts("nothing")).toBeUndefined();
  });

  it("groups of many members, nested, and with creation order as Keras 3 has had them", async () => {
    const names = Array.from({ length: 700 }, (_, at) => `group ${at}`);
    for (const track of [false, true]) {
      const bytes = await writtenHdf5((file) => {
        const group = file.create_group("all", track);
        for (const name of names)
          group
            .create_group(name, track)
            .create_dataset({ name: "0", data: new Float32Array([names.indexOf(name)]) });
      });
      const all = openHdf5(bytes).find("all");
      expect(all?.names).toEqual([...names].sort());
      for (const at of [0, 9, 350, 699])
        expect([...toNumbers(all?.find(`group ${at}/0`)?.tensor() ?? fail())]).toEqual([at]);
    }
  });

  it("says what it cannot read", async () => {
    const bytes = await writtenHdf5((file) => {
      file.create_dataset({ name: "words", data: ["a", "b"] });
      file.create_attribute("number", 4);
    });
    expect(() => openHdf5(bytes).find("words")?.tensor()).toThrow(/texts/);
    expect(() => openHdf5(bytes).texts("number")).toThrow(/numbers/);
    expect(() => openHdf5(new Uint8Array(100))).toThrow(/begin/);
  });
});

function fail(): never {
  throw new Error("There is no such data set.");
}

/** Reads all that a file holds. */
function readAll(object: Hdf5Object, depth = 0): void {
  if (depth > 6) return;
  object.texts("weight_names");
  for (const name of object.names) {
    const child = object.find(name);
    if (!child) continue;
    if (child.isDataset) child.tensor();
    else readAll(child, depth + 1);
  }
}

describe("damaged files", () => {
  let small: Uint8Array;
  beforeAll(async () => {
    small = await writtenHdf5((file) => {
      const group = file.create_group("model", true);
      for (let at = 0; at < 12; at++)
        group.create_group(`layer ${at}`).create_dataset({
          name: "w",
          data: new Float32Array(40),
          shape: [8, 5],
          chunks: [3, 3],
          compression: 3,
        });
      file.create_attribute("weight_names", ["a", "bc"]);
    });
  });

  /** Damages a few bytes, cuts the file, or puts addresses elsewhere. */
  const damage = fc.record({
    bytes: fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 8 }),
    cut: fc.option(fc.nat(), { freq: 6 }),
  });
  const damaged = (file: Uint8Array, { bytes, cut }: { bytes: [number, number][]; cut: number | null }) => {
    const made = file.slice(0, cut === null ? file.length : cut % file.length);
    for (const [at, value] of bytes) if (made.length > 0) made[at % made.length] = value;
    return made;
  };

  it("end in a typed error or in numbers: 8,000 small ones", () => {
    fc.assert(
      fc.property(damage, (change) => {
        try {
          readAll(openHdf5(damaged(small, change)));
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(PolyheadError);
        }
      }),
      { numRuns: 8000, seed: 4 },
    );
  });

  it.skipIf(!hasFixtures)(
    "end in a typed error or in a model: 2,000 of a published one, its headers above all",
    () => {
      const file = new Uint8Array(
        readFileSync(join(fixturesDir, "keras/fer2013_mini_XCEPTION.102-0.66.hdf5")),
      );
      fc.assert(
        fc.property(damage, fc.integer({ min: 512, max: 2 ** 17 }), (change, window) => {
          const made = file.slice();
          for (const [at, value] of change.bytes) made[at % window] = value;
          try {
            importKerasHdf5(change.cut === null ? made : made.subarray(0, change.cut % made.length));
          } catch (thrown) {
            expect(thrown).toBeInstanceOf(PolyheadError);
          }
        }),
        { numRuns: 2000, seed: 5 },
      );
    },
  );
});
