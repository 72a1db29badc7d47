import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { float32, type Tensor } from "../../src/tensor/index.js";
import {
  CENTERNET_DECODING,
  COCO_LABELS,
  type Detection,
  decodeDetections,
  intersectionOverUnion,
  parseDecoding,
  parsePreprocessing,
  placeImage,
  preprocessingRecipe,
  suppressOverlaps,
} from "../../src/vision/index.js";
import centernetRows from "./centernet-output.json" with { type: "json" };

const outputs = (named: Record<string, Tensor>) => new Map(Object.entries(named));
const modelMalformed = expect.objectContaining({ code: "MODEL_MALFORMED" });
const placement = placeImage({ width: 200, height: 100 }, parsePreprocessing({ height: 50, width: 50 }));

describe("parseDecoding", () => {
  it("fills in defaults and survives JSON", () => {
    expect(parseDecoding(JSON.stringify(CENTERNET_DECODING))).toEqual(CENTERNET_DECODING);
    expect(parseDecoding({ arrangement: "rows", rows: "out" })).toMatchObject({
      scoreColumn: 4,
      perClass: true,
    });
    expect(parseDecoding({ arrangement: "arrays", boxes: "b", scores: "s" })).not.toHaveProperty("classes");
  });

  it("refuses wrong records", () => {
    for (const json of ["[]", {}, { arrangement: "rows" }, { arrangement: "rows", rows: "o", boxes: "b" }]) {
      expect(() => parseDecoding(json)).toThrow(modelMalformed);
    }
  });
});

describe("decodeDetections", () => {
  it("finds the person in what TF.js computed for a real photo with the COCO detector", () => {
    const rows = float32([1, 100, 6], centernetRows.flat());
    const where = placeImage({ width: 1200, height: 1200 }, preprocessingRecipe("centernet"));
    const [best, ...others] = decodeDetections(
      outputs({ "tower_0/detections": rows }),
      CENTERNET_DECODING,
      COCO_LABELS,
      where,
    );
    expect(others).toEqual([]);
    expect(best).toMatchObject({ label: "person", classIndex: 0 });
    expect(best?.score).toBeCloseTo(0.714, 3);
    expect(best?.box.x1).toBeCloseTo((91.566 * 1200) / 512, 0);
    expect(best?.box.y2).toBeCloseTo((507.813 * 1200) / 512, 0);
  });

  const box = { x1: 40, y1: 20, x2: 120, y2: 60 };
  const forms: Record<string, number[]> = {
    x1y1x2y2: [10, 10, 30, 30],
    y1x1y2x2: [10, 10, 30, 30],
    xywh: [10, 10, 20, 20],
    cxcywh: [20, 20, 20, 20],
  };
  for (const [form, values] of Object.entries(forms)) {
    it(`reads boxes as ${form}, in pixels and in fractions`, () => {
      for (const [units, scale] of [
        ["pixels", 1],
        ["fractions", 50],
      ] as const) {
        const decoding = parseDecoding({
          arrangement: "arrays",
          boxes: "b",
          scores: "s",
          classes: "c",
          box: form,
          units,
        });
        const named = {
          b: float32(
            [1, 1, 4],
            values.map((v) => v / scale),
          ),
          s: float32([1, 1], [0.9]),
          c: float32([1, 1], [1]),
        };
        const [found] = decodeDetections(outputs(named), decoding, ["cat", "dog"], placement);
        expect(found).toMatchObject({ label: "dog", classIndex: 1 });
        for (const edge of ["x1", "y1", "x2", "y2"] as const)
          expect(found?.box[edge]).toBeCloseTo(box[edge], 4);
      }
    });
  }

  it("takes the best class where scores are given for each, and counts classes from the first label", () => {
    const decoding = parseDecoding({ arrangement: "arrays", boxes: "b", scores: "s", firstClass: 1 });
    const named = {
      b: float32([2, 4], [0, 0, 9, 9, 0, 0, 9, 9]),
      s: float32([2, 3], [0.9, 0.1, 0.2, 0.1, 0.2, 0.7]),
    };
    // The first row is background.
    expect(decodeDetections(outputs(named), decoding, ["cat"], placement)).toMatchObject([
      { label: "class 1", classIndex: 1 },
    ]);
  });

  it("drops candidates that are weak, not numbers, outside or empty, and cuts boxes at the image", () => {
    const decoding = parseDecoding({ arrangement: "rows", rows: "r", perClass: false });
    const rows = [
      [-10, -10, 25, 25, 0.8, 0],
      [0, 0, 9, 9, 0.1, 0],
      [0, 0, 9, 9, Number.NaN, 0],
      [0, Number.NaN, 9, 9, 0.9, 0],
      [0, 0, 9, 9, 0.9, Number.NaN],
      [60, 60, 70, 70, 0.9, 0],
      [30, 30, 20, 40, 0.9, 0],
    ];
    const found = decodeDetections(
      outputs({ r: float32([1, 7, 6], rows.flat()) }),
      decoding,
      ["cat"],
      placement,
    );
    expect(found).toHaveLength(1);
    expect(found[0]?.box).toEqual({ x1: 0, y1: 0, x2: 100, y2: 50 });
    const none = decodeDetections(outputs({ r: float32([1, 0, 6], []) }), decoding, [], placement);
    expect(none).toEqual([]);
  });

  it("says when the outputs are not what the record says", () => {
    const decoding = parseDecoding({ arrangement: "rows", rows: "r" });
    for (const named of [
      {},
      { r: float32([1, 2, 5], Array(10).fill(0)) },
      { r: float32([2, 1, 6], Array(12).fill(0)) },
    ]) {
      expect(() => decodeDetections(outputs(named), decoding, [], placement)).toThrow(modelMalformed);
    }
    const arrays = parseDecoding({ arrangement: "arrays", boxes: "b", scores: "s", classes: "c" });
    const uneven = {
      b: float32([2, 4], Array(8).fill(0)),
      s: float32([3], [0, 0, 0]),
      c: float32([2], [0, 0]),
    };
    expect(() => decodeDetections(outputs(uneven), arrays, [], placement)).toThrow(modelMalformed);
  });
});

