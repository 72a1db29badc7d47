/** Batches: their order, that timing changes nothing, resuming, looking ahead, mixing, balance; rows of images. */
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { combinedSeed, type Random, seededRandom } from "../../src/base/random.js";
import {
  ArrayRows,
  AUGMENTATIONS,
  arraySet,
  asListed,
  BatchOrder,
  batches,
  boxDataSet,
  boxRows,
  classCounts,
  classDataSet,
  classNumbers,
  classRows,
  classWeights,
  exampleWeights,
  mixedClasses,
  type RowSource,
  stacked,
} from "../../src/data/index.js";
import { float32, int64, type Tensor, toNumbers } from "../../src/tensor/index.js";
import { decodeImage, imageTensor, parsePreprocessing } from "../../src/vision/index.js";
import { foodPhoto } from "../vision/pictures.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function collected<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const list: Item[] = [];
  for await (const item of items) list.push(item);
  return list;
}

/** Rows that say which example they are and what was drawn, and take as long as `wait` says. */
function source(count: number, wait: () => Promise<unknown> = async () => {}) {
  const state = { begun: 0, underWay: 0, most: 0 };
  const rows: RowSource<number> = {
    count,
    async row(example: number, random: Random) {
      state.begun++;
      state.most = Math.max(state.most, ++state.underWay);
      await wait();
      state.underWay--;
      return { x: float32([1, 2], [example, random()]), target: example };
    },
  };
  return { rows, state };
}

describe("the order of examples", () => {
  it("has every example once an epoch, in another order each time", () => {
    const options = { count: fc.integer({ min: 1, max: 60 }), size: fc.integer({ min: 1, max: 20 }) };
    fc.assert(
      fc.property(fc.record(options), fc.integer(), ({ count, size }, seed) => {
        const order = new BatchOrder({ count, size, seed, keepsRest: true });
        const epoch = (number: number) =>
          [...Array(order.perEpoch).keys()].flatMap((at) => order.at(number * order.perEpoch + at).examples);
        expect(epoch(0).sort((a, b) => a - b)).toEqual([...Array(count).keys()]);
        expect(epoch(5).sort((a, b) => a - b)).toEqual([...Array(count).keys()]);
        expect(order.at(order.perEpoch).epoch).toBe(1);
      }),
    );
    const order = new BatchOrder({ count: 50, size: 50, seed: 1 });
    expect(order.at(0).examples).not.toEqual(order.at(1).examples);
    expect(new BatchOrder({ count: 50, size: 50, seed: 2 }).at(0)).not.toEqual(order.at(0));
  });

  it("leaves out or keeps the rest of an epoch", () => {
    const order = new BatchOrder({ count: 10, size: 4, seed: 0 });
    expect(order.perEpoch).toBe(2);
    expect([0, 1, 2].map((step) => order.at(step).examples.length)).toEqual([4, 4, 4]);
    const keeping = new BatchOrder({ count: 10, size: 4, seed: 0, keepsRest: true, isShuffled: false });
    expect([0, 1, 2, 3].map((step) => keeping.at(step).examples)).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7],
      [8, 9],
      [0, 1, 2, 3],
    ]);
    expect(new BatchOrder({ count: 3, size: 8, seed: 0 }).at(0).examples).toHaveLength(3);
  });

  it("is the same asked in any order", () => {
    const one = new BatchOrder({ count: 20, size: 3, seed: 5 });
    const steps = [...Array(30).keys()];
    const forward = steps.map((step) => one.at(step));
    expect(steps.toReversed().map((step) => one.at(step))).toEqual(forward.toReversed());
  });

  it("draws by weight", () => {
    const classes = [...Array(900).fill(0), ...Array(100).fill(1)];
    const weights = exampleWeights(classes, 2);
    const order = new BatchOrder({ count: 1000, size: 1000, seed: 3, weights });
    const drawn = [0, 1, 2].flatMap((step) => order.at(step).examples);
    const rare = drawn.filter((at) => classes[at] === 1).length / drawn.length;
    // 3000 draws of even chance: four deviations are 3.7 percent.
    expect(Math.abs(rare - 0.5)).toBeLessThan(0.037);
    const some = new BatchOrder({ count: 4, size: 4, seed: 3, weights: [0, 1, 0, 0] });
    expect(some.at(0).examples).toEqual([1, 1, 1, 1]);
  });

  it("refuses what it cannot order", () => {
    for (const wrong of [
      { count: 0, size: 1 },
      { count: 5, size: 0 },
      { count: 5, size: 1.5 },
      { count: 2, size: 1, weights: [1] },
      { count: 2, size: 1, weights: [1, -1] },
      { count: 2, size: 1, weights: [0, 0] },
      { count: 2, size: 1, weights: [1, Number.NaN] },
    ]) {
      expect(() => new BatchOrder({ ...wrong, seed: 0 })).toThrow(PolyheadError);
    }
  });
});

