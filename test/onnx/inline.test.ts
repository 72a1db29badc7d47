/** Functions replaced by their bodies: the same values under the same names, by identity and in ONNX Runtime. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { identify } from "../../src/onnx/identity.js";
import { inlined } from "../../src/onnx/inline.js";
import {
  attribute,
  copyOf,
  float,
  graph,
  type Model,
  type ModelFunction,
  model,
  type Node,
  node,
  valueInfo,
} from "../../src/onnx/model.js";
import { inferTypes } from "../../src/onnx/shapes.js";
import { weight } from "../../src/onnx/weight.js";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.js";
import { call, define, withFunctions } from "./functions.js";
import { INPUTS, nameOf, recipes, styles, written } from "./recipes.js";
import { useRuntime } from "./runtime.js";

const open = useRuntime();

async function run(of: Model, inputs: ReadonlyMap<string, Tensor>): Promise<ReadonlyMap<string, Tensor>> {
  const opened = await open(of, "off");
  try {
    return await opened.run(inputs);
  } finally {
    await opened.close();
  }
}

const x = valueInfo("x", "float32", [4]);
const input = new Map([["x", float32([4], [-2, -0.5, 0.5, 2])]]);

function calling(nodes: readonly Node[], outputs: readonly string[], ...functions: ModelFunction[]): Model {
  const weights = [weight("yes", tensor("bool", [], Uint8Array.of(1))), weight("top", float32([], [1]))];
  const declared = outputs.map((name) => valueInfo(name, "float32", [4]));
  return withFunctions(model(graph("g", { nodes, inputs: [x], outputs: declared, weights })), ...functions);
}

/** The values of the main graph keep their identities, and the runtime finds the same. */
async function expectSame(whole: Model, given: ReadonlyMap<string, Tensor> = input): Promise<Model> {
  const flat = inlined(whole);
  expect(flat.functions).toEqual([]);
  const identities = await identify(flat);
  for (const [name, identity] of await identify(whole)) expect(identities.get(name)).toBe(identity);
  expect(await run(flat, given)).toEqual(await run(whole, given));
  return flat;
}

/** A function of an `If` whose branches take what they read from around them. */
function choosing(name: string, then: readonly Node[], otherwise: readonly Node[]): ModelFunction {
  const branch = (nodes: readonly Node[]) =>
    graph("branch", {
      nodes,
      inputs: [],
      outputs: nodes.slice(-1).flatMap(({ output }) => output.map((each) => valueInfo(each, "float32"))),
      weights: [],
    });
  const chosen = node("If", ["c"], ["b"], { then_branch: branch(then), else_branch: branch(otherwise) });
  return define(name, ["c", "a"], ["b"], [chosen]);
}

