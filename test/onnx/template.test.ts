/** A template and its tensors compute what the model computes, and models of one form have one template. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { graph, type Model, model, type Node, node, valueInfo, type Weight } from "../../src/onnx/model.js";
import { templateOf } from "../../src/onnx/template.js";
import { weight } from "../../src/onnx/weight.js";
import { modelBytes } from "../../src/onnx/write.js";
import { float32, int64, type Tensor } from "../../src/tensor/tensor.js";
import { useRuntime } from "./runtime.js";

const openModel = useRuntime();

function numbers(count: number, seed: number): Float32Array {
  return Float32Array.from({ length: count }, (_, at) => Math.sin(seed * 7.3 + at * 1.7));
}

/** A recipe for a head: layers in a row, with what stands between them. */
interface Recipe {
  readonly widths: readonly number[];
  readonly kinds: readonly ("gemm" | "matmul")[];
  readonly between: readonly ("Relu" | "Tanh" | "scale" | "reshape")[];
  readonly pooled: boolean;
}

const recipes: fc.Arbitrary<Recipe> = fc.record({
  widths: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 2, maxLength: 4 }),
  kinds: fc.array(fc.constantFrom("gemm", "matmul"), { minLength: 3, maxLength: 3 }),
  between: fc.array(fc.constantFrom("Relu", "Tanh", "scale", "reshape"), { minLength: 3, maxLength: 3 }),
  pooled: fc.boolean(),
});

/** The head of a recipe; `seed` makes its numbers, `prefix` its names. */
function build({ widths, kinds, between, pooled }: Recipe, seed: number, prefix: string): Model {
  const nodes: Node[] = [];
  const weights: Weight[] = [];
  let made = 0;
  const fresh = () => `${prefix}${made++}`;
  const add = (opType: string, inputs: readonly string[]) => {
    const output = fresh();
    nodes.push(node(opType, inputs, [output]));
    return output;
  };
  const constant = (value: Tensor) => {
    const name = fresh();
    weights.push(weight(name, value));
    return name;
  };
  const [width = 1] = widths;
  let value = `${prefix}in`;
  if (pooled) value = add("Flatten", [add("GlobalAveragePool", [value])]);
  widths.slice(1).forEach((next, at) => {
    const before = widths[at] ?? 1;
    const matrix = constant(float32([before, next], numbers(before * next, seed + at)));
    const bias = constant(float32([next], numbers(next, seed - at)));
    value =
      kinds[at] === "gemm"
        ? add("Gemm", [value, matrix, bias])
        : add("Add", [add("MatMul", [value, matrix]), bias]);
    if (between[at] === "scale") value = add("Mul", [value, constant(float32([], [seed + 0.5]))]);
    else if (between[at] === "reshape")
      value = add("Reshape", [value, constant(int64([2], [-1n, BigInt(next)]))]);
    else value = add(between[at] ?? "Relu", [value]);
  });
  const main = graph("head", {
    nodes,
    inputs: [
      valueInfo(`${prefix}in`, "float32", pooled ? [`${prefix}n`, width, 2, 2] : [`${prefix}n`, width]),
    ],
    outputs: [valueInfo(value, "float32", [`${prefix}n`, widths.at(-1) ?? 1])],
    weights,
  });
  return model(main);
}

async function answer(of: Model, inputs: ReadonlyMap<string, Tensor>): Promise<Float32Array> {
  const opened = await openModel(of, "all");
  try {
    const [output] = [...(await opened.run(inputs)).values()];
    if (output?.data instanceof Float32Array) return output.data;
    throw new Error("no float32 output");
  } finally {
    await opened.close();
  }
}

describe("a template", () => {
  it("computes with its tensors what the model computes", async () => {
    await fc.assert(
      fc.asyncProperty(recipes, fc.integer({ min: 1, max: 99 }), async (recipe, seed) => {
        const whole = build(recipe, seed, "a");
        const template = templateOf(whole);
        if (!template) throw new Error("a head of linear layers has no template");
        const [width = 1] = recipe.widths;
        const shape = recipe.pooled ? [3, width, 2, 2] : [3, width];
        const input = float32(
          shape,
          numbers(
            shape.reduce((a, b) => a * b),
            5,
          ),
        );
        const expected = await answer(whole, new Map([["ain", input]]));
        const given = new Map([...template.weights, [template.names.get("ain") ?? "", input]]);
        const got = await answer(template.model, given);
        expect(got.length).toBe(expected.length);
        for (const [at, value] of expected.entries())
          expect(Math.abs((got[at] ?? Number.NaN) - value)).toBeLessThan(1e-5 * (10 + Math.abs(value)));
      }),
      { numRuns: 40 },
    );
  });

  it("is the same for models that differ in names and numbers alone, and holds none of the numbers", () => {
    fc.assert(
      fc.property(recipes, fc.integer({ min: 1, max: 99 }), (recipe, seed) => {
        const made = [build(recipe, seed, "a"), build(recipe, seed + 1, "other_")].map(templateOf);
        const [one, other] = made.map((each) => each && modelBytes(each.model));
        expect(one).toBeDefined();
        // A factor that is a scalar goes out too, so that nothing of the seed is left.
        expect(other).toEqual(one);
      }),
    );
  });

  it("is not made of what computes faster with constants inside", () => {
    const whole = (op: Node, kernel: Tensor, shape: (number | string)[]) =>
      model(
        graph("g", {
          nodes: [op],
          inputs: [valueInfo("x", "float32", shape)],
          outputs: [valueInfo("y", "float32")],
          weights: [weight("w", kernel)],
        }),
      );
    const large = float32([1024, 512], new Float32Array(1024 * 512));
    expect(templateOf(whole(node("Gemm", ["x", "w"], ["y"]), large, ["n", 1024]))).toBeUndefined();
    const kernel = float32([2, 3, 1, 1], new Float32Array(6));
    expect(templateOf(whole(node("Conv", ["x", "w"], ["y"]), kernel, ["n", 3, 4, 4]))).toBeUndefined();
  });
});
