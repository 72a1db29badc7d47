/** Loops and branches of TF.js graph models: what can be decided at import is, against TF.js; the rest is refused by name. */
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { importTfjsGraph } from "../../src/formats/index.js";
import type { Model } from "../../src/onnx/model.js";
import type { Runtime } from "../../src/runtime/runtime.js";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.js";
import { type GraphSpec, graphFolder, list, type NodeSpec, node, noise, scalar } from "./tfjs-graph.js";
import { expectAgreement, openRuntime } from "./tfjs-oracle.js";

let runtime: Runtime;
beforeAll(async () => {
  await tf.setBackend("cpu");
  runtime = await openRuntime();
});
afterAll(() => runtime.close());

const agree = (spec: GraphSpec, open = 1) =>
  expectAgreement(runtime, graphFolder(spec), "model.json", { open, tolerance: 1e-6 });
const count = (model: Model, op: string) => model.graph.node.filter(({ opType }) => opType === op).length;
const truth = (value: boolean): Tensor => tensor("bool", [], Uint8Array.of(Number(value)));
const refusal = (spec: GraphSpec) =>
  importTfjsGraph(graphFolder(spec), "model.json").then(
    () => Promise.reject(new Error("It was imported.")),
    (error: unknown) => error,
  );

/** The nodes of a loop: names of variables with what they begin and go on with; nodes that make the condition and the next values. */
function loop(
  frame: string,
  variables: Readonly<Record<string, { initial: string; next: string }>>,
  condition: string,
  within: readonly NodeSpec[],
): NodeSpec[] {
  const parts = Object.entries(variables).flatMap(([name, { initial, next }]) => [
    node(`${name}/enter`, "Enter", [initial], { frame_name: frame, is_constant: false }),
    node(`${name}/merge`, "Merge", [`${name}/enter`, `${name}/again`]),
    node(`${name}/switch`, "Switch", [`${name}/merge`, `${frame}/go`]),
    node(`${name}/again`, "NextIteration", [next]),
    node(`${name}/exit`, "Exit", [`${name}/switch`]),
  ]);
  return [...parts, node(`${frame}/go`, "LoopCond", [condition]), ...within];
}

/** `x` times `w` plus 1, as many times as `limit` says. */
function repeated(limit: Tensor, constants: GraphSpec["constants"] = {}): GraphSpec {
  return {
    inputs: { x: { shape: [2, 3] } },
    constants: {
      zero: scalar(0),
      one: scalar(1),
      limit,
      w: noise([3, 3]),
      plus: scalar(1, "float32"),
      ...constants,
    },
    nodes: loop(
      "f",
      { i: { initial: "zero", next: "i/next" }, v: { initial: "x", next: "v/next" } },
      "less",
      [
        node("limit/enter", "Enter", ["limit"], { frame_name: "f", is_constant: true }),
        node("w/enter", "Enter", ["w"], { frame_name: "f", is_constant: true }),
        node("less", "Less", ["i/merge", "limit/enter"]),
        node("i/next", "AddV2", ["i/switch:1", "one"]),
        node("product", "MatMul", ["v/switch:1", "w/enter"], { transpose_a: false, transpose_b: false }),
        node("v/next", "AddV2", ["product", "plus"]),
      ],
    ),
    outputs: ["v/exit", "i/exit"],
  };
}

