/**
 * COCO's average precision: cases worked by hand, a published example with the numbers of COCO's own evaluation, and
 * random scenes judged by a slow reference (coco-quality.py).
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { seededRandom } from "../../src/base/random.js";
import {
  type DetectionQuality,
  detectionQuality,
  type JudgedImage,
  type ObjectBox,
  precisionDeviation,
} from "../../src/vision/index.js";
import { standardDeviation } from "../../src/vision/metrics.js";

type Corners = readonly [number, number, number, number];

function object([x1, y1, x2, y2]: Corners, classIndex = 0, rest: Partial<ObjectBox> = {}): ObjectBox {
  return { x1, y1, x2, y2, classIndex, ...rest };
}

function found([x1, y1, x2, y2]: Corners, score: number, classIndex = 0) {
  return { box: { x1, y1, x2, y2 }, score, classIndex };
}

const A: Corners = [10, 10, 60, 60];
const B: Corners = [100, 100, 200, 200];

describe("average precision by hand", () => {
  it("is 1 for all found and nothing else, 0 for nothing found", () => {
    const objects = [object(A), object(B)];
    const right = { objects, detections: [found(A, 0.9), found(B, 0.8)] };
    expect(detectionQuality([right], 1)).toMatchObject({
      ap: 1,
      ap50: 1,
      ap75: 1,
      ar1: 0.5,
      ar10: 1,
      ar100: 1,
    });
    expect(detectionQuality([{ objects, detections: [] }], 1)).toMatchObject({ ap: 0, ar100: 0 });
    expect(detectionQuality([{ objects: [], detections: [found(A, 0.9)] }], 1).ap).toBeUndefined();
    expect(detectionQuality([], 2).ap).toBeUndefined();
  });

  it("has precision 1 up to recall one half when one of two is found: 51 of 101 points", () => {
    const { ap, ar100 } = detectionQuality(
      [{ objects: [object(A), object(B)], detections: [found(A, 0.9)] }],
      1,
    );
    expect(ap).toBeCloseTo(51 / 101, 12);
    expect(ar100).toBe(0.5);
  });

  it("has precision one half everywhere when a surer answer is wrong", () => {
    const detections = [found(B, 0.9), found(A, 0.8)];
    expect(detectionQuality([{ objects: [object(A)], detections }], 1).ap).toBeCloseTo(0.5, 12);
    // Right first, wrong later: the wrong one comes after all is found, and costs nothing.
    const later = [found(B, 0.7), found(A, 0.8)];
    expect(detectionQuality([{ objects: [object(A)], detections: later }], 1).ap).toBe(1);
  });

  it("counts a second answer on one object as wrong, at thresholds its overlap reaches", () => {
    // 10 wide, moved by 2: overlap 8 / 12, so right at 0.50, 0.55, 0.60 and 0.65 of the ten thresholds.
    const moved = found([2, 0, 12, 10], 0.9);
    const { ap, ap50, ap75 } = detectionQuality(
      [{ objects: [object([0, 0, 10, 10])], detections: [moved] }],
      1,
    );
    expect(ap).toBeCloseTo(0.4, 12);
    expect([ap50, ap75]).toEqual([1, 0]);
    const twice = [found(A, 0.9), found(A, 0.8), found(B, 0.7)];
    const quality = detectionQuality([{ objects: [object(A), object(B)], detections: twice }], 1);
    // Recall up to 1/2 at precision 1 (51 points), beyond at 2/3 (50 points).
    expect(quality.ap).toBeCloseTo((51 + 50 * (2 / 3)) / 101, 12);
  });

  it("counts neither for nor against what lies on a crowd", () => {
    const crowd = object([0, 0, 300, 300], 0, { isIgnored: true });
    const detections = [found([10, 200, 40, 230], 0.95), found([50, 200, 80, 230], 0.9), found(A, 0.8)];
    const { ap, perClass } = detectionQuality([{ objects: [crowd, object(A)], detections }], 1);
    expect(ap).toBe(1);
    expect(perClass[0]?.objects).toBe(1);
    const alone = detectionQuality([{ objects: [crowd], detections }], 1);
    expect(alone.ap).toBeUndefined();
  });

  it("sorts by the object's own area where it is known", () => {
    // A box of 50 x 50 is medium; its outline of 900 is small.
    const { apSmall, apMedium, apLarge } = detectionQuality(
      [{ objects: [object(A, 0, { area: 900 })], detections: [found(A, 0.9)] }],
      1,
    );
    expect([apSmall, apMedium, apLarge]).toEqual([1, undefined, undefined]);
  });

  it("leaves classes without objects out of the mean", () => {
    const detections = [found(A, 0.9, 0), found(B, 0.9, 2)];
    const { ap, perClass } = detectionQuality([{ objects: [object(A, 0), object(B, 1)], detections }], 3);
    expect(perClass.map((each) => each.ap)).toEqual([1, 0, undefined]);
    expect(ap).toBe(0.5);
  });

  it("refuses classes beyond the last and scores that are no numbers", () => {
    const wrong: JudgedImage[] = [
      { objects: [object(A, 1)], detections: [] },
      { objects: [], detections: [found(A, 0.5, -1)] },
      { objects: [], detections: [found(A, Number.NaN)] },
    ];
    for (const image of wrong) expect(() => detectionQuality([image], 1)).toThrow(PolyheadError);
  });
});

describe("the spread of average precision", () => {
  /** One object in each of 60 images, found in two of three; elsewhere a sure mistake. */
  const images = Array.from({ length: 60 }, (_, at): JudgedImage => {
    const detections = at % 3 === 0 ? [found(B, 0.5 + at / 200)] : [found(A, 0.4 + at / 300)];
    return { objects: [object(A)], detections };
  });

  it("is that of the same measure on sets drawn anew", () => {
    const random = seededRandom(5);
    const drawn = Array.from({ length: 100 }, () => {
      const places = images.map(() => Math.floor(random() * images.length));
      return detectionQuality(
        [...places].sort((a, b) => a - b).flatMap((at) => images[at] ?? []),
        1,
      );
    });
    const { ap, ap50 } = precisionDeviation(images, 1, 5);
    expect(ap).toBeCloseTo(standardDeviation(drawn.map((each) => each.ap ?? Number.NaN)), 10);
    expect(ap50).toBeCloseTo(standardDeviation(drawn.map((each) => each.ap50 ?? Number.NaN)), 10);
    expect(ap).toBeGreaterThan(0.02);
    expect(precisionDeviation(images, 1, 5)).toEqual({ ap, ap50 });
  });

  it("is that of a share where nothing is found wrongly, none where all is found, unknown for one image", () => {
    const half = images.map(({ objects }, at) => ({ objects, detections: at % 2 ? [found(A, 0.9)] : [] }));
    const spread = precisionDeviation(half, 1, 0).ap50 ?? Number.NaN;
    expect(Math.abs(spread - Math.sqrt(0.25 / 60))).toBeLessThan(0.015);
    const all = images.map(({ objects }) => ({ objects, detections: [found(A, 0.9)] }));
    expect(precisionDeviation(all, 1, 0)).toEqual({ ap: 0, ap50: 0 });
    const unknown = { ap: undefined, ap50: undefined };
    expect(precisionDeviation(all.slice(0, 1), 1, 0)).toEqual(unknown);
    expect(
      precisionDeviation(
        [
          { objects: [], detections: [] },
          { objects: [], detections: [] },
        ],
        1,
        0,
      ),
    ).toEqual(unknown);
  });
});

