/** Targets of the centre head, and the way back from its outputs to boxes. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { float32, type Tensor, toNumbers } from "../../src/tensor/index.js";
import {
  centreTargets,
  decodeDetections,
  gaussianRadius,
  intersectionOverUnion,
  type ObjectBox,
  parseDecoding,
  parsePreprocessing,
  placeImage,
} from "../../src/vision/index.js";

const grid = { classes: 3, height: 16, width: 24, stride: 4 };
const decoding = parseDecoding({
  arrangement: "centres",
  heat: "heat",
  size: "size",
  offset: "offset",
  stride: 4,
});
const plain = placeImage({ width: 96, height: 64 }, parsePreprocessing({ height: 64, width: 96 }));

/** One map of one image. */
function map(value: Tensor, image: number, channel: number): Float64Array {
  const [, channels = 1, height = 1, width = 1] = value.shape;
  const from = (image * channels + channel) * height * width;
  return toNumbers(value).subarray(from, from + height * width);
}

describe("the radius of a centre", () => {
  it("leaves an overlap of 0.7 in the worst of three ways", () => {
    const side = fc.double({ min: 0.5, max: 200, noNaN: true });
    fc.assert(
      fc.property(side, side, (width, height) => {
        const r = gaussianRadius(width, height);
        const box = { x1: 0, y1: 0, x2: width, y2: height };
        const off = [
          { x1: r, y1: r, x2: width + r, y2: height + r },
          { x1: -r, y1: -r, x2: width + r, y2: height + r },
          { x1: r, y1: r, x2: width - r, y2: height - r },
        ];
        const overlaps = off.map((each) => intersectionOverUnion(box, each));
        expect(Math.min(...overlaps)).toBeCloseTo(0.7, 9);
      }),
    );
  });
});

describe("the targets of boxes", () => {
  const box: ObjectBox = { x1: 10, y1: 20, x2: 50, y2: 46, classIndex: 1 };

  it("have a peak of 1 at the centre's cell, and size and offset there", () => {
    const { heat, size, offset, mask, objects } = centreTargets([[], [box]], grid);
    expect(heat.shape).toEqual([2, 3, 16, 24]);
    // The centre (30, 33) is at (7.5, 8.25) in cells of 4 pixels.
    const cell = 8 * 24 + 7;
    expect(map(heat, 1, 1)[cell]).toBe(1);
    expect(map(heat, 1, 1).filter((value) => value === 1)).toHaveLength(1);
    expect(map(size, 1, 0)[cell]).toBe(10);
    expect(map(size, 1, 1)[cell]).toBe(6.5);
    expect(map(offset, 1, 0)[cell]).toBe(0.5);
    expect(map(offset, 1, 1)[cell]).toBe(0.25);
    expect(map(mask, 1, 0).reduce((sum, value) => sum + value, 0)).toBe(1);
    expect(objects).toBe(1);
    for (const empty of [map(heat, 0, 1), map(heat, 1, 0), map(heat, 1, 2)]) {
      expect(empty.every((value) => value === 0)).toBe(true);
    }
  });

  it("have a Gaussian around the peak, as wide as the radius", () => {
    const large = { x1: 32, y1: 12, x2: 92, y2: 60, classIndex: 0 };
    expect(Math.floor(gaussianRadius(15, 12))).toBe(1);
    const heat = map(centreTargets([[large]], grid).heat, 0, 0);
    const cell = 9 * 24 + 15;
    // Radius 1 has the deviation 0.5: exp(-2) beside the peak, exp(-4) across, nothing further.
    expect(heat[cell]).toBe(1);
    for (const beside of [-1, 1, -24, 24]) expect(heat[cell + beside]).toBeCloseTo(Math.exp(-2), 6);
    for (const across of [-25, -23, 23, 25]) expect(heat[cell + across]).toBeCloseTo(Math.exp(-4), 6);
    expect(heat.filter((value) => value > 0)).toHaveLength(9);
  });

  it("keep the greater of two Gaussians, and the smaller of two objects in one cell", () => {
    const large = { x1: 0, y1: 0, x2: 60, y2: 62, classIndex: 1 };
    const small = { x1: 28, y1: 29, x2: 32, y2: 35, classIndex: 1 };
    for (const objects of [
      [large, small],
      [small, large],
    ]) {
      const { heat, size } = centreTargets([objects], grid);
      const cell = 7 * 24 + 7;
      expect(map(size, 0, 0)[cell]).toBe(15);
      expect(map(size, 0, 0)[8 * 24 + 7]).toBe(1);
      expect(map(heat, 0, 1)[cell]).toBe(1);
      expect(map(heat, 0, 1)[8 * 24 + 7]).toBe(1);
    }
    const twin = { ...small, x1: 26, x2: 34 };
    expect(map(centreTargets([[small, twin]], grid).size, 0, 0)[8 * 24 + 7]).toBe(1);
  });

  it("learn nothing where ignored objects lie, except at centres", () => {
    const crowd = { x1: 0, y1: 0, x2: 40, y2: 40, classIndex: 0, isIgnored: true };
    const { heat, weight, objects } = centreTargets([[crowd, box]], grid);
    expect(objects).toBe(1);
    expect(map(heat, 0, 0).every((value) => value === 0)).toBe(true);
    const weights = map(weight, 0, 0);
    expect(weights.filter((value) => value === 0)).toHaveLength(99);
    expect([weights[0], weights[10], weights[8 * 24 + 7], weights[9 * 24 + 9]]).toEqual([0, 1, 1, 0]);
  });

  it("leave out what lies outside, and divide by 1 when nothing is there", () => {
    const outside = { x1: 96, y1: 0, x2: 120, y2: 20, classIndex: 0 };
    const { mask, objects } = centreTargets([[outside]], grid);
    expect(toNumbers(mask).every((value) => value === 0)).toBe(true);
    expect(objects).toBe(1);
  });
});

