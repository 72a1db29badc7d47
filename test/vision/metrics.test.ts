import { describe, expect, it } from "vitest";
import {
  accuracy,
  classQualities,
  confusionMatrix,
  mean,
  standardDeviation,
} from "../../src/vision/index.js";

// Values from scikit-learn's documentation of classification_report.
const expected = [0, 1, 2, 2, 2];
const predicted = [0, 0, 2, 2, 1];
const invalid = expect.objectContaining({ code: "INVALID_ARGUMENT" });

describe("metrics", () => {
  it("counts what was called what", () => {
    expect(accuracy(expected, predicted)).toBe(0.6);
    expect(accuracy([], [])).toBe(0);
    expect(confusionMatrix(expected, predicted, 3)).toEqual([
      [1, 0, 0],
      [1, 0, 0],
      [0, 1, 2],
    ]);
  });

  it("gives precision, recall and f1 of each class", () => {
    expect(classQualities(confusionMatrix(expected, predicted, 3))).toEqual([
      { precision: 0.5, recall: 1, f1: expect.closeTo(0.67, 2), support: 1 },
      { precision: 0, recall: 0, f1: 0, support: 1 },
      { precision: 1, recall: expect.closeTo(0.67, 2), f1: 0.8, support: 3 },
    ]);
  });

  it("refuses lists of different length and classes out of range", () => {
    expect(() => accuracy([1], [])).toThrow(invalid);
    expect(() => confusionMatrix([0], [3], 3)).toThrow(invalid);
    expect(() => confusionMatrix([-1], [0], 3)).toThrow(invalid);
  });

  it("knows mean and sample deviation", () => {
    expect(mean([2, 4, 4, 4, 5, 5, 7, 9])).toBe(5);
    expect(standardDeviation([2, 4, 4, 4, 5, 5, 7, 9])).toBeCloseTo(2.138, 3);
    expect([mean([]), standardDeviation([3])]).toEqual([0, 0]);
  });
});
