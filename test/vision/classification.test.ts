import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { float32 } from "../../src/tensor/index.js";
import { decodeClassifications, sigmoid, softmax } from "../../src/vision/index.js";

describe("decodeClassifications", () => {
  const logits = float32([2, 3], [0, Math.log(2), 0, 5, 5, -5]);

  it("gives the best labels of each row, best first, ties by class", () => {
    const [first, second] = decodeClassifications(logits, ["a", "b"], { limit: 2 });
    expect(first).toEqual([
      { label: "b", classIndex: 1, score: expect.closeTo(0.5, 6) },
      { label: "a", classIndex: 0, score: expect.closeTo(0.25, 6) },
    ]);
    expect(second?.map(({ label }) => label)).toEqual(["a", "b"]);
    expect(decodeClassifications(logits, [])[0]).toHaveLength(3);
  });

  it("takes probabilities as they are, and independent classes one by one", () => {
    const scores = float32([1, 2], [0.25, 0.75]);
    expect(decodeClassifications(scores, ["a", "b"], { activation: "none", limit: 1 })).toEqual([
      [{ label: "b", classIndex: 1, score: 0.75 }],
    ]);
    expect(decodeClassifications(float32([1, 1], [0]), ["a"], { activation: "sigmoid" })[0]?.[0]?.score).toBe(
      0.5,
    );
  });

  it("refuses an output that is not [batch, classes]", () => {
    expect(() => decodeClassifications(float32([4], [1, 2, 3, 4]), [])).toThrow(
      expect.objectContaining({ code: "MODEL_MALFORMED" }),
    );
  });
});

describe("softmax", () => {
  it("adds up to 1, keeps the order and does not overflow", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -1e6, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 9 }),
        (values) => {
          const scores = softmax(values);
          expect(scores.reduce((sum, score) => sum + score, 0)).toBeCloseTo(1, 9);
          expect(scores.indexOf(Math.max(...scores))).toBeLessThanOrEqual(
            values.indexOf(Math.max(...values)),
          );
        },
      ),
    );
  });

  it("agrees with the sigmoid for two classes", () => {
    expect(softmax([1.5, 0])[0]).toBeCloseTo(sigmoid([1.5])[0] ?? 0, 12);
  });
});
