/** Identity: the same for every way to write the same computation, another for every other computation. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MemoryFolder } from "../../src/base/folder.js";
import { loadModel } from "../../src/files/disk.js";
import { GraphIndex } from "../../src/onnx/graph.js";
import { identify } from "../../src/onnx/identity.js";
import {
  attribute,
  float,
  type Graph,
  graph,
  type Model,
  model,
  node,
  valueInfo,
} from "../../src/onnx/model.js";
import { parseModel, readModel } from "../../src/onnx/read.js";
import { weight } from "../../src/onnx/weight.js";
import { modelBytes, serializeModel } from "../../src/onnx/write.js";
import { float32, int64, type Tensor, tensor } from "../../src/tensor/tensor.js";
import { fixturesDir } from "../fixtures.js";
import {
  attributeOf,
  downstream,
  INPUTS,
  madeBy,
  nameOf,
  type OpType,
  PLAIN,
  type Recipe,
  recipes,
  styles,
  written,
} from "./recipes.js";

/** Identities of a recipe's values by number. */
async function identities(recipe: Recipe, style = PLAIN): Promise<(string | undefined)[]> {
  const found = await identify(written(recipe, style));
  return Array.from({ length: madeBy(recipe, recipe.nodes.length) }, (_, value) =>
    found.get(nameOf(style, value)),
  );
}

async function outputIdentity(of: Model): Promise<string | undefined> {
  return (await identify(of)).get("y");
}

describe("the identity of a value", () => {
  it("does not depend on how the model is written", async () => {
    await fc.assert(
      fc.asyncProperty(recipes, styles, async (recipe, style) => {
        const plain = await identities(recipe);
        expect(plain.every((each) => each !== undefined && /^[0-9a-f]{64}$/.test(each))).toBe(true);
        expect(await identities(recipe, style)).toEqual(plain);
      }),
      { numRuns: 300 },
    );
  });

  it("survives writing and reading, with weights in the file and beside it", async () => {
    const values = Float32Array.from({ length: 8192 }, (_, at) => at / 7);
    const made = model(
      graph("g", {
        nodes: [node("Add", ["x", "w"], ["y"])],
        inputs: [valueInfo("x", "float32", ["n", 8192])],
        outputs: [valueInfo("y", "float32", ["n", 8192])],
        weights: [weight("w", float32([8192], values))],
      }),
    );
    const expected = await outputIdentity(made);
    expect(await outputIdentity(parseModel(modelBytes(made)))).toBe(expected);
    const { file, external } = serializeModel(made, "w.data");
    const folder = new MemoryFolder({ "w.data": new Uint8Array(Buffer.concat([...external])) });
    const apart = await readModel(new Uint8Array(Buffer.concat([...file])), folder);
    expect(await outputIdentity(apart)).toBe(expected);
  });

  it("changes with any bit of a weight, in what depends on it and in nothing else", async () => {
    await fc.assert(
      fc.asyncProperty(recipes, fc.nat(), fc.nat(15), fc.nat(7), async (recipe, pick, byte, bit) => {
        const at = pick % recipe.weights.length;
        const before = await identify(written(recipe));
        const changed = written(recipe);
        const stored = changed.graph.initializer[at];
        if (!stored) throw new Error("no weight");
        stored.rawData = stored.rawData.slice();
        stored.rawData[byte] = (stored.rawData[byte] ?? 0) ^ (1 << bit);
        expectChanged(recipe, before, await identify(changed), [INPUTS + at]);
      }),
    );
  });

  it("changes with operator, attribute and inputs of a node, in what depends on it and in nothing else", async () => {
    const changes = fc.constantFrom("operator", "attribute", "inputs");
    await fc.assert(
      fc.asyncProperty(recipes, fc.nat(), changes, async (recipe, pick, change) => {
        const at = pick % recipe.nodes.length;
        const before = recipe.nodes[at];
        if (!before) throw new Error("no node");
        const known = attributeOf(before.opType);
        const [first = 0, second = 0] = before.reads;
        const after =
          change === "operator"
            ? {
                ...before,
                opType: other(before.opType, before.reads.length),
                attribute: undefined,
              }
            : change === "attribute"
              ? { ...before, attribute: known?.values.find((value) => value !== before.attribute) }
              : { ...before, reads: before.reads.length === 2 ? [second, first] : [first === 0 ? 1 : 0] };
        fc.pre(change !== "attribute" || known !== undefined);
        fc.pre(change !== "inputs" || before.reads.length === 1 || first !== second);
        // Two values that are computed alike are one, and exchanging them changes nothing.
        const was = await identify(written(recipe));
        fc.pre(change !== "inputs" || identityOf(was, before.reads[0]) !== identityOf(was, after.reads[0]));
        const changed = {
          ...recipe,
          nodes: recipe.nodes.map((each, place) => (place === at ? after : each)),
        };
        expectChanged(recipe, was, await identify(written(changed)), [madeBy(recipe, at)]);
      }),
      { numRuns: 300 },
    );
  });
});

