/** What is reported of a classifier, against numbers from elsewhere. */
import { describe, expect, it } from "vitest";
import { float32 } from "../../src/tensor/index.js";
import { calibrationError, classificationQuality, wilsonInterval } from "../../src/vision/index.js";

describe("the interval of a share", () => {
  it("is Wilson's", () => {
    // From the tables of Newcombe (1998), method 3: 81/263, 15/148, 0/20, 1/29.
    for (const [right, total, low, high] of [
      [81, 263, 0.2553, 0.3662],
      [15, 148, 0.0624, 0.1605],
      [0, 20, 0, 0.1611],
      [1, 29, 0.0061, 0.1718],
    ] as const) {
      const interval = wilsonInterval(right, total);
      expect(interval.low).toBeCloseTo(low, 4);
      expect(interval.high).toBeCloseTo(high, 4);
    }
    expect(wilsonInterval(20, 20).high).toBe(1);
    expect(wilsonInterval(0, 0)).toEqual({ low: 0, high: 1 });
  });
});

describe("the calibration error", () => {
  it("is the mean distance of confidence and accuracy over bins", () => {
    expect(calibrationError([0.95, 0.95, 0.95, 0.95], [true, true, true, true])).toBeCloseTo(0.05, 12);
    expect(calibrationError([0.6, 0.6, 0.8, 0.8], [true, false, true, true])).toBeCloseTo(
      0.5 * 0.1 + 0.5 * 0.2,
      12,
    );
    expect(calibrationError([1, 1], [true, false])).toBeCloseTo(0.5, 12);
    expect(calibrationError([], [])).toBe(0);
  });
});

describe("a classifier's answers", () => {
  const logits = float32([4, 3], [2, 0, 0, 0, 3, 0, 5, 0, 0, 0, 0, 1]);

  it("are judged by all measures", () => {
    const quality = classificationQuality(logits, [0, 1, 2, 2]);
    expect(quality).toMatchObject({
      examples: 4,
      accuracy: 0.75,
      baseline: 0.5,
      interval: wilsonInterval(3, 4),
      confusion: [
        [1, 0, 0],
        [0, 1, 0],
        [1, 0, 1],
      ],
    });
    expect(quality.balancedAccuracy).toBeCloseTo(2.5 / 3, 12);
    const loss = [
      Math.log(1 + 2 * Math.exp(-2)),
      Math.log(1 + 2 * Math.exp(-3)),
      5 + Math.log(1 + 2 * Math.exp(-5)),
      Math.log(1 + 2 * Math.exp(-1)),
    ];
    expect(quality.logLoss).toBeCloseTo(loss.reduce((sum, value) => sum + value, 0) / 4, 6);
    expect(quality.mistakes).toEqual([
      { example: 2, expected: 2, predicted: 0, confidence: expect.closeTo(1 / (1 + 2 * Math.exp(-5)), 6) },
    ]);
  });

  it("have their mistakes in the order of confidence", () => {
    const { mistakes } = classificationQuality(logits, [1, 0, 1, 0]);
    expect(mistakes.map(({ example }) => example)).toEqual([2, 1, 0, 3]);
  });

  it("may be probabilities already, of any sum", () => {
    const { logLoss, accuracy } = classificationQuality(float32([1, 2], [0.2, 0.6]), [0], "none");
    expect(accuracy).toBe(0);
    expect(logLoss).toBeCloseTo(-Math.log(0.25), 6);
    expect(classificationQuality(float32([1, 2], [0, 1]), [0], "none").logLoss).toBeLessThan(30);
  });

  it("are refused when they do not fit", () => {
    expect(() => classificationQuality(logits, [0, 1])).toThrow(/expected \[examples, classes\]/);
    expect(() => classificationQuality(logits, [0, 1, 2, 3])).toThrow(/Classes are 0 to 2/);
    expect(() => classificationQuality(float32([1, 2], [Number.NaN, 0]), [0])).toThrow(/example 0/);
    expect(() => classificationQuality(float32([0, 3], []), [])).toThrow(/examples/);
  });
});