describe("batches", () => {
  const order = new BatchOrder({ count: 17, size: 4, seed: 9 });
  const options = { order, seed: 9, collate: classNumbers, to: 12 };

  it("do not depend on timing", async () => {
    const plain = await collected(batches({ ...options, rows: source(17).rows }));
    expect(plain.map(({ step }) => step)).toEqual([...Array(12).keys()]);
    expect(plain[0]?.x.shape).toEqual([4, 2]);
    expect(plain[0]?.y).toEqual(int64([4], plain[0]?.examples ?? []));
    const delays = seededRandom(1);
    for (const [ahead, inFlight] of [
      [1, 1],
      [2, 4],
      [5, 3],
    ]) {
      const { rows, state } = source(17, () => sleep(delays() * 3));
      const settings = { ...options, rows, ahead: ahead ?? 1, inFlight: inFlight ?? 1 };
      expect(await collected(batches(settings))).toEqual(plain);
      expect(state.most).toBeLessThanOrEqual(inFlight ?? 1);
    }
  });

  it("go on where training stopped", async () => {
    const whole = await collected(batches({ ...options, rows: source(17).rows }));
    for (const from of [0, 1, 4, 7, 11, 12]) {
      const rest = await collected(batches({ ...options, rows: source(17).rows, from }));
      expect(rest).toEqual(whole.slice(from));
    }
  });

  it("draw other numbers for every row, batch and seed", async () => {
    const drawn = (list: readonly { x: Tensor }[]) =>
      list.flatMap(({ x }) => [...toNumbers(x)].filter((_, at) => at % 2 === 1));
    const first = drawn(await collected(batches({ ...options, rows: source(17).rows })));
    const second = drawn(await collected(batches({ ...options, rows: source(17).rows, seed: 10 })));
    expect(new Set([...first, ...second]).size).toBe(96);
    // Seeds that differ by one give numbers spread evenly.
    const spread = [...Array(4000).keys()].map((at) => seededRandom(combinedSeed(3, at))());
    const tenths = [...Array(10).keys()].map(
      (tenth) => spread.filter((v) => Math.floor(v * 10) === tenth).length,
    );
    for (const count of tenths) expect(Math.abs(count - 400)).toBeLessThan(4 * Math.sqrt(360));
  });

  it("are made ahead, but not further than asked", async () => {
    const { rows, state } = source(17);
    const iterator = batches({ ...options, rows, ahead: 3 });
    await iterator.next();
    await sleep(20);
    expect(state.begun).toBe(16);
    await iterator.next();
    await sleep(20);
    expect(state.begun).toBe(20);
    await iterator.return();
    await sleep(20);
    expect(state.begun).toBe(20);
  });

  it("fail when the one that cannot be made is due, and make no more", async () => {
    const { rows, state } = source(17);
    let made = 0;
    const failing: RowSource<number> = {
      count: 17,
      row: async (example, random) => {
        if (++made === 9) throw new PolyheadError("DATA_MALFORMED", "broken", {});
        return rows.row(example, random);
      },
    };
    const iterator = batches({ ...options, rows: failing, ahead: 4, inFlight: 1 });
    expect((await iterator.next()).value?.step).toBe(0);
    expect((await iterator.next()).value?.step).toBe(1);
    await expect(iterator.next()).rejects.toMatchObject({ code: "DATA_MALFORMED", message: "broken" });
    expect(state.begun).toBe(8);
    expect((await iterator.next()).done).toBe(true);
  });
});