/** Another operator of as many inputs, without an attribute. */
function other(opType: OpType, reads: number): OpType {
  if (reads === 2) return opType === "Sub" ? "Mul" : "Sub";
  return opType === "Tanh" ? "Relu" : "Tanh";
}

function identityOf(found: ReadonlyMap<string, string>, value: number | undefined): string | undefined {
  return found.get(nameOf(PLAIN, value ?? -1));
}

function expectChanged(
  recipe: Recipe,
  before: ReadonlyMap<string, string>,
  after: ReadonlyMap<string, string>,
  changed: readonly number[],
): void {
  const expected = downstream(recipe, changed);
  const count = madeBy(recipe, recipe.nodes.length);
  const differing = Array.from({ length: count }, (_, value) => value).filter(
    (value) => identityOf(before, value) !== identityOf(after, value),
  );
  expect(new Set(differing)).toEqual(expected);
}

describe("dtypes and shapes", () => {
  const reading = (value: Tensor) =>
    model(
      graph("g", {
        nodes: [node("Identity", ["w"], ["y"])],
        inputs: [],
        outputs: [valueInfo("y", value.dtype, value.shape)],
        weights: [weight("w", value)],
      }),
    );

  it("of weights of equal bytes count", async () => {
    const found = await Promise.all(
      [
        tensor("float32", [2], new Float32Array(2)),
        tensor("int32", [2], new Int32Array(2)),
        tensor("uint32", [2], new Uint32Array(2)),
        tensor("int64", [1], new BigInt64Array(1)),
        tensor("float32", [1, 2], new Float32Array(2)),
        tensor("float32", [2, 1], new Float32Array(2)),
        tensor("uint8", [8], new Uint8Array(8)),
        tensor("bool", [8], new Uint8Array(8)),
        float32([2], [0, -0]),
        tensor("string", [2], ["ab", "c"]),
        tensor("string", [2], ["a", "bc"]),
      ].map((value) => outputIdentity(reading(value))),
    );
    expect(new Set(found).size).toBe(found.length);
  });

  it("of inputs count, but for the size and the name of the batch", async () => {
    const taking = (shape: (number | string)[], dtype: "float32" | "float16" = "float32") =>
      outputIdentity(
        model(
          graph("g", {
            nodes: [node("Relu", ["x"], ["y"])],
            inputs: [valueInfo("x", dtype, shape)],
            outputs: [valueInfo("y", dtype)],
            weights: [],
          }),
        ),
      );
    const one = await taking([1, 3]);
    expect(await taking(["N", 3])).toBe(one);
    expect(await taking([8, 3])).toBe(one);
    const others = await Promise.all([
      taking([1, 4]),
      taking([1, 3, 1]),
      taking([1, "C"]),
      taking([1, 3], "float16"),
    ]);
    expect(new Set([one, ...others]).size).toBe(5);
  });

  it("and the place of an input among the inputs counts", async () => {
    const reading = (name: string) =>
      outputIdentity(
        model(
          graph("g", {
            nodes: [node("Relu", [name], ["y"])],
            inputs: [valueInfo("a", "float32", [1, 2]), valueInfo("b", "float32", [1, 2])],
            outputs: [valueInfo("y", "float32", [1, 2])],
            weights: [],
          }),
        ),
      );
    expect(await reading("a")).not.toBe(await reading("b"));
  });
});