describe("loops whose turns are known", () => {
  it.each([0, 1, 4])("of %i turns are written out", async (turns) => {
    const { model } = await agree(repeated(scalar(turns)));
    expect(count(model, "MatMul") + count(model, "Gemm")).toBe(turns);
    expect(model.graph.initializer.filter(({ dims }) => dims.length === 2).length).toBe(Math.min(turns, 1));
  });

  const overBatch = (shape: number[]): GraphSpec => ({
    inputs: { x: { shape } },
    constants: {
      zero: scalar(0),
      one: scalar(1),
      two: list(2),
      first: list(0),
      next: list(1),
      scale: float32([2], [3, -1]),
      none: scalar(-1),
    },
    nodes: [
      node("sizes", "Shape", ["x"]),
      node("rows", "StridedSlice", ["sizes", "first", "next", "next"], { shrink_axis_mask: 1 }),
      node("list", "TensorListFromTensor", ["x", "two"], { element_dtype: "DT_FLOAT" }),
      node("made", "TensorListReserve", ["two", "rows"], { element_dtype: "DT_FLOAT" }),
      ...loop(
        "map",
        {
          i: { initial: "zero", next: "i/next" },
          from: { initial: "list", next: "from/switch:1" },
          to: { initial: "made", next: "to/next" },
        },
        "both",
        [
          node("rows/enter", "Enter", ["rows"], { frame_name: "map", is_constant: true }),
          node("less", "Less", ["i/merge", "rows/enter"]),
          node("either", "LogicalOr", ["less", "less"]),
          node("both", "LogicalAnd", ["less", "either"]),
          node("i/next", "AddV2", ["i/switch:1", "one"]),
          node("row", "TensorListGetItem", ["from/switch:1", "i/switch:1", "two"], {
            element_dtype: "DT_FLOAT",
          }),
          node("scaled", "Mul", ["row", "scale"]),
          node("to/next", "TensorListSetItem", ["to/switch:1", "i/switch:1", "scaled"], {
            element_dtype: "DT_FLOAT",
          }),
        ],
      ),
      node("y", "TensorListStack", ["to/exit", "two"], { element_dtype: "DT_FLOAT", num_elements: -1 }),
      node("length", "TensorListLength", ["to/exit"]),
    ],
    outputs: ["y", "length"],
  });

  it("over the rows of a list, whose number is a fixed size of the input", async () => {
    const { model } = await agree(overBatch([3, 2]));
    expect(count(model, "Mul")).toBe(3);
  });

  it("over a batch that is open are refused, and imported once it is stated", async () => {
    const open = overBatch([-1, 2]);
    expect(await refusal(open)).toMatchObject({
      code: "MODEL_UNSUPPORTED",
      message: expect.stringMatching(/known at run time only.*--input-shape/s),
    });
    await expectAgreement(runtime, graphFolder(open), "model.json", {
      inputShapes: [2, 2],
      tolerance: 1e-6,
    });
  });

  it("over an array, as older models have it", async () => {
    await agree({
      inputs: { x: { shape: [3, 2] } },
      constants: {
        zero: scalar(0),
        one: scalar(1),
        three: scalar(3),
        places: list(0, 1, 2),
        turned: list(2, 0),
      },
      nodes: [
        node("from", "TensorArrayV3", ["three"], { dtype: "DT_FLOAT" }),
        node("filled", "TensorArrayScatterV3", ["from", "places", "x", "from:1"]),
        node("to", "TensorArrayV3", ["three"], { dtype: "DT_FLOAT" }),
        ...loop(
          "map",
          { i: { initial: "zero", next: "i/next" }, flow: { initial: "to:1", next: "flow/next" } },
          "less",
          [
            node("from/enter", "Enter", ["from"], { frame_name: "map", is_constant: true }),
            node("filled/enter", "Enter", ["filled"], { frame_name: "map", is_constant: true }),
            node("to/enter", "Enter", ["to"], { frame_name: "map", is_constant: true }),
            node("less", "Less", ["i/merge", "three"]),
            node("i/next", "AddV2", ["i/switch:1", "one"]),
            node("row", "TensorArrayReadV3", ["from/enter", "i/switch:1", "filled/enter"], {
              dtype: "DT_FLOAT",
            }),
            node("root", "Square", ["row"]),
            node("flow/next", "TensorArrayWriteV3", ["to/enter", "i/switch:1", "root", "flow/switch:1"]),
          ],
        ),
        node("size", "TensorArraySizeV3", ["to", "flow/exit"]),
        node("y", "TensorArrayGatherV3", ["to", "turned", "flow/exit"], { dtype: "DT_FLOAT" }),
      ],
      outputs: ["y", "size"],
    });
  });

  it("within loops", async () => {
    const inner = loop(
      "inner",
      { j: { initial: "i/switch:1", next: "j/next" }, u: { initial: "v/switch:1", next: "u/next" } },
      "less/inner",
      [
        node("less/inner", "Less", ["j/merge", "three"]),
        node("j/next", "AddV2", ["j/switch:1", "one"]),
        node("u/next", "Mul", ["u/switch:1", "half"]),
      ],
    );
    const { model } = await agree({
      inputs: { x: { shape: [2, 3] } },
      constants: { zero: scalar(0), one: scalar(1), three: scalar(3), half: scalar(0.5, "float32") },
      nodes: loop(
        "outer",
        { i: { initial: "zero", next: "i/next" }, v: { initial: "x", next: "u/exit" } },
        "less/outer",
        [
          node("less/outer", "Less", ["i/merge", "three"]),
          node("i/next", "AddV2", ["i/switch:1", "one"]),
          ...inner,
        ],
      ),
      outputs: ["v/exit"],
    });
    expect(count(model, "Mul")).toBe(3 + 2 + 1);
  });
});

