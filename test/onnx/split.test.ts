/** Splitting and joining: the parts are the whole, cut where one says, and nothing passes by. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { loadModel } from "../../src/files/disk.js";
import { identify } from "../../src/onnx/identity.js";
import { joinModels } from "../../src/onnx/join.js";
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import { copyOf, graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { sampleInputs } from "../../src/onnx/samples.js";
import { splitModel } from "../../src/onnx/split.js";
import { compare, headInputs, proveSplit } from "../../src/onnx/verify.js";
import { weight } from "../../src/onnx/weight.js";
import { readNpz } from "../../src/tensor/npz.js";
import { float32, tensor } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { ARCHITECTURES, architecture } from "./architectures.js";
import { useRuntime } from "./runtime.js";

const open = useRuntime();

async function outputIdentities(of: Model): Promise<(string | undefined)[]> {
  const identities = await identify(of);
  return of.graph.output.map(({ name }) => identities.get(name));
}

/** Adds `x` to itself under many names: x -> a -> b -> c -> logits, with what the case adds. */
function chain(extra: ReturnType<typeof node>[], outputs: string[]): Model {
  const steps = [
    node("Relu", ["x"], ["a"]),
    node("Add", ["a", "one"], ["b"]),
    node("Mul", ["b", "two"], ["c"]),
    node("Neg", ["c"], ["logits"]),
  ];
  return model(
    graph("chain", {
      nodes: [...steps, ...extra],
      inputs: [valueInfo("x", "float32", ["N", 4])],
      outputs: outputs.map((name) => valueInfo(name, "float32", ["N", 4])),
      values: ["a", "b", "c"].map((name) => valueInfo(name, "float32", ["N", 4])),
      weights: [weight("one", float32([4], [1, 2, 3, 4])), weight("two", float32([], [2]))],
    }),
  );
}

describe.skipIf(!hasFixtures)("published models (fixtures)", () => {
  it.each(["mobilenet_v2", "resnet_basic", "vit"])(
    "%s splits at its classifier without any difference, and agrees with PyTorch",
    async (name) => {
      const whole = await loadModel(join(fixturesDir, "zoo", `${name}.onnx`));
      const golden = readNpz(readFileSync(join(fixturesDir, "zoo", `${name}.npz`)));
      const split = await splitModel(whole);
      expect(await proveSplit(whole, split, open)).toMatchObject({ inputs: 6, bitwise: true, maxAbsDiff: 0 });

      expect(split.heads.map((head) => head.name)).toEqual(["head"]);
      const [head] = split.heads.map((each) => each.model);
      if (!head) throw new Error("no head");
      const input = golden.get("input");
      const opened = await Promise.all([open(split.backbone, "all"), open(head, "all")]);
      const features = await opened[0].run(new Map(input && [["input", input]]));
      const answer = await opened[1].run(headInputs(head, features));
      for (const each of opened) await each.close();
      for (const [key, got] of [
        ["head_input", features.get(split.taps[0]?.name ?? "")],
        ["logits", answer.get("logits")],
      ] as const) {
        const expected = golden.get(key);
        expect(expected && compare(expected, got).relative, key).toBeLessThan(1e-4);
      }
    },
  );

  it.each(["mobilenet_v2", "resnet_basic", "vit"])("%s with its batch norms splits as well", async (name) => {
    const whole = await loadModel(join(fixturesDir, "train", `${name}.onnx`));
    const split = await splitModel(whole);
    expect(await proveSplit(whole, split, open)).toMatchObject({ bitwise: true });
    const joined = await joinModels(split.backbone, ...split.heads.map((head) => head.model));
    expect(await outputIdentities(joined)).toEqual(await outputIdentities(whole));
  });

  it("joined again is the same computation", async () => {
    const whole = await loadModel(join(fixturesDir, "zoo", "vit.onnx"));
    const at = ["/Gather_4_output_0"];
    const { backbone, heads } = await splitModel(whole, { at });
    const joined = await joinModels(backbone, ...heads.map((head) => head.model));
    expect(await outputIdentities(joined)).toEqual(await outputIdentities(whole));
  });

  it("a head does not fit a stranger's features", async () => {
    const parts = await Promise.all(
      ["animals", "stranger"].map(async (name) => {
        const whole = await loadModel(join(fixturesDir, "family", `${name}.onnx`));
        const at = ["/Flatten_output_0"];
        return splitModel(whole, { at });
      }),
    );
    const [animals, stranger] = parts;
    const head = animals?.heads[0]?.model;
    if (!stranger || !head) throw new Error("no parts");
    await expect(joinModels(stranger.backbone, head)).rejects.toMatchObject({
      code: "HEAD_MISMATCH",
      details: {
        expected: { identity: animals.taps[0]?.identity },
        got: { identity: stranger.taps[0]?.identity },
      },
    });
  });
});