describe("a published example", () => {
  /**
   * Images 42, 73, 74 and 133 of COCO with fake detections of its repository, as the test suite of torchmetrics 0.11
   * prints them, and what COCO's own evaluation (pycocotools) says of them there, to three digits.
   */
  const images: JudgedImage[] = [
    {
      objects: [object([214.15, 41.29, 562.41, 285.07], 4)],
      detections: [found([258.15, 41.29, 606.41, 285.07], 0.236, 4)],
    },
    {
      objects: [object([13, 22.75, 548.98, 632.42], 2), object([1.66, 3.32, 270.26, 275.23], 2)],
      detections: [found([61, 22.75, 565, 632.42], 0.318, 3), found([12.66, 3.32, 281.26, 275.23], 0.726, 2)],
    },
    {
      objects: [
        object([61.87, 276.25, 358.29, 379.43], 4),
        object([2.75, 3.66, 162.15, 316.06], 1),
        object([295.55, 93.96, 313.97, 152.79]),
        object([326.94, 97.05, 340.49, 122.98]),
        object([356.62, 95.47, 372.33, 147.55]),
        object([462.08, 105.09, 493.74, 146.99]),
        object([277.11, 103.84, 292.44, 150.72]),
      ],
      detections: [
        found([87.87, 276.25, 384.29, 379.43], 0.546, 4),
        found([0, 3.66, 142.15, 316.06], 0.3, 1),
        found([296.55, 93.96, 314.97, 152.79], 0.407),
        found([328.94, 97.05, 342.49, 122.98], 0.611),
        found([356.62, 95.47, 372.33, 147.55], 0.335),
        found([464.08, 105.09, 495.74, 146.99], 0.805),
        found([276.11, 103.84, 291.44, 150.72], 0.953),
      ],
    },
    {
      objects: [object([13.99, 2.87, 640, 421.52], 5)],
      detections: [found([0, 2.87, 601, 421.52], 0.423, 5)],
    },
  ];

  it("has the numbers of COCO's evaluation", () => {
    const quality = detectionQuality(images, 6);
    const published = {
      ...{ ap: 0.706, ap50: 0.901, ap75: 0.846, apSmall: 0.689, apMedium: 0.8, apLarge: 0.701 },
      ...{ ar1: 0.592, ar10: 0.716, ar100: 0.716, arSmall: 0.767, arMedium: 0.8, arLarge: 0.7 },
    };
    for (const [name, value] of Object.entries(published)) {
      expect(Math.abs((quality[name as keyof typeof published] ?? -1) - value), name).toBeLessThanOrEqual(
        5e-4,
      );
    }
    const classes: [ap: number, ar: number][] = [
      [0.725, 0.78],
      [0.8, 0.8],
      [0.454, 0.45],
      [-1, -1],
      [0.65, 0.65],
      [0.9, 0.9],
    ];
    classes.forEach(([ap, ar], at) => {
      expect(Math.abs((quality.perClass[at]?.ap ?? -1) - ap), `${at}`).toBeLessThanOrEqual(5e-4);
      expect(Math.abs((quality.perClass[at]?.ar100 ?? -1) - ar), `${at}`).toBeLessThanOrEqual(5e-4);
    });
  });
});