describe("branches", () => {
  const branched = (condition: GraphSpec["constants"] | "input"): GraphSpec => ({
    inputs: {
      x: { shape: [2, 3] },
      ...(condition === "input" && { which: { shape: [], dtype: "DT_BOOL" } }),
    },
    constants: { ...(condition !== "input" && condition), factor: noise([3]) },
    nodes: [
      node("s", "Switch", ["x", "which"]),
      node("no", "Neg", ["s"]),
      node("yes", "Mul", ["s:1", "factor"]),
      node("twice", "AddV2", ["yes", "yes"]),
      node("m", "Merge", ["no", "twice"]),
      node("y", "Identity", ["m"]),
    ],
    outputs: ["y"],
  });

  it.each([false, true])("that a constant of %s decides", async (value) => {
    const { model } = await agree(branched({ which: truth(value) }));
    expect(count(model, "Neg")).toBe(value ? 0 : 1);
    expect(count(model, "Mul")).toBe(value ? 1 : 0);
  });

  it("of constants are refused, because TF.js takes the first one and TensorFlow the right one", async () => {
    const spec: GraphSpec = {
      inputs: { x: { shape: [2] } },
      constants: { three: scalar(3, "float32"), four: scalar(4, "float32") },
      nodes: [node("m", "Merge", ["three", "four"]), node("y", "AddV2", ["x", "m"])],
      outputs: ["y"],
    };
    expect(await refusal(spec)).toMatchObject({ code: "MODEL_UNSUPPORTED", details: { nodes: ["m"] } });
  });

  it("that an input decides are refused", async () => {
    expect(await refusal(branched("input"))).toMatchObject({
      code: "MODEL_UNSUPPORTED",
      details: { reasons: ["Switch: a condition that depends on an input"], nodes: ["s"] },
    });
  });
});

describe("what is refused", () => {
  it("loops that depend on data, with all else that is in the way", async () => {
    const spec = repeated(scalar(2));
    const { limit: _, ...constants } = spec.constants ?? {};
    const depending: GraphSpec = {
      inputs: {
        ...spec.inputs,
        limit: { shape: [], dtype: "DT_INT32" },
        axis: { shape: [], dtype: "DT_INT32" },
      },
      constants,
      nodes: [...spec.nodes, node("sum", "Cumsum", ["x", "axis"])],
      outputs: [...spec.outputs, "sum"],
    };
    expect(await refusal(depending)).toMatchObject({
      code: "MODEL_UNSUPPORTED",
      details: {
        nodes: ["f", "sum"],
        reasons: [expect.stringContaining("its number of turns"), expect.anything()],
      },
    });
  });

  it("loops without end, and functions that are called", async () => {
    expect(await refusal(repeated(scalar(5000)))).toMatchObject({
      code: "MODEL_UNSUPPORTED",
      message: expect.stringContaining("more than 1024 turns"),
    });
    const called = { ...repeated(scalar(1)), outputs: ["w2"] };
    const nodes = [
      ...called.nodes,
      node("w2", "StatelessWhile", ["x"]),
      node("if", "StatelessIf", ["w2", "x"]),
    ];
    expect(await refusal({ ...called, nodes, outputs: ["if"] })).toMatchObject({
      details: { operators: ["StatelessIf", "StatelessWhile"] },
    });
  });

  it("any loop whose nodes read from elsewhere is imported or refused, never more", async () => {
    const specs = [repeated(scalar(2)), repeated(scalar(3), { one: scalar(-1) })];
    const names = specs[0]?.nodes.map(({ name }) => name) ?? [];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...specs),
        fc.array(fc.tuple(fc.nat(), fc.nat(), fc.constantFrom(...names, "x", "i/switch:1", "f/none")), {
          minLength: 1,
          maxLength: 3,
        }),
        async (spec, changes) => {
          const nodes = spec.nodes.map((each) => ({ ...each, inputs: [...each.inputs] }));
          for (const [at, input, name] of changes) {
            const { inputs } = nodes[at % nodes.length] ?? { inputs: [] };
            inputs[input % Math.max(1, inputs.length)] = name;
          }
          const outcome = await importTfjsGraph(graphFolder({ ...spec, nodes }), "model.json").catch(
            (error: unknown) => error,
          );
          if (outcome instanceof Error) expect(outcome).toBeInstanceOf(PolyheadError);
          if (outcome instanceof PolyheadError) expect(outcome.code).not.toBe("INTERNAL");
        },
      ),
      { numRuns: 300 },
    );
  });
});
