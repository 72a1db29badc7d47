/** Random views: what they show, where boxes come to lie, what they do to colours. */
import fc from "fast-check";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../src/base/random.js";
import {
  AUGMENTATIONS,
  type Augmentation,
  parseAugmentation,
  randomView,
  viewedBoxes,
} from "../../src/data/index.js";
import { toNumbers } from "../../src/tensor/index.js";
import {
  decodeImage,
  type Image,
  imageTensor,
  parsePreprocessing,
  viewTensor,
} from "../../src/vision/index.js";
import { foodPhoto, plainImage } from "../vision/pictures.js";

const plain = AUGMENTATIONS.none;
const moving: Augmentation = { ...plain, mirror: 0.5, upsideDown: 0.5, area: [0.2, 3], aspect: 1.5 };
const fits = fc.constantFrom("stretch", "cover", "contain");
const sides = { width: fc.integer({ min: 1, max: 300 }), height: fc.integer({ min: 1, max: 300 }) };

/** A white rectangle on black. */
function spot(width: number, height: number, box: { x1: number; y1: number; x2: number; y2: number }): Image {
  const image = plainImage(width, height, [0, 0, 0]);
  for (let y = box.y1; y < box.y2; y++) {
    image.rgb.fill(255, (y * width + box.x1) * 3, (y * width + box.x2) * 3);
  }
  return image;
}