describe("splitting", () => {
  it.each(ARCHITECTURES)("%s gives parts that are proved and join to the whole", async (name) => {
    const whole = architecture(name, "N");
    const split = await splitModel(whole, { at: ["features"] });
    expect((await proveSplit(whole, split, open)).bitwise).toBe(true);
    const joined = await joinModels(split.backbone, ...split.heads.map((head) => head.model));
    expect(await outputIdentities(joined)).toEqual(await outputIdentities(whole));
  });

  it("cuts anywhere along a chain", async () => {
    const whole = chain([], ["logits"]);
    for (const at of ["x", "a", "b", "c", "logits"]) {
      const split = await splitModel(whole, { at: [at] });
      expect(split.taps.map((tap) => tap.name)).toEqual([at]);
      expect(split.taps[0]?.identity).toBe((await identify(whole)).get(at));
      expect((await proveSplit(whole, split, open)).bitwise, at).toBe(true);
      const joined = await joinModels(split.backbone, ...split.heads.map((head) => head.model));
      expect(await outputIdentities(joined)).toEqual(await outputIdentities(whole));
    }
  });

  it("names the path that goes around the cut", async () => {
    const whole = chain([node("Add", ["logits", "a"], ["sum"])], ["sum"]);
    await expect(splitModel(whole, { at: ["b"] })).rejects.toMatchObject({
      code: "CUT_INVALID",
      message: expect.stringContaining("x -> a -> sum"),
      details: { cut: ["b"], path: ["x", "a", "sum"] },
    });
    const split = await splitModel(whole, { at: ["b", "a"] });
    expect(
      readMetadata(split.heads[0]?.model ?? whole)
        .taps?.map((tap) => tap.name)
        .sort(),
    ).toEqual(["a", "b"]);
  });

  it.each([
    [["nowhere"], "NOT_FOUND"],
    [["one"], "CUT_INVALID"],
    [[], "CUT_INVALID"],
  ])("refuses the cut %j", async (at, code) => {
    await expect(splitModel(chain([], ["logits"]), { at })).rejects.toMatchObject({ code });
  });

  it("makes a head for each group of outputs that shares computation after the cut", async () => {
    const extra = [
      node("Exp", ["b"], ["e"]),
      node("Neg", ["e"], ["box/left"]),
      node("Abs", ["e"], ["box right"]),
      node("Sqrt", ["one"], ["constant"]),
    ];
    const whole = chain(extra, ["logits", "box/left", "box right", "a", "constant"]);
    const split = await splitModel(whole, { at: ["b"] });
    expect(split.heads.map((head) => [head.name, head.model.graph.output.map(({ name }) => name)])).toEqual([
      ["logits", ["logits", "constant"]],
      ["box_left", ["box/left", "box right"]],
      ["a", ["a"]],
    ]);
    expect(split.taps.map((tap) => tap.name)).toEqual(["b", "a"]);
    expect((await proveSplit(whole, split, open)).bitwise).toBe(true);
  });

  it("gives each head the taps that it reads and no others, in the order of its inputs", async () => {
    const whole = chain([node("Add", ["a", "b"], ["sum"])], ["logits", "sum"]);
    const split = await splitModel(whole, { at: ["c", "b", "a"] });
    for (const head of split.heads) {
      const { taps, role } = readMetadata(head.model);
      expect(role).toBe("head");
      expect(taps?.map((tap) => tap.name)).toEqual(head.model.graph.input.map(({ name }) => name));
    }
    expect(split.heads.map((head) => head.model.graph.input.map(({ name }) => name))).toEqual([
      ["c"],
      ["b", "a"],
    ]);
  });

  it("follows what branches read from around them", async () => {
    const branch = (name: string, inner: ReturnType<typeof node>) =>
      graph(name, { nodes: [inner], inputs: [], outputs: [valueInfo(name, "float32")], weights: [] });
    const choice = node("If", ["positive"], ["chosen"], {
      then_branch: branch("then", node("Add", ["c", "two"], ["then"])),
      else_branch: branch("else", node("Neg", ["b"], ["else"])),
    });
    const sums = [
      node("ReduceSum", ["c"], ["total"], { keepdims: 0 }),
      node("Greater", ["total", "two"], ["positive"]),
    ];
    const whole = chain([...sums, choice], ["chosen"]);
    await expect(splitModel(whole, { at: ["c"] })).rejects.toThrow(/x -> a -> b -> chosen/);
    const split = await splitModel(whole, { at: ["c", "b"] });
    expect((await proveSplit(whole, split, open)).bitwise).toBe(true);
    const joined = await joinModels(split.backbone, ...split.heads.map((head) => head.model));
    expect(await outputIdentities(joined)).toEqual(await outputIdentities(whole));
    const ran = await open(joined, "off");
    await ran.close();
  });

  it("sends metadata where it belongs", async () => {
    const about = {
      task: "classification",
      labels: ["cat", "dog"],
      preprocessing: { size: 4 },
      decoding: { kind: "softmax" },
    };
    const split = await splitModel(withMetadata(chain([], ["logits"]), about), { at: ["b"] });
    const backbone = readMetadata(split.backbone);
    expect(backbone).toMatchObject({ role: "backbone", taps: split.taps, preprocessing: { size: 4 } });
    expect(Object.keys(backbone).sort()).toEqual(["preprocessing", "role", "taps"]);
    const heads = split.heads.map((head) => head.model);
    expect(readMetadata(heads[0] ?? split.backbone)).toEqual({ role: "head", taps: split.taps, ...about });
    expect(readMetadata(await joinModels(split.backbone, ...heads))).toEqual(about);
  });

  it("does not change the model", async () => {
    const whole = architecture("transformer block", "N");
    const before = structuredClone(whole.graph.node.map(({ input, output }) => [input, output]));
    await splitModel(whole, { at: ["features"] });
    expect(whole.graph.node.map(({ input, output }) => [input, output])).toEqual(before);
  });
});

