/** Every gradient rule against differences of the function that it belongs to. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FAMILIES } from "../../../src/train/autodiff/rules.js";
import { useRuntime } from "../../onnx/runtime.js";
import { CASES, CONTRIBUTED_CASES } from "./cases.js";
import { checkGradients } from "./finite-differences.js";

const open = useRuntime();
const RUNS = 12;

describe("gradient rules", () => {
  it("all have cases", () => {
    const { "com.microsoft": contributed, ...standard } = FAMILIES;
    expect(Object.keys(CASES).sort()).toEqual(Object.values(standard).flatMap(Object.keys).sort());
    expect(Object.keys(CONTRIBUTED_CASES).sort()).toEqual(Object.keys(contributed ?? {}).sort());
  });

  it.each([
    ...Object.entries(CASES),
    ...Object.entries(CONTRIBUTED_CASES).map(([name, of]) => [`com.microsoft.${name}`, of] as const),
  ])(
    "%s",
    async (_, cases) => {
      await fc.assert(
        fc.asyncProperty(cases, (of) => checkGradients(open, of)),
        { numRuns: RUNS },
      );
    },
    60_000,
  );
});
