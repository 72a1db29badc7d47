/** How rows of two revisions agree, by what their head says of itself; the numbers were computed by hand. */
import { describe, expect, it } from "vitest";
import type { Answer } from "../../src/engine/index.js";
import type { Metadata } from "../../src/onnx/metadata.js";
import { agreementMeasure, Comparisons } from "../../src/server/comparisons.js";
import { float32 } from "../../src/tensor/tensor.js";

/** What is told of a shadow that gives one list of rows where the route answered another. */
function compared(metadata: Metadata, answered: readonly number[][], shadow: readonly number[][]) {
  const outputs = (rows: readonly number[][]) => ({
    y: float32([rows.length, rows[0]?.length ?? 0], rows.flat()),
  });
  const answer: Answer = {
    generation: 1,
    cached: false,
    ran: [],
    batch: 1,
    batchRows: answered.length,
    queued: 0,
    running: 0,
    composing: 0,
    splitting: 0,
    routes: {
      a: {
        revision: "main",
        through: [],
        outputs: outputs(answered),
        shadows: [{ revision: "shadow", outputs: outputs(shadow) }],
      },
    },
  };
  const comparisons = new Comparisons();
  comparisons.add("a", answer, answered.length, agreementMeasure(metadata));
  return comparisons.report("a", ["shadow"])[0];
}

describe("the agreement of a shadow", () => {
  const labels = ["x", "y"];

  it.each<[string, Metadata]>([
    ["says that it classifies", { task: "classification" }],
    ["has labels and no task", { labels }],
  ])("that %s is the share of rows with the same first class", (_, metadata) => {
    const rows = [
      [0.1, 0.9],
      [0.8, 0.2],
      [0.4, 0.6],
    ];
    const others = [
      [3, 4],
      [1, 2],
      [-2, -1],
    ];
    expect(compared(metadata, rows, others)?.agreement).toBeCloseTo(2 / 3);
  });

  it.each<[string, Metadata]>([
    ["says that it embeds", { task: "embedding", labels }],
    ["has neither task nor labels", {}],
  ])("that %s is the mean cosine", (_, metadata) => {
    const agreement = (a: number[], b: number[]) => compared(metadata, [a], [b])?.agreement;
    expect(agreement([3, 4], [40, 30])).toBeCloseTo(0.96);
    expect(agreement([1, 0], [-1, 0])).toBe(0);
    expect(agreement([1, 0], [0, 1])).toBe(0);
    expect(agreement([0, 0], [0, 0])).toBe(1);
    expect(agreement([0, 0], [0, 1])).toBe(0);
    expect(agreement([1, 2], [Number.NaN, 2])).toBe(0);
    const rows = [
      [3, 4],
      [1, 0],
    ];
    const others = [
      [4, 3],
      [-1, 0],
    ];
    expect(compared(metadata, rows, others)?.agreement).toBeCloseTo(0.48);
  });

  it("of another task has no number, but differences", () => {
    const found = compared({ task: "detection", labels }, [[1, 2]], [[2, 4]]);
    expect(found).toMatchObject({ rows: 1, meanDifference: 1.5, maxDifference: 2 });
    expect(found).not.toHaveProperty("agreement");
  });
});