describe("the proof", () => {
  it("fails for a head with one other weight", async () => {
    const whole = chain([], ["logits"]);
    const split = await splitModel(whole, { at: ["a"] });
    const heads = split.heads.map((head) => ({
      ...head,
      model: copyOf(head.model, {
        graph: copyOf(head.model.graph, {
          initializer: [weight("one", float32([4], [1, 2, 3, 4.000001])), weight("two", float32([], [2]))],
        }),
      }),
    }));
    await expect(proveSplit(whole, { ...split, heads }, open)).rejects.toMatchObject({
      code: "PROOF_FAILED",
      details: { output: "logits", optimisation: "off" },
    });
  });

  it("counts NaN as equal to NaN and as different from all else", () => {
    const [nan, one] = [float32([1], [Number.NaN]), float32([1], [1])];
    expect(compare(nan, nan).equal).toBe(true);
    expect(compare(nan, one).relative).toBe(Number.POSITIVE_INFINITY);
    expect(compare(one, nan).relative).toBe(Number.POSITIVE_INFINITY);
    expect(compare(one, undefined).equal).toBe(false);
    expect(compare(float32([1], [0]), float32([1], [-0]))).toEqual({
      equal: false,
      absolute: 0,
      relative: 0,
    });
  });

  it("reads halves as the numbers that they are", () => {
    const halves = (...bits: number[]) => tensor("float16", [bits.length], Uint16Array.from(bits));
    const zero = halves(0, 0, 0);
    expect(compare(zero, halves(0x3c00, 0xc000, 0x0001)).absolute).toBe(2);
    expect(compare(zero, halves(0, 0x7bff, 0)).absolute).toBe(65504);
    expect(compare(zero, halves(0, 0, 0x8001)).absolute).toBe(2 ** -24);
    expect(compare(zero, halves(0, 0xfc00, 0)).absolute).toBe(Number.POSITIVE_INFINITY);
    const brain = (bits: number) => tensor("bfloat16", [1], Uint16Array.of(bits));
    expect(compare(brain(0x3f80), brain(0xc000)).absolute).toBe(3);
  });

  it("tries values that fit the dtype, the same for one seed", () => {
    const inputs = [
      valueInfo("image", "uint8", ["N", 32, 32, 3]),
      valueInfo("ids", "int64", ["N", "length"]),
      valueInfo("half", "float16", [40]),
    ];
    const sizes = new Map([["length", 7]]);
    const sample = sampleInputs(inputs, { batch: 2, sizes }, 5);
    expect([...sample.values()].map(({ shape }) => shape)).toEqual([[2, 32, 32, 3], [2, 7], [40]]);
    expect(sampleInputs(inputs, { batch: 2, sizes }, 5)).toEqual(sample);
    expect(sampleInputs(inputs, { batch: 2, sizes }, 6)).not.toEqual(sample);
    const numbers = (name: string) => Array.from(sample.get(name)?.data ?? [], Number);
    expect(Math.max(...numbers("image"))).toBeGreaterThan(200);
    expect(numbers("ids").every((each) => each >= 0 && each < 8)).toBe(true);
    const zeros = tensor("float16", [40], new Uint16Array(40));
    expect(compare(zeros, sample.get("half")).absolute).toBeLessThan(1);
  });

  it("measures differences as they are", () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 1 }),
        fc.nat(),
        fc.float({ min: 1, max: 100, noNaN: true }),
        (values, place, by) => {
          const at = place % values.length;
          const expected = float32([values.length], values);
          const changed = Float32Array.from(values);
          changed[at] = (changed[at] ?? 0) + by;
          const apart = Math.abs((changed[at] ?? 0) - Math.fround(values[at] ?? 0));
          expect(compare(expected, float32([values.length], changed)).absolute).toBe(apart);
        },
      ),
    );
  });
});