describe("attributes", () => {
  const custom = (...attributes: ReturnType<typeof attribute>[]) => {
    const made = node("Own", ["x"], ["y"]);
    Object.assign(made, { domain: "own", attribute: attributes });
    return outputIdentity(
      model(
        graph("g", {
          nodes: [made],
          inputs: [valueInfo("x", "float32", [1])],
          outputs: [valueInfo("y", "float32")],
          weights: [],
        }),
      ),
    );
  };

  it("of other kinds and other values are others", async () => {
    const found = await Promise.all([
      custom(),
      custom(attribute("a", 1)),
      custom(attribute("a", 31)),
      custom(attribute("a", float(1))),
      custom(attribute("a", float(-0))),
      custom(attribute("a", float(0))),
      custom(attribute("a", "1")),
      custom(attribute("a", [1])),
      custom(attribute("a", [1, 1])),
      custom(attribute("a", [])),
      custom(attribute("a", float([1]))),
      custom(attribute("a", ["1"])),
      custom(attribute("b", 1)),
      custom(attribute("a", int64([], [1]))),
      custom(attribute("__proto__", 1)),
      custom(attribute("constructor", 1)),
    ]);
    expect(new Set(found).size).toBe(found.length);
  });

  it("in another order are the same", async () => {
    const [a, b] = [attribute("a", 1), attribute("b", 2)];
    expect(await custom(a, b)).toBe(await custom(b, a));
  });
});

describe("convolutions", () => {
  const convolution = (attributes: Parameters<typeof node>[3], outputs: readonly string[] = ["y"]) =>
    outputIdentity(
      model(
        graph("g", {
          nodes: [node("Conv", ["x", "w"], outputs, attributes)],
          inputs: [valueInfo("x", "float32", ["N", 1, 4, 4])],
          outputs: [valueInfo("y", "float32")],
          weights: [weight("w", float32([1, 1, 2, 2], [1, 2, 3, 4]))],
        }),
      ),
    );

  it("are the same with defaults that depend on the rank spelled out", async () => {
    const plain = await convolution({});
    const spelled = {
      strides: [1, 1],
      dilations: [1, 1],
      pads: [0, 0, 0, 0],
      kernel_shape: [2, 2],
      group: 1,
    };
    expect(await convolution(spelled)).toBe(plain);
    expect(await convolution({ ...spelled, strides: [2, 1] })).not.toBe(plain);
    expect(await convolution({ ...spelled, pads: [0, 0, 0, 1] })).not.toBe(plain);
  });
});

describe("operators whose definition changed", () => {
  const softmax = (opset: number) => {
    const inputs = [valueInfo("x", "float32", ["N", 2, 2])];
    const outputs = [valueInfo("y", "float32")];
    return outputIdentity(
      model(
        graph("g", { nodes: [node("Softmax", ["x"], ["y"], { axis: 1 })], inputs, outputs, weights: [] }),
        opset,
      ),
    );
  };

  it("are others before and after, and the same between", async () => {
    expect(await softmax(11)).toBe(await softmax(12));
    expect(await softmax(12)).not.toBe(await softmax(13));
    expect(await softmax(13)).toBe(await softmax(17));
  });
});

