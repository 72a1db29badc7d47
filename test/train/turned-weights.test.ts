/** Transposed convolutions answer what they answered before they were written as convolutions. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { elementCount, type Shape } from "../../src/tensor/shape.js";
import { float32, toNumbers } from "../../src/tensor/tensor.js";
import { withTurnedWeights } from "../../src/train/turned-weights.js";
import { useRuntime } from "../onnx/runtime.js";

const open = useRuntime();

const seeded = (shape: Shape) =>
  float32(
    shape,
    Array.from({ length: elementCount(shape) }, (_, at) => Math.sin(at * 0.37)),
  );

const small = fc.integer({ min: 0, max: 2 });
const transposed = fc.record({
  group: fc.constantFrom(1, 2, 3),
  inputs: fc.constantFrom(1, 2),
  outputs: fc.constantFrom(1, 2),
  kernel: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 2 }),
  stride: fc.constantFrom(1, 1, 1, 2),
  dilation: fc.constantFrom(1, 2),
  pads: fc.tuple(small, small, small, small),
  bias: fc.boolean(),
});

describe("turned weights", () => {
  it("do what transposed convolutions did", { timeout: 60_000 }, async () => {
    let turned = 0;
    await fc.assert(
      fc.asyncProperty(
        transposed,
        async ({ group, inputs, outputs, kernel, stride, dilation, pads, bias }) => {
          const rank = kernel.length;
          const from = [2, group * inputs, ...kernel.map(() => 7)];
          const every = (value: number) => kernel.map(() => value);
          const attributes = {
            kernel_shape: kernel,
            strides: every(stride),
            dilations: every(dilation),
            pads: [...pads.slice(0, rank), ...pads.slice(2, 2 + rank)],
            group,
          };
          const weights = [
            weight("w", seeded([group * inputs, outputs, ...kernel])),
            weight("b", seeded([group * outputs])),
          ];
          const plain = model(
            graph("one", {
              nodes: [node("ConvTranspose", bias ? ["x", "w", "b"] : ["x", "w"], ["y"], attributes)],
              inputs: [valueInfo("x", "float32", from)],
              outputs: [valueInfo("y", "float32")],
              weights: bias ? weights : weights.slice(0, 1),
            }),
          );
          const other = withTurnedWeights(plain);
          const isTurned = other.graph.node.some(({ opType }) => opType === "Conv");
          if (isTurned) turned++;
          const fits = kernel.every((size, axis) =>
            [pads[axis] ?? 0, pads[2 + axis] ?? 0].every((pad) => pad <= (size - 1) * dilation),
          );
          expect(isTurned).toBe(stride === 1 && fits);
          const x = new Map([["x", seeded(from)]]);
          const answers = [];
          for (const each of [plain, other]) {
            const opened = await open(each, "all");
            answers.push((await opened.run(x)).get("y"));
            await opened.close();
          }
          const [before, after] = answers;
          expect(after?.shape).toEqual(before?.shape);
          const wanted = toNumbers(before ?? float32([0], []));
          const got = toNumbers(after ?? float32([0], []));
          for (const [at, each] of wanted.entries()) expect(got[at]).toBeCloseTo(each, 4);
        },
      ),
      { numRuns: 60 },
    );
    expect(turned).toBeGreaterThan(10);
  });
});