describe("joining", () => {
  const parts = async (whole: Model, at: string) => {
    const { backbone, heads } = await splitModel(whole, { at: [at] });
    const head = heads[0]?.model;
    if (!head) throw new Error("no head");
    return { backbone, head };
  };

  it("keeps apart what has one name in two files", async () => {
    const { backbone, head } = await parts(chain([], ["logits"]), "b");
    const clash = copyOf(head, {
      graph: graph("clash", {
        nodes: [node("Neg", ["b"], ["a"]), node("Add", ["a", "one"], ["logits"])],
        inputs: head.graph.input,
        outputs: head.graph.output,
        weights: [weight("one", float32([], [10]))],
      }),
    });
    const joined = await joinModels(backbone, clash);
    const opened = await open(joined, "off");
    const out = await opened.run(new Map([["x", float32([1, 4], [1, 1, 1, -1])]]));
    await opened.close();
    expect([...(out.get("logits")?.data ?? [])]).toEqual([8, 7, 6, 6]);
  });

  it("puts an adapter between a head and features it was not made for", async () => {
    const { backbone } = await parts(chain([], ["logits"]), "a");
    const { head, backbone: other } = await parts(chain([], ["logits"]), "c");
    await expect(joinModels(backbone, head)).rejects.toMatchObject({ code: "HEAD_MISMATCH" });
    const adapter = withMetadata(
      model(
        graph("adapter", {
          nodes: [node("Abs", ["in"], ["out"])],
          inputs: [valueInfo("in", "float32", ["N", 4])],
          outputs: [valueInfo("out", "float32", ["N", 4])],
          weights: [],
        }),
      ),
      {
        role: "adapter",
        taps: readMetadata(backbone).taps,
        produces: readMetadata(other).taps,
      },
    );
    const joined = await joinModels(backbone, adapter, head);
    expect(joined.graph.node.map(({ opType }) => opType)).toEqual(["Relu", "Abs", "Neg"]);
    expect(joined.graph.output.map(({ name }) => name)).toEqual(["logits"]);
  });

  it("accepts other versions of the operator set only where they mean the same", async () => {
    const { backbone, head } = await parts(chain([], ["logits"]), "b");
    const at = (version: number, nodes = head.graph.node) =>
      copyOf(head, {
        opsetImport: [{ $typeName: "onnx.OperatorSetIdProto", domain: "ai.onnx", version: BigInt(version) }],
        graph: copyOf(head.graph, { node: nodes }),
      });
    expect((await joinModels(backbone, at(18))).opsetImport).toMatchObject([{ domain: "", version: 18n }]);
    expect((await joinModels(backbone, at(12))).opsetImport).toMatchObject([{ domain: "", version: 17n }]);
    const softmax = [node("Softmax", [head.graph.input[0]?.name ?? ""], ["logits"])];
    await expect(joinModels(backbone, at(12, softmax))).rejects.toMatchObject({ code: "MODEL_UNSUPPORTED" });
  });

  it("refuses two heads with one output name, and a head that does not say what it reads", async () => {
    const { backbone, head } = await parts(chain([], ["logits"]), "b");
    await expect(joinModels(backbone, head, head)).rejects.toMatchObject({ code: "ALREADY_EXISTS" });
    await expect(joinModels(backbone, withMetadata(head, { taps: undefined }))).rejects.toThrow(
      /names 0 taps/,
    );
  });
});