describe("a random view", () => {
  it("takes pixels that the image has to pixels that the input has", () => {
    fc.assert(
      fc.property(fc.record(sides), fc.record(sides), fits, fc.integer(), (size, input, fit, seed) => {
        const preprocessing = parsePreprocessing({ ...input, fit });
        const { placement } = randomView(size, preprocessing, moving, seededRandom(seed));
        for (const [{ left, top, width, height }, within] of [
          [placement.source, size],
          [placement.target, input],
        ] as const) {
          for (const value of [left, top, width, height]) expect(Number.isInteger(value)).toBe(true);
          expect(Math.min(left, top)).toBeGreaterThanOrEqual(0);
          expect(Math.min(width, height)).toBeGreaterThanOrEqual(1);
          expect(left + width).toBeLessThanOrEqual(within.width);
          expect(top + height).toBeLessThanOrEqual(within.height);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("is the plain one when nothing may change", async () => {
    const image = await decodeImage(foodPhoto("A003"));
    for (const fit of ["stretch", "cover", "contain"]) {
      const preprocessing = parsePreprocessing({ height: 60, width: 80, fit, crop: 0.875 });
      const view = randomView(image, preprocessing, plain, seededRandom(3));
      const { tensor } = await imageTensor(image, preprocessing);
      expect(await viewTensor(image, view, preprocessing)).toEqual(tensor);
    }
  });

  it("shows the share of the area that was asked for", () => {
    const preprocessing = parsePreprocessing({ height: 100, width: 100, fit: "stretch" });
    for (const area of [0.25, 0.5]) {
      const augmentation = { ...plain, area: [area, area], aspect: 1.2 };
      for (let seed = 0; seed < 20; seed++) {
        const { source } = randomView(
          { width: 800, height: 600 },
          preprocessing,
          augmentation,
          seededRandom(seed),
        ).placement;
        expect(source.width * source.height).toBeGreaterThan(area * 480_000 * 0.98);
        expect(source.width * source.height).toBeLessThan(area * 480_000 * 1.02);
      }
    }
    const { target } = randomView(
      { width: 800, height: 600 },
      preprocessing,
      { ...plain, area: [4, 4] },
      seededRandom(1),
    ).placement;
    expect([target.width, target.height]).toEqual([50, 50]);
  });

  it("moves boxes with what they enclose", async () => {
    for (let seed = 0; seed < 60; seed++) {
      const random = seededRandom(seed);
      const [width, height] = [200 + Math.floor(random() * 200), 200 + Math.floor(random() * 100)];
      const x1 = Math.floor(random() * 100);
      const y1 = Math.floor(random() * 100);
      const box = { x1, y1, x2: x1 + 60, y2: y1 + 80 };
      const fit = ["stretch", "cover", "contain"][seed % 3];
      const preprocessing = parsePreprocessing({ height: 96, width: 128, fit });
      const view = randomView({ width, height }, preprocessing, moving, random);
      const [seen] = viewedBoxes([{ ...box, classIndex: 4 }], view);
      const pixels = toNumbers(await viewTensor(spot(width, height, box), view, preprocessing));
      const white = [...Array(96 * 128).keys()].filter((at) => (pixels[at] ?? 0) > 0.5);
      if (!seen) {
        expect(white.length).toBeLessThan(200);
        continue;
      }
      expect(seen.classIndex).toBe(4);
      const columns = white.map((at) => at % 128);
      const rows = white.map((at) => Math.floor(at / 128));
      if (white.length < 50) continue;
      // Resampling blurs the edge by a pixel of the image, which may be several of the input.
      const blur =
        1 +
        Math.max(
          view.placement.target.width / view.placement.source.width,
          view.placement.target.height / view.placement.source.height,
        );
      expect(Math.abs(Math.min(...columns) - seen.x1)).toBeLessThanOrEqual(blur);
      expect(Math.abs(Math.max(...columns) + 1 - seen.x2)).toBeLessThanOrEqual(blur);
      expect(Math.abs(Math.min(...rows) - seen.y1)).toBeLessThanOrEqual(blur);
      expect(Math.abs(Math.max(...rows) + 1 - seen.y2)).toBeLessThanOrEqual(blur);
    }
  });

  it("ignores objects that are hardly shown and forgets those that are not", () => {
    const preprocessing = parsePreprocessing({ height: 100, width: 100 });
    const placement = {
      image: { width: 200, height: 200 },
      input: { width: 100, height: 100 },
      source: { left: 100, top: 0, width: 100, height: 200 },
      target: { left: 0, top: 0, width: 100, height: 100 },
    };
    expect(preprocessing.width).toBe(100);
    const box = (x1: number, x2: number) => ({ x1, y1: 20, x2, y2: 60, classIndex: 0, area: 100 });
    const seen = viewedBoxes([box(80, 180), box(20, 110), box(10, 90), box(120, 130)], { placement });
    expect(seen).toEqual([
      { x1: 0, y1: 10, x2: 80, y2: 30, classIndex: 0, area: 40 },
      { x1: 0, y1: 10, x2: 10, y2: 30, classIndex: 0, area: expect.closeTo(500 / 90, 9), isIgnored: true },
      { x1: 20, y1: 10, x2: 30, y2: 30, classIndex: 0, area: 50 },
    ]);
  });

  it("mirrors about the middle", async () => {
    const image = await decodeImage(
      await sharp({ create: { width: 3, height: 2, channels: 3, background: "black" } })
        .composite([
          { input: { create: { width: 1, height: 1, channels: 3, background: "#010203" } }, left: 0, top: 0 },
          { input: { create: { width: 1, height: 1, channels: 3, background: "#040506" } }, left: 2, top: 1 },
        ])
        .png()
        .toBuffer(),
    );
    const preprocessing = parsePreprocessing({ height: 2, width: 3, layout: "nhwc", range: [0, 255] });
    const { placement } = randomView(image, preprocessing, plain, seededRandom(0));
    const seen = async (view: object) =>
      [...toNumbers(await viewTensor(image, { placement, ...view }, preprocessing))].join(" ");
    const [none, first, second] = ["0 0 0", "1 2 3", "4 5 6"];
    expect(await seen({})).toBe([first, none, none, none, none, second].join(" "));
    expect(await seen({ isMirrored: true })).toBe([none, none, first, second, none, none].join(" "));
    expect(await seen({ isUpsideDown: true })).toBe([none, none, second, first, none, none].join(" "));
    expect(await seen({ isMirrored: true, isUpsideDown: true })).toBe(
      [second, none, none, none, none, first].join(" "),
    );
  });

  it("changes colours as it says, and leaves grey grey", async () => {
    const preprocessing = parsePreprocessing({ height: 1, width: 1, layout: "nhwc", range: [0, 255] });
    const seen = async (colour: readonly [number, number, number], changes: object, seed: number) => {
      const image = plainImage(1, 1, colour);
      const view = randomView(image, preprocessing, { ...plain, ...changes }, seededRandom(seed));
      return [...toNumbers(await viewTensor(image, view, preprocessing))];
    };
    for (let seed = 0; seed < 30; seed++) {
      for (const changes of [{ saturation: 0.9 }, { hue: 0.5 }, { saturation: 1, hue: 0.3 }]) {
        expect(await seen([90, 90, 90], changes, seed)).toEqual([90, 90, 90]);
      }
      const [red = 0, green = 0, blue = 0] = await seen([100, 50, 20], { brightness: 0.5 }, seed);
      expect(red / 100).toBeGreaterThanOrEqual(0.49);
      expect(red / 100).toBeLessThanOrEqual(1.51);
      expect(Math.abs(green / 50 - red / 100)).toBeLessThan(0.02);
      expect(Math.abs(blue / 20 - red / 100)).toBeLessThan(0.04);
      // Contrast keeps middle grey, and the order of what is darker and lighter.
      const [middle = 0] = await seen([128, 128, 128], { contrast: 0.8 }, seed);
      expect(Math.abs(middle - 128)).toBeLessThanOrEqual(1);
      // A turned hue keeps the luma, as far as no channel ends at 0 or 255.
      const [r = 0, g = 0, b = 0] = await seen([140, 120, 110], { hue: 0.5 }, seed);
      expect(
        Math.abs(0.299 * r + 0.587 * g + 0.114 * b - (0.299 * 140 + 0.587 * 120 + 0.114 * 110)),
      ).toBeLessThan(1.5);
    }
    // Without saturation only the luma is left.
    const greys = await Promise.all(
      [...Array(40).keys()].map((seed) => seen([200, 100, 50], { saturation: 1 }, seed)),
    );
    const spread = greys.map((values) => Math.max(...values) - Math.min(...values));
    expect(Math.min(...spread)).toBeLessThan(30);
    expect(Math.max(...spread)).toBeGreaterThan(200);
  });
});

describe("the record of an augmentation", () => {
  it("is a name or fields with defaults that change nothing", () => {
    expect(parseAugmentation("standard")).toBe(AUGMENTATIONS.standard);
    expect(parseAugmentation("{}")).toEqual(plain);
    expect(parseAugmentation({ area: [1, 0.5], hue: 0.1 })).toEqual({ ...plain, area: [0.5, 1], hue: 0.1 });
    for (const augmentation of Object.values(AUGMENTATIONS)) {
      expect(parseAugmentation(JSON.stringify(augmentation))).toEqual(augmentation);
    }
  });

  it("is refused with the field's name", () => {
    for (const [json, message] of [
      ["huge", /not JSON/],
      ['{"mirror":2}', /augmentation.mirror is 2; expected a number from 0 to 1/],
      ['{"area":[0,1]}', /augmentation.area/],
      ['{"rotate":3}', /augmentation.rotate/],
    ] as const) {
      expect(() => parseAugmentation(json)).toThrow(message);
    }
  });
});