describe("inlined functions", () => {
  it("compute what calls of them compute", async () => {
    await fc.assert(
      fc.asyncProperty(recipes, styles, async (recipe, style) => {
        const given = Array.from(
          { length: INPUTS },
          (_, at) => [nameOf(style, at), float32([2, 2], [0.5, -1, at, 0.25])] as const,
        );
        await expectSame(written(recipe, { ...style, calls: true, opset: 17 }), new Map(given));
      }),
      { numRuns: 40 },
    );
  });

  it("may call others, take attributes and have defaults for them", async () => {
    const alpha = Object.assign(attribute("alpha", float(0)), { refAttrName: "slope" });
    const leaky = copyOf(node("LeakyRelu", ["a"], ["b"]), { attribute: [alpha] });
    const slope = Object.assign(attribute("slope", float(0)), { refAttrName: "outer" });
    const passing = copyOf(call("Leaky", ["a"], ["b"]), { attribute: [slope] });
    await expectSame(
      calling(
        [
          call("Leaky", ["x"], ["standard"]),
          call("Leaky", ["x"], ["half"], { slope: float(0.5) }),
          call("Outer", ["half"], ["twice"], { outer: float(0.125) }),
        ],
        ["standard", "half", "twice"],
        define("Leaky", ["a"], ["b"], [leaky], { slope: float(0.25) }),
        define("Outer", ["a"], ["b"], [passing], { outer: float(0.75) }),
      ),
    );
  });

  it("keep apart what branches and callers call by the same names", async () => {
    // `t` is the caller's argument and a value of the function's branch; `a` and `b` are names of both.
    const add = [node("Neg", ["a"], ["t"]), node("Add", ["t", "a"], ["u"]), node("Exp", ["u"], ["v"])];
    const flat = await expectSame(
      calling(
        [
          node("Tanh", ["x"], ["t"]),
          call("Choose", ["yes", "t"], ["a"]),
          call("Choose", ["yes", "a"], ["b"]),
          node("Add", ["a", "b"], ["y"]),
        ],
        ["t", "a", "b", "y"],
        choosing("Choose", add, [node("Abs", ["a"], ["w"])]),
      ),
    );
    expect(inferTypes(flat).get("b")).toEqual({ dtype: "float32", shape: [4] });
  });

  it("are replaced in branches too", async () => {
    await expectSame(
      calling(
        [call("Choose", ["yes", "x"], ["y"])],
        ["y"],
        choosing("Choose", [call("Twice", ["a"], ["u"])], [node("Abs", ["a"], ["v"])]),
        define("Twice", ["a"], ["b"], [node("Relu", ["a"], ["m"]), node("Add", ["m", "m"], ["b"])]),
      ),
    );
  });

  it("may be given fewer inputs and asked for fewer outputs than they have", async () => {
    const clipped = define(
      "Clipped",
      ["a", "low", "high"],
      ["n", "b"],
      [node("Clip", ["a", "low", "high"], ["b"]), node("Neg", ["b"], ["n"])],
    );
    await expectSame(
      calling([call("Clipped", ["x", "", "top"], ["", "y"]), node("Relu", ["y"], ["z"])], ["z"], clipped),
    );
  });

  it("keep what they declare of their values", () => {
    const unknown = copyOf(node("Unknown", ["a"], ["m"]), { domain: "elsewhere" });
    const body = copyOf(define("F", ["a"], ["b"], [unknown, node("Relu", ["m"], ["b"])]), {
      valueInfo: [valueInfo("m", "float32", [4])],
    });
    const flat = inlined(calling([call("F", ["x"], ["y"])], ["y"], body));
    const made = flat.graph.node.find(({ opType }) => opType === "Unknown")?.output[0] ?? "";
    expect(inferTypes(flat).get(made)).toEqual({ dtype: "float32", shape: [4] });
  });

  it("are refused when an operator changed between their version and the model's", () => {
    const sum = define("F", ["a"], ["b"], [node("ReduceSum", ["a"], ["b"], { axes: [0] })], {}, 11);
    expect(() => inlined(calling([call("F", ["x"], ["y"])], ["y"], sum))).toThrow(
      expect.objectContaining({ code: "MODEL_UNSUPPORTED" }),
    );
    const relu = define("F", ["a"], ["b"], [node("Relu", ["a"], ["b"])], {}, 16);
    expect(inlined(calling([call("F", ["x"], ["y"])], ["y"], relu)).functions).toEqual([]);
  });

  it("are refused when they call themselves, or grow without end", () => {
    const self = define("F", ["a"], ["b"], [call("F", ["a"], ["b"])]);
    expect(() => inlined(calling([call("F", ["x"], ["y"])], ["y"], self))).toThrow(
      expect.objectContaining({ code: "MODEL_MALFORMED" }),
    );
    const doubling = Array.from({ length: 40 }, (_, at) =>
      define(`F${at}`, ["a"], ["b"], [call(`F${at + 1}`, ["a"], ["m"]), call(`F${at + 1}`, ["m"], ["b"])]),
    );
    const relu = define("F40", ["a"], ["b"], [node("Relu", ["a"], ["b"])]);
    expect(() => inlined(calling([call("F0", ["x"], ["y"])], ["y"], ...doubling, relu))).toThrow(
      expect.objectContaining({ code: "LIMIT_EXCEEDED" }),
    );
  });
});