describe("mixing", () => {
  /** Images of one value, their class, so that the mean says in which proportion classes are mixed. */
  const classes = [0, 1, 2, 3, 4, 5];
  const flat = (layout: "nchw" | "nhwc") => {
    const shape = layout === "nchw" ? [6, 2, 8, 12] : [6, 8, 12, 2];
    return float32(
      shape,
      classes.flatMap((each) => Array<number>(192).fill(each)),
    );
  };

  it("mixes classes in the proportion of the pixels", () => {
    for (const [mixup, cutmix] of [
      [0.4, 0],
      [0, 1],
      [0.4, 1],
      [0.01, 0],
      [0, 0],
    ] as const) {
      for (const layout of ["nchw", "nhwc"] as const) {
        for (let seed = 0; seed < 40; seed++) {
          const collate = mixedClasses(6, { mixup, cutmix, layout });
          const { x, y } = collate(flat(layout), classes, seededRandom(seed));
          expect(y.shape).toEqual([6, 6]);
          const [pixels, shares] = [toNumbers(x), toNumbers(y)];
          classes.forEach((own) => {
            const mean = pixels
              .slice(own * 192, own * 192 + 192)
              .reduce((sum, value) => sum + value / 192, 0);
            const share = [...shares.slice(own * 6, own * 6 + 6)];
            expect(share.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 5);
            expect(share.reduce((sum, value, at) => sum + value * at, 0)).toBeCloseTo(mean, 4);
            if (mixup + cutmix === 0) expect(share[own]).toBe(1);
          });
        }
      }
    }
  });

  it("draws its proportion from the beta distribution", () => {
    const shares = (alpha: number) =>
      [...Array(3000).keys()].map((seed) => {
        const { y } = mixedClasses(2, { mixup: alpha, cutmix: 0, layout: "nchw" })(
          float32([2, 1, 1, 1], [0, 1]),
          [0, 1],
          seededRandom(combinedSeed(alpha * 10, seed)),
        );
        return toNumbers(y)[0] ?? 0;
      });
    for (const alpha of [0.2, 1, 4]) {
      // Half of the pairs are an image with itself; the others have the variance of the distribution.
      const mixed = shares(alpha).filter((share) => share < 1);
      const variance = mixed.reduce((sum, share) => sum + (share - 0.5) ** 2, 0) / mixed.length;
      const expected = 1 / (4 * (2 * alpha + 1));
      expect(Math.abs(variance / expected - 1)).toBeLessThan(0.12);
    }
  });
});

describe("balance", () => {
  it("gives classes the weight of their rarity", () => {
    const counts = classCounts([0, 0, 0, 0, 0, 0, 1, 1, 2], 4);
    expect(counts).toEqual([6, 2, 1, 0]);
    expect(classWeights(counts)).toEqual([0.5, 1.5, 3, 0]);
    expect(classWeights(counts, 0)).toEqual([1, 1, 1, 0]);
    const half = classWeights(counts, 0.5);
    expect((half[1] ?? 0) / (half[0] ?? 1)).toBeCloseTo(Math.sqrt(3), 12);
    expect(counts.reduce((sum, count, at) => sum + count * (half[at] ?? 0), 0)).toBeCloseTo(9, 12);
  });
});