describe("suppressOverlaps", () => {
  const at = fc.integer({ min: 0, max: 60 });
  const detection = fc
    .record({
      x1: at,
      y1: at,
      width: fc.integer({ min: 1, max: 60 }),
      height: fc.integer({ min: 1, max: 60 }),
      classIndex: fc.nat(2),
      score: fc.double({ min: 0, max: 1, noNaN: true }),
    })
    .map(
      ({ x1, y1, width, height, classIndex, score }): Detection => ({
        label: "",
        classIndex,
        score,
        box: { x1, y1, x2: x1 + width, y2: y1 + height },
      }),
    );
  const lists = fc.array(detection, { maxLength: 20 });
  const rules = fc.record({
    iouThreshold: fc.double({ min: 0, max: 1, noNaN: true }),
    perClass: fc.boolean(),
  });
  const rivals = (a: Detection, b: Detection, perClass: boolean) =>
    !perClass || a.classIndex === b.classIndex;

  it("keeps no two rivals that overlap, drops none without a better rival, sorts by score", () => {
    fc.assert(
      fc.property(lists, rules, (all, rule) => {
        const kept = suppressOverlaps(all, rule);
        const overlaps = (a: Detection, b: Detection) =>
          rivals(a, b, rule.perClass) && intersectionOverUnion(a.box, b.box) > rule.iouThreshold;
        kept.forEach((a, index) => {
          for (const b of kept.slice(index + 1)) {
            expect(overlaps(a, b)).toBe(false);
            expect(a.score).toBeGreaterThanOrEqual(b.score);
          }
        });
        for (const dropped of all.filter((each) => !kept.includes(each))) {
          expect(kept.some((better) => better.score >= dropped.score && overlaps(better, dropped))).toBe(
            true,
          );
        }
        expect(suppressOverlaps(kept, rule)).toEqual(kept);
      }),
    );
  });

  it("measures overlap", () => {
    const box = { x1: 0, y1: 0, x2: 10, y2: 10 };
    expect(intersectionOverUnion(box, box)).toBe(1);
    expect(intersectionOverUnion(box, { x1: 5, y1: 0, x2: 15, y2: 10 })).toBeCloseTo(1 / 3);
    expect(intersectionOverUnion(box, { x1: 10, y1: 0, x2: 20, y2: 10 })).toBe(0);
  });
});

it("has COCO's 80 labels", () => {
  expect(new Set(COCO_LABELS).size).toBe(80);
  expect([0, 15, 46, 79].map((index) => COCO_LABELS[index])).toEqual([
    "person",
    "cat",
    "banana",
    "toothbrush",
  ]);
});
