/** Evaluation mode: what training leaves in a graph is taken out, what cannot be is refused. */
import fc from "fast-check";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { toEvaluation } from "../../src/onnx/evaluation.js";
import { identify } from "../../src/onnx/identity.js";
import { copyOf, float, graph, type Model, model, type Node, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { modelBytes } from "../../src/onnx/write.js";
import { float32, tensor } from "../../src/tensor/tensor.js";

const CHANNELS = 3;
const vector = (name: string, values: number[]) => weight(name, float32([CHANNELS], values));
const WEIGHTS = [
  vector("scale", [1, 2, 3]),
  vector("shift", [0, -1, 1]),
  vector("mean", [0.5, 0, -0.5]),
  vector("variance", [1, 4, 0.25]),
  weight("ratio", float32([], [0.5])),
  weight("yes", tensor("bool", [], Uint8Array.of(1))),
];
const STATISTICS = ["scale", "shift", "mean", "variance"];

function over(nodes: Node[], opset: number, outputs = ["y"]): Model {
  return model(
    graph("g", {
      nodes,
      inputs: [valueInfo("x", "float32", ["N", CHANNELS])],
      outputs: outputs.map((name) => valueInfo(name, name === "mask" ? "bool" : "float32")),
      weights: WEIGHTS,
    }),
    opset,
  );
}

async function run(made: Model, x: Float32Array): Promise<Record<string, unknown[]>> {
  const session = await InferenceSession.create(modelBytes(made), { logSeverityLevel: 4 });
  const out = await session.run({ x: new OrtTensor("float32", x, [x.length / CHANNELS, CHANNELS]) });
  await session.release();
  return Object.fromEntries(Object.entries(out).map(([name, { data }]) => [name, Array.from(data as never)]));
}

describe("Dropout", () => {
  it.each([
    [17, node("Dropout", ["x", "ratio", "yes"], ["y"])],
    [12, node("Dropout", ["x", "", "yes"], ["y", "mask"])],
    [10, node("Dropout", ["x"], ["y"], { ratio: float(0.5) })],
    [6, node("Dropout", ["x"], ["y"], { is_test: 0 })],
    [1, node("Dropout", ["x"], ["y"], { consumed_inputs: [0] })],
  ])("of operator set %i passes its input on", async (opset, dropout) => {
    const { model: made, notes } = toEvaluation(over([dropout], opset));
    expect(notes).toEqual([expect.stringContaining("Dropout")]);
    const identities = await identify(made);
    expect(identities.get("y")).toBe(identities.get("x"));
  });

  it("keeps making a mask that is read, and drops nothing", async () => {
    const dropout = node("Dropout", ["x", "ratio", "yes"], ["y", "mask"]);
    const { model: made } = toEvaluation(over([dropout], 17, ["y", "mask"]));
    const x = Float32Array.from({ length: 60 }, (_, at) => at + 1);
    expect(await run(made, x)).toEqual({ y: [...x], mask: Array(60).fill(1) });
  });

  it("takes the mode's own input away", () => {
    const made = over([node("Dropout", ["x", "ratio", "training"], ["y"])], 17);
    made.graph.input.push(valueInfo("training", "bool", []), valueInfo("spare", "float32", []));
    expect(toEvaluation(made).model.graph.input.map(({ name }) => name)).toEqual(["x", "spare"]);
  });

  it("is found in the branches of an If and in functions", () => {
    const branch = (name: string) =>
      graph(name, {
        nodes: [node("Dropout", ["x", "ratio", "yes"], [name])],
        inputs: [],
        outputs: [valueInfo(name, "float32")],
        weights: [],
      });
    const made = over(
      [node("If", ["yes"], ["y"], { then_branch: branch("a"), else_branch: branch("b") })],
      17,
    );
    made.functions.push({
      $typeName: "onnx.FunctionProto",
      name: "f",
      domain: "own",
      overload: "",
      docString: "",
      input: ["p"],
      output: ["q"],
      attribute: [],
      attributeProto: [],
      metadataProps: [],
      valueInfo: [],
      opsetImport: [{ $typeName: "onnx.OperatorSetIdProto", domain: "", version: 17n }],
      node: [node("Dropout", ["p"], ["q"])],
    });
    const { model: evaluated, notes } = toEvaluation(made);
    expect(notes).toHaveLength(3);
    expect(evaluated.functions[0]?.node[0]?.opType).toBe("Identity");
  });
});

describe("BatchNormalization", () => {
  const plain = over([node("BatchNormalization", ["x", ...STATISTICS], ["y"])], 15);

  it.each([
    [
      "training_mode",
      15,
      node("BatchNormalization", ["x", ...STATISTICS], ["y", "m", "v"], { training_mode: 1 }),
    ],
    ["five outputs", 9, node("BatchNormalization", ["x", ...STATISTICS], ["y", "m", "v", "sm", "sv"])],
    [
      "five outputs and spatial",
      7,
      node("BatchNormalization", ["x", ...STATISTICS], ["y", "m", "v", "sm", "sv"], { spatial: 1 }),
    ],
  ])("in training mode by %s uses the statistics it was given", async (_, opset, norm) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.float({ min: -8, max: 8, noNaN: true }), { minLength: 6, maxLength: 6 }),
        async (values) => {
          const x = Float32Array.from(values);
          expect(await run(toEvaluation(over([norm], opset)).model, x)).toEqual(await run(plain, x));
        },
      ),
      { numRuns: 10 },
    );
  });

  it("in training mode by is_test gets is_test", () => {
    const norm = node("BatchNormalization", ["x", ...STATISTICS], ["y", "m", "v"]);
    const [made] = toEvaluation(over([norm], 6)).model.graph.node;
    expect(made?.attribute.find(({ name }) => name === "is_test")?.i).toBe(1n);
    expect(made?.output).toEqual(["y"]);
  });

  it("gives its running statistics unchanged where they are read", async () => {
    const norm = node("BatchNormalization", ["x", ...STATISTICS], ["y", "m", "v"], { training_mode: 1 });
    const { model: made } = toEvaluation(over([norm], 15, ["y", "m", "v"]));
    const out = await run(made, Float32Array.of(1, 2, 3, 4, 5, 6));
    expect(out.m).toEqual([0.5, 0, -0.5]);
    expect(out.v).toEqual([1, 4, 0.25]);
  });

  it("is refused when the batch's own statistics are read", () => {
    const norm = node("BatchNormalization", ["x", ...STATISTICS], ["y", "m", "v", "sm", "sv"]);
    expect(() => toEvaluation(over([norm], 9, ["y", "sv"]))).toThrow(/"sv", which is read/);
  });

  it("in evaluation mode is left as it is, and so is the model", () => {
    expect(toEvaluation(plain)).toEqual({ model: plain, notes: [] });
    expect(toEvaluation(plain).model).toBe(plain);
  });
});

describe("random operators", () => {
  it("are refused, all of them by name", () => {
    const made = over(
      [
        node("RandomNormalLike", ["x"], ["noise"]),
        node("Bernoulli", ["x"], ["coin"]),
        node("Add", ["noise", "coin"], ["y"]),
      ],
      17,
    );
    expect(() => toEvaluation(made)).toThrow(/RandomNormalLike "noise", Bernoulli "coin"/);
  });

  it("are refused in branches and in functions that are called", () => {
    const branch = (name: string, inner: Node) =>
      graph(name, { nodes: [inner], inputs: [], outputs: [valueInfo(name, "float32")], weights: [] });
    const then_branch = branch("a", node("RandomUniformLike", ["x"], ["a"]));
    const else_branch = branch("b", node("Identity", ["x"], ["b"]));
    const made = over([node("If", ["yes"], ["y"], { then_branch, else_branch })], 17);
    expect(() => toEvaluation(made)).toThrow(/RandomUniformLike "a"/);
  });

  it("that nothing needs do not matter", () => {
    const made = over([node("RandomNormalLike", ["x"], ["noise"]), node("Relu", ["x"], ["y"])], 17);
    expect(toEvaluation(copyOf(made, {})).notes).toEqual([]);
  });
});