describe("subgraphs", () => {
  /** `y` is `branch` of `x` where the condition holds, else `x`. */
  const conditional = (branch: Graph) =>
    model(
      graph("g", {
        nodes: [
          node("ReduceSum", ["x"], ["sum"], { keepdims: 0 }),
          node("Greater", ["sum", "zero"], ["condition"]),
          node("If", ["condition"], ["y"], {
            then_branch: branch,
            else_branch: body([node("Identity", ["x"], ["e"])], "e"),
          }),
        ],
        inputs: [valueInfo("x", "float32", [2])],
        outputs: [valueInfo("y", "float32", [2])],
        weights: [weight("zero", float32([], [0]))],
      }),
    );
  const body = (nodes: ReturnType<typeof node>[], output: string, constant?: number) =>
    graph("body", {
      nodes,
      inputs: [],
      outputs: [valueInfo(output, "float32", [2])],
      weights: constant === undefined ? [] : [weight("c", float32([], [constant]))],
    });

  it("are the same under other names, and others for another constant, operator or outer value", async () => {
    const plain = await outputIdentity(conditional(body([node("Mul", ["x", "c"], ["t"])], "t", 2)));
    const named = graph("other", {
      nodes: [node("Constant", [], ["k"], { value_float: float(2) }), node("Mul", ["x", "k"], ["result"])],
      inputs: [],
      outputs: [valueInfo("result", "float32", [2])],
      weights: [],
    });
    expect(await outputIdentity(conditional(named))).toBe(plain);
    const others = await Promise.all(
      [
        body([node("Mul", ["x", "c"], ["t"])], "t", 3),
        body([node("Add", ["x", "c"], ["t"])], "t", 2),
        body([node("Mul", ["c", "x"], ["t"])], "t", 2),
        body([node("Mul", ["sum", "c"], ["t"])], "t", 2),
      ].map((branch) => outputIdentity(conditional(branch))),
    );
    expect(new Set([plain, ...others]).size).toBe(5);
  });

  const loop = (step: ReturnType<typeof node>[], turns: number, formals = ["i", "c", "v"]) => {
    const [i = "", c = "", v = ""] = formals;
    const inner = graph("body", {
      nodes: [node("Identity", [c], ["again"]), ...step],
      inputs: [valueInfo(i, "int64", []), valueInfo(c, "bool", []), valueInfo(v, "float32", [2])],
      outputs: [valueInfo("again", "bool", []), valueInfo("next", "float32", [2])],
      weights: [],
    });
    return outputIdentity(
      model(
        graph("g", {
          nodes: [node("Loop", ["n", "", "x"], ["y"], { body: inner })],
          inputs: [valueInfo("x", "float32", [2])],
          outputs: [valueInfo("y", "float32", [2])],
          weights: [weight("n", int64([], [turns]))],
        }),
      ),
    );
  };

  it("with inputs of their own are the same under other names and tell them apart", async () => {
    const plain = await loop([node("Add", ["v", "x"], ["next"])], 3);
    expect(await loop([node("Add", ["state", "x"], ["next"])], 3, ["turn", "go", "state"])).toBe(plain);
    const others = await Promise.all([
      loop([node("Add", ["v", "x"], ["next"])], 4),
      loop([node("Add", ["x", "v"], ["next"])], 3),
      loop([node("Add", ["v", "v"], ["next"])], 3),
    ]);
    expect(new Set([plain, ...others]).size).toBe(4);
  });
});

const monolith = join(fixturesDir, "family/animals.onnx");
describe.skipIf(!existsSync(monolith))("a published model (fixtures)", () => {
  it("with one byte of any weight changed differs downstream of it and nowhere else", async () => {
    const original = await loadModel(monolith);
    const before = await identify(original);
    const index = new GraphIndex(original.graph);
    for (const place of [
      0,
      Math.floor(original.graph.initializer.length / 2),
      original.graph.initializer.length - 1,
    ]) {
      const changed = await loadModel(monolith);
      const stored = changed.graph.initializer[place];
      if (!stored) throw new Error("no weight");
      stored.rawData = stored.rawData.slice();
      const at = stored.rawData.length - 1;
      stored.rawData[at] = (stored.rawData[at] ?? 0) ^ 1;
      const after = await identify(changed);
      const differing = [...before.keys()].filter((name) => before.get(name) !== after.get(name));
      const expected = new Set([stored.name]);
      for (const each of index.order) {
        if (each.input.some((name) => expected.has(name))) for (const name of each.output) expected.add(name);
      }
      expect(new Set(differing)).toEqual(expected);
      expect(index.outputNames.some((name) => expected.has(name))).toBe(true);
    }
  });
});