describe("rows of arrays", () => {
  const x = float32([2, 1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  const set = arraySet("test", x, int64([2], [1, 0]));

  it("are copies, mirrored and shifted as asked", async () => {
    const plain = await new ArrayRows(set).row(0, seededRandom(0));
    expect(plain).toEqual({ x: float32([1, 1, 2, 3], [1, 2, 3, 4, 5, 6]), target: 1 });
    (plain.x.data as Float32Array).fill(0);
    expect((await new ArrayRows(set).row(0, seededRandom(0))).x.data[0]).toBe(1);
    const mirrored = await new ArrayRows(set, { mirror: 1 }).row(1, seededRandom(0));
    expect(mirrored).toEqual({ x: float32([1, 1, 2, 3], [9, 8, 7, 12, 11, 10]), target: 0 });
    const seen = new Set<string>();
    for (let seed = 0; seed < 200; seed++) {
      seen.add(`${(await new ArrayRows(set, { shift: 1 }).row(0, seededRandom(seed))).x.data}`);
    }
    expect(seen.size).toBe(9);
    for (const shifted of ["0,1,2,0,4,5", "0,0,0,1,2,3", "5,6,0,0,0,0"]) expect(seen).toContain(shifted);
    expect((await new ArrayRows(set, {}, [1]).row(0, seededRandom(0))).target).toBe(0);
    expect(stacked([x, x]).shape).toEqual([2, 1, 2, 3]);
  });
});

describe("rows of images", () => {
  const preprocessing = parsePreprocessing({ height: 24, width: 32, fit: "cover", mean: [0.5, 0.5, 0.5] });
  const listing = (names: readonly string[]) => ({
    labels: ["A", "B"],
    images: names.map((name) => ({ id: name, path: foodPhoto(name), target: name.startsWith("A") ? 0 : 1 })),
    problems: [],
  });

  it("are what the model is given when it serves, without augmentation", async () => {
    const { examples } = await classDataSet(listing(["A001", "B001"]));
    const { x, target } = await classRows(examples, { preprocessing }).row(1, seededRandom(0));
    expect(target).toBe(1);
    expect(x).toEqual((await imageTensor(await decodeImage(foodPhoto("B001")), preprocessing)).tensor);
  });

  it("are the same whether decoded images are kept or not, and in any order", async () => {
    const { examples } = await classDataSet(listing(["A001", "A002", "B001", "B002", "B003"]));
    const order = new BatchOrder({ count: 5, size: 3, seed: 2, keepsRest: true });
    const run = (memory: number, inFlight: number) =>
      collected(
        batches({
          rows: classRows(examples, { preprocessing, augmentation: AUGMENTATIONS.strong, memory }),
          ...{
            order,
            seed: 2,
            to: 8,
            inFlight,
            collate: mixedClasses(2, { mixup: 0.2, cutmix: 1, layout: "nchw" }),
          },
        }),
      );
    const kept = await run(2 ** 29, 4);
    expect(kept[0]?.x.shape).toEqual([3, 3, 24, 32]);
    // Room for none of them, and for two.
    expect(await run(0, 1)).toEqual(kept);
    expect(await run(30_000, 3)).toEqual(kept);
    const values = kept.map(({ x }) => `${toNumbers(x).slice(0, 50)}`);
    expect(new Set(values).size).toBe(8);
  });

  it("with boxes have them where the object is in the model's input", async () => {
    const path = foodPhoto("A001");
    const { width, height } = await decodeImage(path);
    const whole = { x1: 0, y1: 0, x2: width, y2: height, classIndex: 0, area: 50 };
    const list = { labels: ["it"], images: [{ id: "a", path, target: [whole] }], problems: [] };
    const { examples } = await boxDataSet(list);
    const stretch = parsePreprocessing({ height: 20, width: 40 });
    // An object that fills a part of its box fills the same part of it in the model's input.
    const area = (50 * 20 * 40) / (width * height);
    const { target } = await boxRows(examples, { preprocessing: stretch }).row(0, seededRandom(0));
    expect(target).toEqual([{ x1: 0, y1: 0, x2: 40, y2: 20, classIndex: 0, area: expect.closeTo(area, 6) }]);
    // The kept image is smaller than the file's; the box still ends at the edges of what is shown.
    const zoomedOut = { ...AUGMENTATIONS.none, area: [2, 2] };
    const row = await boxRows(examples, { preprocessing: stretch, augmentation: zoomedOut }).row(
      0,
      seededRandom(5),
    );
    const [box] = row.target;
    expect((box?.x2 ?? 0) - (box?.x1 ?? 0)).toBeCloseTo(28, 0);
    expect((box?.y2 ?? 0) - (box?.y1 ?? 0)).toBeCloseTo(14, 0);
    const [batch] = await collected(
      batches({
        rows: boxRows(examples, { preprocessing: stretch }),
        ...{ order: new BatchOrder({ count: 1, size: 1, seed: 0 }), seed: 0, to: 1, collate: asListed },
      }),
    );
    expect(batch?.y).toEqual([target]);
  });

  it("are an error when the file has changed", async () => {
    const path = join(folder, "changing.jpeg");
    await copyFile(foodPhoto("A001"), path);
    const list = listing(["B001"]);
    const images = [...list.images, { id: "changing", path, target: 0 }];
    const { examples } = await classDataSet({ ...list, images });
    await copyFile(foodPhoto("A002"), path);
    for (const augmentation of [undefined, AUGMENTATIONS.light]) {
      const rows = classRows(examples, { preprocessing, augmentation });
      await expect(rows.row(1, seededRandom(0))).rejects.toMatchObject({
        code: "DATA_MALFORMED",
        message: expect.stringContaining("changing has changed"),
      });
    }
    await writeFile(path, "");
    await expect(classRows(examples, { preprocessing }).row(1, seededRandom(0))).rejects.toBeInstanceOf(
      PolyheadError,
    );
  });
});
