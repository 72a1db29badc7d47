/** Gradients that are made tile by tile against their definition, sum by sum in double precision. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { graph, model, node, valueInfo } from "../../../src/onnx/model.js";
import { weight } from "../../../src/onnx/weight.js";
import { elementCount, type Shape } from "../../../src/tensor/shape.js";
import { type Tensor, tensor, toNumbers } from "../../../src/tensor/tensor.js";
import { differentiate } from "../../../src/train/autodiff/differentiate.js";
import { useRuntime } from "../../onnx/runtime.js";

const open = useRuntime();

const side = fc.integer({ min: 9, max: 12 });
const pad = fc.integer({ min: 0, max: 2 });
const layer = fc.record({
  opType: fc.constantFrom("Conv", "ConvTranspose"),
  images: fc.integer({ min: 1, max: 4 }),
  channels: fc.constantFrom<[number, number]>([48, 49], [50, 48], [130, 128]),
  sides: fc.tuple(side, side),
  pads: fc.tuple(pad, pad, pad, pad),
});

const wave = (shape: Shape, step: number) =>
  tensor(
    "float32",
    shape,
    Float32Array.from({ length: elementCount(shape) }, (_, at) => Math.sin(at * step)),
  );

/** The sum over images and places of what each weight is multiplied with: wide[c, y + i - top, x + j - left] narrow[f, y, x]. */
function definition(wide: Tensor, narrow: Tensor, [top, left]: readonly number[]): Float64Array {
  const [images = 0, channels = 0, height = 0, width = 0] = wide.shape;
  const [, filters = 0, rows = 0, columns = 0] = narrow.shape;
  const [a, b] = [toNumbers(wide), toNumbers(narrow)];
  const sums = new Float64Array(filters * channels * 9);
  for (let at = 0; at < sums.length; at++) {
    const [f, c, i, j] = [
      Math.floor(at / 9 / channels),
      Math.floor(at / 9) % channels,
      Math.floor((at % 9) / 3),
      at % 3,
    ];
    for (let n = 0; n < images; n++) {
      for (let y = 0; y < rows; y++) {
        const row = y + i - (top ?? 0);
        if (row < 0 || row >= height) continue;
        for (let x = 0; x < columns; x++) {
          const column = x + j - (left ?? 0);
          if (column < 0 || column >= width) continue;
          const wideValue = a[((n * channels + c) * height + row) * width + column] ?? Number.NaN;
          sums[at] =
            (sums[at] ?? 0) + wideValue * (b[((n * filters + f) * rows + y) * columns + x] ?? Number.NaN);
        }
      }
    }
  }
  return sums;
}

describe("gradients tile by tile", () => {
  it("are those of the definition", { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(layer, async ({ opType, images, channels: [own, others], sides, pads }) => {
        const [top, left, bottom, right] = pads;
        const change = (by: number) => [
          sides[0] + by * (top + bottom - 2),
          sides[1] + by * (left + right - 2),
        ];
        const isTransposed = opType === "ConvTranspose";
        const from = [images, own, ...sides];
        const to = [images, others, ...change(isTransposed ? -1 : 1)];
        const [x, d] = [wave(from, 0.37), wave(to, 0.23)];
        const kernel = isTransposed ? [own, others, 3, 3] : [others, own, 3, 3];
        const plain = model(
          graph("one", {
            nodes: [
              node(opType, ["x", "w"], ["y"], { kernel_shape: [3, 3], pads: [...pads] }),
              node("Mul", ["y", "d"], ["weighted"]),
              node("ReduceSum", ["weighted"], ["loss"], { keepdims: 0 }),
            ],
            inputs: [valueInfo("x", "float32", from), valueInfo("d", "float32", to)],
            outputs: [valueInfo("loss", "float32", [])],
            weights: [weight("w", wave(kernel, 0.71))],
          }),
        );
        const { model: step, gradients } = differentiate(plain, { of: "loss", withRespectTo: ["w"] });
        expect(step.graph.node.map(({ opType }) => opType)).not.toContain("Slice");
        const output = valueInfo(gradients.get("w") ?? "", "float32");
        step.graph.output.push(output);
        const opened = await open(step, "all");
        const got = (
          await opened.run(
            new Map([
              ["x", x],
              ["d", d],
            ]),
          )
        ).get(output.name);
        await opened.close();
        const wanted = isTransposed ? definition(d, x, pads) : definition(x, d, pads);
        const largest = wanted.reduce((most, each) => Math.max(most, Math.abs(each)), 0);
        expect(got?.shape).toEqual(kernel);
        const numbers = toNumbers(got ?? x);
        const farthest = wanted.reduce(
          (most, each, at) => Math.max(most, Math.abs(each - (numbers[at] ?? Number.NaN))),
          0,
        );
        expect(farthest / largest).toBeLessThan(3e-5);
      }),
      { numRuns: 10 },
    );
  });
});
