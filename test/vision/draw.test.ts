import fc from "fast-check";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { annotate, classColour, type Detection, decodeImage, type Image } from "../../src/vision/index.js";
import { foodPhoto, pixel, plainImage } from "./pictures.js";

const found = (box: Detection["box"], label = "banana", classIndex = 46): Detection => ({
  label,
  classIndex,
  score: 0.44,
  box,
});
const distance = (a: readonly number[], b: readonly number[]) =>
  a.reduce((sum, value, channel) => sum + Math.abs(value - (b[channel] ?? 0)), 0);

/** The smallest rectangle that holds every pixel that differs from the original. */
function changed(before: Image, after: Image): { left: number; top: number; right: number; bottom: number } {
  const area = { left: before.width, top: before.height, right: -1, bottom: -1 };
  for (let y = 0; y < before.height; y++) {
    for (let x = 0; x < before.width; x++) {
      if (distance(pixel(before, x, y), pixel(after, x, y)) === 0) continue;
      area.left = Math.min(area.left, x);
      area.top = Math.min(area.top, y);
      area.right = Math.max(area.right, x);
      area.bottom = Math.max(area.bottom, y);
    }
  }
  return area;
}

describe("annotate", () => {
  it("gives a PNG of the same size; without detections nothing changes", async () => {
    const image = await decodeImage(foodPhoto("E020"));
    const png = await annotate(image, []);
    expect((await sharp(png).metadata()).format).toBe("png");
    expect(await decodeImage(png)).toEqual(image);
  });

  it("draws a frame in the colour of the class and a tag over it with dark and light strokes", async () => {
    const image = plainImage(400, 300, [128, 128, 128]);
    const after = await decodeImage(await annotate(image, [found({ x1: 100, y1: 100, x2: 300, y2: 250 })]));
    for (const [x, y] of [
      [100, 200],
      [300, 200],
      [200, 250],
    ] as const) {
      expect(distance(pixel(after, x, y), classColour(46))).toBeLessThan(120);
    }
    expect(pixel(after, 200, 180)).toEqual([128, 128, 128]);
    const area = changed(image, after);
    expect(area.top).toBeLessThan(90);
    // Letters stand out from their tag.
    const row = Array.from({ length: 60 }, (_, x) => distance(pixel(after, 102 + x, 92), classColour(46)));
    expect(Math.max(...row)).toBeGreaterThan(250);
    expect(Math.min(...row)).toBeLessThan(20);
  });

  it("writes no percent where there is no score", async () => {
    const image = plainImage(400, 300, [128, 128, 128]);
    const { score, ...object } = found({ x1: 20, y1: 100, x2: 390, y2: 250 }, "not found: apple");
    const widthOf = async (drawn: Parameters<typeof annotate>[1]) => {
      const after = await decodeImage(await annotate(image, drawn));
      const tag = Array.from({ length: 400 }, (_, x) => x).filter(
        (x) => distance(pixel(after, x, 92), [128, 128, 128]) > 30,
      );
      return Math.max(...tag) - Math.min(...tag);
    };
    const [with0, without] = [await widthOf([{ ...object, score: 0 }]), await widthOf([object])];
    expect(without).toBeGreaterThan(50);
    expect(with0 - without).toBeGreaterThan(10);
    expect(score).toBeGreaterThan(0);
  });

  it("needs no fonts: letters are drawn, with a box for what is not ASCII", async () => {
    const image = plainImage(200, 100, [255, 255, 255]);
    const pictures = await Promise.all(
      ["cat", "dog", "çat", "寿司"].map((label) =>
        annotate(image, [found({ x1: 20, y1: 40, x2: 150, y2: 90 }, label)]),
      ),
    );
    const [cat, dog, accented, sushi] = pictures.map((png) => Buffer.from(png).toString("base64"));
    expect(cat).not.toBe(dog);
    expect(accented).toBe(cat);
    expect(sushi).not.toBe(cat);
  });

  it("keeps tags within the image wherever the box is, and survives any label", async () => {
    const coordinate = fc.integer({ min: 0, max: 64 });
    const label = fc.string({ unit: "grapheme", maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(coordinate, coordinate, coordinate, coordinate, label, async (a, b, c, d, text) => {
        const image = plainImage(64, 48, [200, 200, 200]);
        const box = {
          x1: Math.min(a, b),
          x2: Math.max(a, b),
          y1: Math.min(c, d, 48),
          y2: Math.min(48, Math.max(c, d)),
        };
        const after = await decodeImage(await annotate(image, [found(box, text)]));
        expect([after.width, after.height]).toEqual([64, 48]);
        const area = changed(image, after);
        // Whole tags have both their ends on the picture: wide enough for "44%" at least.
        expect(area.right - area.left).toBeGreaterThan(15);
      }),
      { numRuns: 40 },
    );
  });

  it("puts class scores in a panel below the image", async () => {
    const image = await decodeImage(foodPhoto("E020"));
    const classes = [
      { label: "fruits", classIndex: 4, score: 0.62 },
      { label: "roots & tubers <raw>", classIndex: 5, score: 0.21 },
    ];
    const after = await decodeImage(await annotate(image, [], classes));
    expect(after.width).toBe(image.width);
    expect(after.height).toBeGreaterThan(image.height + 20);
    expect(after.rgb.subarray(0, image.rgb.length)).toEqual(image.rgb);
    const panel = after.rgb.subarray(image.rgb.length);
    const colours = new Set(
      Array.from({ length: panel.length / 3 }, (_, at) => panel.slice(at * 3, at * 3 + 3).join()),
    );
    expect(colours).toContain(classColour(4).join());
    expect(colours).toContain(classColour(5).join());
  });

  it("takes tiny and very wide images", async () => {
    for (const [width, height] of [
      [1, 1],
      [20000, 40],
      [40, 20000],
    ] as const) {
      const image = plainImage(width, height, [9, 9, 9]);
      const box = { x1: 0, y1: 0, x2: width, y2: height };
      const after = await decodeImage(
        await annotate(image, [found(box)], [{ label: "a", classIndex: 0, score: 1 }]),
      );
      expect(after.width).toBe(width);
    }
  });
});
