import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  inputShape,
  PREPROCESSING_RECIPES,
  parsePreprocessing,
  placeImage,
  preprocessingRecipe,
  toImagePoint,
  toInputPoint,
} from "../../src/vision/index.js";

const size = { height: 32, width: 48 };

describe("parsePreprocessing", () => {
  it("fills in defaults and survives JSON", () => {
    const record = parsePreprocessing(size);
    expect(record).toMatchObject({
      fit: "stretch",
      colour: "rgb",
      layout: "nchw",
      range: [0, 1],
      mean: [0, 0, 0],
    });
    expect(parsePreprocessing(JSON.stringify(record))).toEqual(record);
    expect(inputShape(record)).toEqual([1, 3, 32, 48]);
    expect(inputShape(parsePreprocessing({ ...size, colour: "grey", layout: "nhwc" }))).toEqual([
      1, 32, 48, 1,
    ]);
  });

  const wrong: Record<string, unknown> = {
    "no JSON": "{",
    "a list": [],
    nothing: null,
    "no size": { height: 3 },
    "half a pixel": { ...size, height: 1.5 },
    "an absurd size": { ...size, width: 1e9 },
    "an unknown word": { ...size, fit: "squash" },
    "an unknown field": { ...size, widht: 3 },
    "too few means": { ...size, mean: [1] },
    "three means for grey": { ...size, colour: "grey", mean: [1, 2, 3] },
    "a deviation of 0": { ...size, deviation: [1, 0, 1] },
    "a text for a number": { ...size, range: ["0", 1] },
    "an inherited field": Object.create(size),
  };
  for (const [name, json] of Object.entries(wrong)) {
    it(`refuses ${name}`, () => {
      expect(() => parsePreprocessing(json)).toThrow(expect.objectContaining({ code: "MODEL_MALFORMED" }));
    });
  }

  it("names the field and what was expected", () => {
    expect(() => parsePreprocessing({ ...size, layout: "chw" })).toThrow(
      'preprocessing.layout is "chw"; expected "nchw" or "nhwc".',
    );
  });
});

describe("preprocessingRecipe", () => {
  it("makes every recipe a whole record", () => {
    for (const name of Object.keys(PREPROCESSING_RECIPES)) {
      expect(preprocessingRecipe(name, size)).toMatchObject(
        { ...PREPROCESSING_RECIPES, ...size }.unit.range ? size : {},
      );
    }
    expect(preprocessingRecipe("centernet")).toMatchObject({
      height: 512,
      width: 512,
      fit: "stretch",
      range: [0, 255],
    });
  });

  it("refuses unknown names and recipes without a size", () => {
    const invalid = expect.objectContaining({ code: "INVALID_ARGUMENT" });
    expect(() => preprocessingRecipe("toString")).toThrow(invalid);
    expect(() => preprocessingRecipe("unit")).toThrow(invalid);
  });
});

describe("placeImage", () => {
  const side = fc.integer({ min: 1, max: 4000 });
  const cases = fc.record({
    image: fc.record({ width: side, height: side }),
    fit: fc.constantFrom("stretch", "cover", "contain"),
    crop: fc.constantFrom(1, 0.875, 0.5),
    height: fc.integer({ min: 1, max: 600 }),
    width: fc.integer({ min: 1, max: 600 }),
  });

  it("keeps both rectangles within image and input", () => {
    fc.assert(
      fc.property(cases, ({ image, ...record }) => {
        const { source, target } = placeImage(image, parsePreprocessing(record));
        for (const [part, whole] of [
          [source, image],
          [target, { width: record.width, height: record.height }],
        ] as const) {
          expect(Math.min(part.left, part.top)).toBeGreaterThanOrEqual(0);
          expect(Math.min(part.width, part.height)).toBeGreaterThanOrEqual(1);
          expect(part.left + part.width).toBeLessThanOrEqual(whole.width);
          expect(part.top + part.height).toBeLessThanOrEqual(whole.height);
        }
      }),
    );
  });

  it("finds the way back from the input to the image", () => {
    const share = fc.double({ min: 0, max: 1, noNaN: true });
    fc.assert(
      fc.property(cases, share, share, ({ image, ...record }, right, down) => {
        const placement = placeImage(image, parsePreprocessing(record));
        const [x, y] = [right * image.width, down * image.height];
        const there = toInputPoint(placement, x, y);
        const back = toImagePoint(placement, there.x, there.y);
        expect(back.x).toBeCloseTo(x, 6);
        expect(back.y).toBeCloseTo(y, 6);
      }),
    );
  });

  it("keeps the aspect ratio within a pixel where it should", () => {
    const record = parsePreprocessing({ height: 640, width: 640, fit: "contain" });
    const { target } = placeImage({ width: 1920, height: 1080 }, record);
    expect(target).toEqual({ left: 0, top: 140, width: 640, height: 360 });
    const covered = placeImage({ width: 500, height: 375 }, preprocessingRecipe("imagenet"));
    expect(covered.source).toEqual({ left: 86, top: 23, width: 328, height: 328 });
  });
});