interface Scene {
  readonly classes: number;
  readonly images: readonly {
    readonly objects: readonly {
      readonly class: number;
      readonly box: Corners;
      readonly crowd: boolean;
      readonly area: number | null;
    }[];
    readonly detections: readonly { readonly class: number; readonly box: Corners; readonly score: number }[];
  }[];
  readonly quality: Record<string, number | null> & {
    readonly perClass: readonly Record<string, number | null>[];
  };
}

describe("random scenes", () => {
  const scenes: Scene[] = JSON.parse(readFileSync(new URL("coco-quality.json", import.meta.url), "utf8"));

  it.each(scenes.map((scene, at) => [at, scene] as const))(
    "%i is judged as the reference does",
    (_, scene) => {
      const quality = detectionQuality(
        scene.images.map(({ objects, detections }) => ({
          objects: objects.map((each) =>
            object(each.box, each.class, {
              ...(each.crowd && { isIgnored: true }),
              ...(each.area !== null && { area: each.area }),
            }),
          ),
          detections: detections.map((each) => found(each.box, each.score, each.class)),
        })),
        scene.classes,
      );
      const { perClass, ...numbers } = scene.quality;
      const compare = (name: string, got: number | undefined, expected: number | null) => {
        if (expected === null) expect(got, name).toBeUndefined();
        else expect(got, name).toBeCloseTo(expected, 9);
      };
      for (const [name, value] of Object.entries(numbers)) {
        compare(name, quality[name as Exclude<keyof DetectionQuality, "perClass">], value as number | null);
      }
      perClass.forEach((each, at) => {
        const own = quality.perClass[at];
        compare("ap", own?.ap, each.ap ?? null);
        compare("ap50", own?.ap50, each.ap50 ?? null);
        compare("ar100", own?.ar100, each.ar100 ?? null);
      });
    },
  );
});
