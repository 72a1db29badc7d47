/** When training stops. */
import { describe, expect, it } from "vitest";
import { judgeProgress } from "../../src/data/index.js";

describe("the progress of a training", () => {
  it("is judged by the best so far", () => {
    const judge = (qualities: number[], least?: number) =>
      judgeProgress(qualities, { patience: 2, ...(least !== undefined && { least }) });
    expect(judge([])).toEqual({ best: -1, isBest: false, shouldStop: false });
    expect(judge([0.5])).toEqual({ best: 0, isBest: true, shouldStop: false });
    expect(judge([0.5, 0.4])).toEqual({ best: 0, isBest: false, shouldStop: false });
    expect(judge([0.5, 0.4, 0.5])).toEqual({ best: 0, isBest: false, shouldStop: true });
    expect(judge([0.5, 0.4, 0.6])).toEqual({ best: 2, isBest: true, shouldStop: false });
    expect(judge([0.5, 0.51, 0.52], 0.1)).toEqual({ best: 0, isBest: false, shouldStop: true });
    expect(judge([0.5, 0.51, 0.61], 0.1)).toMatchObject({ best: 2 });
    expect(judge([Number.NaN, 0.1])).toEqual({ best: 1, isBest: true, shouldStop: false });
    expect(judge([Number.NaN, Number.NaN, Number.NaN])).toEqual({
      best: -1,
      isBest: false,
      shouldStop: true,
    });
  });
});