describe("the outputs of a centre head", () => {
  /** Boxes whose centres lie in cells three or more apart, so that each has a peak of its own. */
  const apart = fc
    .uniqueArray(fc.record({ column: fc.integer({ min: 0, max: 7 }), row: fc.integer({ min: 0, max: 4 }) }), {
      minLength: 1,
      maxLength: 6,
      selector: ({ column, row }) => `${column} ${row}`,
    })
    .chain((places) =>
      fc.tuple(
        ...places.map(({ column, row }) =>
          fc.record({
            x: fc.double({ min: 0.05, max: 0.95, noNaN: true }).map((part) => (3 * column + 1 + part) * 4),
            y: fc.double({ min: 0.05, max: 0.95, noNaN: true }).map((part) => (3 * row + part) * 4),
            width: fc.double({ min: 2, max: 30, noNaN: true }),
            height: fc.double({ min: 2, max: 30, noNaN: true }),
            classIndex: fc.integer({ min: 0, max: 2 }),
          }),
        ),
      ),
    );

  it("that equal the targets give the boxes back", () => {
    fc.assert(
      fc.property(apart, (places) => {
        const objects = places.map(({ x, y, width, height, classIndex }) => ({
          ...{ x1: x - width / 2, y1: y - height / 2, x2: x + width / 2, y2: y + height / 2 },
          classIndex,
        }));
        const { heat, size, offset } = centreTargets([objects], grid);
        const outputs = new Map(Object.entries({ heat, size, offset }));
        const all = { ...decoding, iouThreshold: 1, scoreThreshold: 0.999 };
        const found = decodeDetections(outputs, all, ["a", "b", "c"], plain);
        expect(found).toHaveLength(objects.length);
        for (const { classIndex, ...box } of objects) {
          const within = {
            x1: Math.max(0, box.x1),
            y1: Math.max(0, box.y1),
            x2: Math.min(96, box.x2),
            y2: Math.min(64, box.y2),
          };
          const same = found.find(
            (each) =>
              each.classIndex === classIndex &&
              Object.entries(within).every(
                ([edge, value]) => Math.abs(each.box[edge as keyof typeof within] - value) < 1e-4,
              ),
          );
          expect(same?.score).toBe(1);
        }
      }),
    );
  });

  it("count where no neighbour exceeds them, above the threshold, on the image that was placed", () => {
    const heat = new Float32Array(16 * 24);
    heat[5 * 24 + 5] = 0.9;
    heat[5 * 24 + 6] = 0.8;
    heat[0] = 0.6;
    heat[15 * 24 + 23] = 0.2;
    heat[10 * 24 + 10] = Number.NaN;
    const outputs = new Map([
      ["heat", float32([1, 1, 16, 24], heat)],
      ["size", float32([1, 2, 16, 24], new Float32Array(2 * 16 * 24).fill(2))],
      ["offset", float32([1, 2, 16, 24], new Float32Array(2 * 16 * 24).fill(0.5))],
    ]);
    const twice = placeImage({ width: 192, height: 128 }, parsePreprocessing({ height: 64, width: 96 }));
    const found = decodeDetections(outputs, decoding, ["thing"], twice);
    expect(found.map(({ score, box }) => [score, box])).toEqual([
      [expect.closeTo(0.9, 6), { x1: 36, y1: 36, x2: 52, y2: 52 }],
      [expect.closeTo(0.6, 6), { x1: 0, y1: 0, x2: 12, y2: 12 }],
    ]);
  });

  it("are refused when they do not fit together or are missing", () => {
    const good = {
      heat: float32([1, 3, 2, 2], Array(12).fill(0)),
      size: float32([2, 2, 2], Array(8).fill(0)),
      offset: float32([1, 2, 2, 2], Array(8).fill(0)),
    };
    const decode = (outputs: Record<string, Tensor>) =>
      decodeDetections(new Map(Object.entries(outputs)), decoding, [], plain);
    expect(decode(good)).toEqual([]);
    const { size: _, ...missing } = good;
    for (const wrong of [
      missing,
      { ...good, heat: float32([2, 3, 2, 2], Array(24).fill(0)) },
      { ...good, size: float32([1, 2, 2, 3], Array(12).fill(0)) },
      { ...good, offset: float32([1, 1, 2, 2], Array(4).fill(0)) },
      { ...good, heat: float32([12], Array(12).fill(0)) },
    ]) {
      expect(() => decode(wrong)).toThrow(expect.objectContaining({ code: "MODEL_MALFORMED" }));
    }
  });

  it("have a record that says centres, sizes and pixels only", () => {
    expect(decoding).toMatchObject({ box: "cxcywh", units: "pixels", stride: 4, firstClass: 0 });
    expect(parseDecoding(JSON.stringify(decoding))).toEqual(decoding);
    const record = { arrangement: "centres", heat: "h", size: "s", offset: "o" };
    for (const wrong of [
      { ...record, box: "xywh" },
      { ...record, units: "fractions" },
      { ...record, stride: 0 },
      { ...record, boxes: "b" },
      { arrangement: "centres", heat: "h", size: "s" },
    ]) {
      expect(() => parseDecoding(wrong)).toThrow(expect.objectContaining({ code: "MODEL_MALFORMED" }));
    }
  });
});
