/** Where models are cut when nobody says where, and what is offered besides. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { loadModel } from "../../src/files/disk.js";
import { importTfjsGraph } from "../../src/formats/index.js";
import { candidateCuts, defaultCut } from "../../src/onnx/cuts.js";
import { extract } from "../../src/onnx/extract.js";
import { GraphIndex } from "../../src/onnx/graph.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { parseModel } from "../../src/onnx/read.js";
import { inferTypes } from "../../src/onnx/shapes.js";
import { weight } from "../../src/onnx/weight.js";
import { modelBytes } from "../../src/onnx/write.js";
import { readNpz } from "../../src/tensor/npz.js";
import type { SymbolicShape } from "../../src/tensor/shape.js";
import { float32, int64, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { humanFolder } from "../formats/tfjs-oracle.js";
import { ARCHITECTURES, architecture, Builder } from "./architectures.js";
import { observe, sampleInputs } from "./observe.js";
import { useRuntime } from "./runtime.js";

const open = useRuntime();

/** The two sides of a cut, each made by `extract`, which refuses what does not separate. */
function sides(whole: Model, values: readonly string[]): [backbone: Model, head: Model] {
  const types = inferTypes(whole);
  const index = new GraphIndex(whole.graph);
  const inputs = index.inputs.map(({ name }) => name);
  return [
    extract(whole, index, inputs, values, types),
    extract(whole, index, values, index.outputNames, types),
  ];
}

async function run(part: Model, inputs: ReadonlyMap<string, Tensor>) {
  const opened = await open(part, "off");
  const outputs = await opened.run(inputs);
  await opened.close();
  return outputs;
}

function furthest(a: Tensor | undefined, b: Tensor | undefined): number {
  if (!a || !b) return Number.NaN;
  expect([...a.shape]).toEqual([...b.shape]);
  const other = toNumbers(b);
  return toNumbers(a).reduce((most, value, at) => Math.max(most, Math.abs(value - (other[at] ?? 0))), 0);
}

describe.skipIf(!hasFixtures)("published classifiers (fixtures)", () => {
  it.each(["mobilenet_v2", "resnet_basic", "vit"])("%s is cut before its classifier", async (name) => {
    const whole = await loadModel(join(fixturesDir, "zoo", `${name}.onnx`));
    const golden = readNpz(readFileSync(join(fixturesDir, "zoo", `${name}.npz`)));
    const cut = defaultCut(whole, inferTypes(whole));
    expect(cut).toHaveLength(1);
    const values = await observe(open, whole, new Map([["input", golden.get("input") ?? float32([], [])]]));
    expect(furthest(golden.get("head_input"), values.get(cut[0] ?? ""))).toBeLessThan(1e-4);
  });

  it.each(["animals", "flowers", "weather", "defects", "stranger"])(
    "%s gives PyTorch's logits from both sides of the cut, one after the other",
    async (name) => {
      const whole = await loadModel(join(fixturesDir, "family", `${name}.onnx`));
      const golden = readNpz(readFileSync(join(fixturesDir, "family", "goldens.npz")));
      const cut = defaultCut(whole, inferTypes(whole));
      expect(cut).toEqual(["/Flatten_output_0"]);
      const [backbone, head] = sides(whole, cut);
      const features = await run(backbone, new Map([["input", golden.get("input") ?? float32([], [])]]));
      const logits = [...golden].find(([key]) => key.startsWith(name))?.[1];
      expect(furthest(logits, (await run(head, features)).get("logits"))).toBeLessThan(1e-4);
    },
  );
});

/** Shapes of what crosses the default cut; made by looking at the published graphs. */
const HUMAN: [name: string, taps: Record<string, SymbolicShape>][] = [
  [
    "centernet",
    {
      "tower_0/MobilenetV3/expanded_conv_3/expand/Relu": [1, 72, 128, 128],
      "tower_0/MobilenetV3/expanded_conv_5/expand/Relu": [1, 96, 64, 64],
      "tower_0/MobilenetV3/expanded_conv_11/add": [1, 88, 32, 32],
      "tower_0/extern1/hard_swish/mul_1": [1, 480, 16, 16],
    },
  ],
  ["faceres", { "global_pooling/Mean": ["batch", 1024] }],
  ["handlandmark-lite", { "model_1/model/global_average_pooling2d/Mean": [1, 672] }],
  ["antispoof", { "StatefulPartitionedCall/sequential/activation_3/Relu": ["batch", 128] }],
  ["emotion", { "StatefulPartitionedCall/model_1/add_2/add": ["batch", 256, 8, 8] }],
  ["iris", { "StatefulPartitionedCall/model/p_re_lu_20/Relu": ["batch", 128, 8, 8] }],
  [
    "blazeface",
    {
      "StatefulPartitionedCall/functional_1/re_lu_30/Relu": [1, 96, 16, 16],
      "StatefulPartitionedCall/functional_1/re_lu_31/Relu": [1, 96, 8, 8],
    },
  ],
];

describe("published networks of many kinds", () => {
  const models = new Map<string, Model>();
  beforeAll(async () => {
    for (const [name] of [...HUMAN, ["movenet-lightning"] as const, ["facemesh"] as const]) {
      models.set(name, (await importTfjsGraph(humanFolder(name), `${name}.json`)).model);
    }
  });
  const get = (name: string) => {
    const found = models.get(name);
    if (!found) throw new Error(`no ${name}`);
    return found;
  };

  it.each(HUMAN)("%s is cut where its heads begin", (name, taps) => {
    const types = inferTypes(get(name));
    const cut = defaultCut(get(name), types);
    expect(Object.fromEntries(cut.map((value) => [value, types.get(value)?.shape]))).toEqual(taps);
  });

  it("movenet is cut before its feature pyramid, at four strides", () => {
    const types = inferTypes(get("movenet-lightning"));
    const shapes = defaultCut(get("movenet-lightning"), types).map((name) => types.get(name)?.shape);
    expect(shapes).toEqual([
      [1, 24, 48, 48],
      [1, 32, 24, 24],
      [1, 64, 12, 12],
      [1, 1280, 6, 6],
    ]);
  });

  it.each([...HUMAN.map(([name]) => name), "movenet-lightning", "facemesh"])(
    "%s: every candidate separates inputs from outputs",
    (name) => {
      const whole = get(name);
      const cuts = candidateCuts(whole, inferTypes(whole), 100);
      expect(cuts.length).toBeGreaterThan(2);
      expect(cuts.map(({ isDefault }) => isDefault)).toEqual(cuts.map((_, place) => place === 0));
      for (const { values, backbone, head } of cuts) {
        sides(
          whole,
          values.map((value) => value.name),
        );
        expect(Math.min(backbone.flops, head.flops)).toBeGreaterThan(0);
      }
    },
  );

  it("centernet computes the same in two parts", async () => {
    const whole = get("centernet");
    const [backbone, head] = sides(whole, defaultCut(whole, inferTypes(whole)));
    const inputs = sampleInputs(whole, 1);
    const once = await run(whole, inputs);
    const twice = await run(head, await run(backbone, inputs));
    for (const [name, value] of once) expect(furthest(value, twice.get(name)), name).toBe(0);
  });
});

describe("small classifiers", () => {
  it.each(ARCHITECTURES)("%s is cut before its classifier", (name) => {
    const whole = architecture(name, "N");
    expect(defaultCut(whole, inferTypes(whole))).toEqual(["features"]);
  });
});

/** A network from `x` [N, 4, 32, 32]. */
function network(outputs: readonly string[], make: (to: Builder) => void): Model {
  const to = new Builder();
  make(to);
  return model(
    graph("network", {
      nodes: to.nodes,
      inputs: [valueInfo("x", "float32", ["N", 4, 32, 32])],
      outputs: outputs.map((name) => valueInfo(name, "float32")),
      weights: to.weights,
    }),
  );
}

/** A convolution of stride 2 with its activation. */
const stage = (to: Builder, x: string, name: string) =>
  to.op(
    "Relu",
    [to.op("Conv", [x, to.random(4, 4, 3, 3)], { pads: [1, 1, 1, 1], strides: [2, 2] })],
    {},
    name,
  );
const conv = (to: Builder, x: string, name?: string, channels = 4) =>
  to.op("Conv", [x, to.random(channels, 4, 1, 1)], {}, name);
const double = (to: Builder, x: string) => {
  const scales = to.random(4);
  to.weights[to.weights.length - 1] = weight(scales, float32([4], [1, 1, 2, 2]));
  return to.op("Resize", [x, "", scales], { mode: "nearest" });
};
/** A map as a list of answers per place. */
const answers = (to: Builder, x: string, name?: string) =>
  to.op("Reshape", [to.op("Transpose", [x], { perm: [0, 2, 3, 1] }), to.ints(0, -1, 4)], {}, name);

function trunk(to: Builder): void {
  stage(to, stage(to, "x", "c2"), "c3");
  stage(to, "c3", "c4");
  stage(to, "c4", "c5");
}

const networks: [title: string, cut: string[], made: Model][] = [
  [
    "a feature pyramid with heads on every level",
    ["c3", "c4", "c5"],
    network(["boxes", "scores"], (to) => {
      trunk(to);
      const p5 = conv(to, "c5");
      const p4 = to.op("Add", [conv(to, "c4"), double(to, p5)]);
      const p3 = to.op("Add", [conv(to, "c3"), double(to, p4)]);
      for (const output of ["boxes", "scores"]) {
        const levels = [p3, p4, p5].map((level) => answers(to, conv(to, level)));
        to.op("Concat", levels, { axis: 1 }, output);
      }
    }),
  ],
  [
    "a detector that joins enlarged and earlier maps, with one output",
    ["c3", "c4", "c5"],
    network(["detections"], (to) => {
      trunk(to);
      const mix = (parts: string[]) => {
        const both = to.op("Concat", parts, { axis: 1 });
        return to.op("Relu", [to.op("Conv", [both, to.random(4, 8, 1, 1)])]);
      };
      const n4 = mix([double(to, "c5"), "c4"]);
      const n3 = mix([double(to, n4), "c3"]);
      const m4 = mix([stage(to, n3, "down"), n4]);
      to.op(
        "Concat",
        [n3, m4, "c5"].map((level) => answers(to, conv(to, level))),
        { axis: 1 },
        "detections",
      );
    }),
  ],
  [
    "a detector with branches on maps of several sizes",
    ["c3", "c4", "c5"],
    network(["boxes", "scores"], (to) => {
      trunk(to);
      for (const output of ["boxes", "scores"]) {
        const levels = ["c3", "c4", "c5"].map((level) => answers(to, conv(to, level)));
        to.op("Concat", levels, { axis: 1 }, output);
      }
    }),
  ],
  [
    "an encoder and decoder that pass maps across",
    ["c2", "c3", "c4"],
    network(["mask"], (to) => {
      stage(to, stage(to, "x", "c2"), "c3");
      stage(to, "c3", "c4");
      const up = (x: string, across: string) => {
        const bigger = to.op("ConvTranspose", [x, to.random(4, 4, 2, 2)], { strides: [2, 2] });
        return to.op("Relu", [
          to.op("Conv", [to.op("Concat", [bigger, across], { axis: 1 }), to.random(4, 8, 1, 1)]),
        ]);
      };
      conv(to, up(up("c4", "c3"), "c2"), "mask");
    }),
  ],
  [
    "a convolution that is averaged to logits",
    ["c5"],
    network(["logits"], (to) => {
      trunk(to);
      const map = to.op("Relu", [conv(to, "c5", undefined, 7)]);
      to.op("Flatten", [to.op("GlobalAveragePool", [map])], {}, "logits");
    }),
  ],
  [
    "logits and the probabilities made of them",
    ["pooled"],
    network(["logits", "probabilities"], (to) => {
      trunk(to);
      to.op("Flatten", [to.op("GlobalAveragePool", ["c5"])], {}, "pooled");
      to.op("Add", [to.op("MatMul", ["pooled", to.random(4, 7)]), to.random(7)], {}, "logits");
      to.op("Softmax", ["logits"], { axis: 1 }, "probabilities");
    }),
  ],
  [
    "an embedding and the logits made of it",
    ["pooled"],
    network(["pooled", "logits"], (to) => {
      trunk(to);
      to.op("Flatten", [to.op("GlobalAveragePool", ["c5"])], {}, "pooled");
      to.op("Gemm", ["pooled", to.random(4, 7)], {}, "logits");
    }),
  ],
  [
    "two tasks on one embedding",
    ["pooled"],
    network(["age", "kind"], (to) => {
      trunk(to);
      to.op("Flatten", [to.op("GlobalAveragePool", ["c5"])], {}, "pooled");
      to.op("Gemm", ["pooled", to.random(4, 1)], {}, "age");
      to.op(
        "Gemm",
        [to.op("Relu", [to.op("Gemm", ["pooled", to.random(4, 4)])]), to.random(4, 3)],
        {},
        "kind",
      );
    }),
  ],
];

describe("networks drawn by hand", () => {
  it.each(networks)("%s", async (_, expected, made) => {
    const types = inferTypes(made);
    const cut = defaultCut(made, types);
    expect([...cut].sort()).toEqual(expected);
    const inputs = sampleInputs(made, 2);
    const once = await run(made, inputs);
    for (const { values } of candidateCuts(made, types, 100)) {
      const [backbone, head] = sides(
        made,
        values.map(({ name }) => name),
      );
      const twice = await run(head, await run(backbone, inputs));
      for (const [name, value] of once) expect(furthest(value, twice.get(name))).toBe(0);
    }
  });

  it("a map enlarged to the size of the input: the size crosses, and cuts without it would be first", () => {
    const made = network(["mask"], (to) => {
      trunk(to);
      to.op("Shape", ["x"], {}, "size of x");
      const sides = to.op("Slice", ["size of x", to.ints(2), to.ints(4)]);
      const lead = to.op("Slice", [to.op("Shape", ["c5"]), to.ints(0), to.ints(2)]);
      const sizes = to.op("Concat", [lead, sides], { axis: 0 });
      conv(to, to.op("Resize", ["c5", "", "", sizes]), "mask");
    });
    const cut = defaultCut(made, inferTypes(made));
    expect(cut).toEqual(["c5", "size of x"]);
    sides(made, cut);
  });

  it("a shape that is computed from what crosses does not cross", () => {
    const made = network(["logits"], (to) => {
      trunk(to);
      const batch = to.op("Slice", [to.op("Shape", ["c5"]), to.ints(0), to.ints(1)]);
      const flat = to.op("Reshape", ["c5", to.op("Concat", [batch, to.ints(-1)], { axis: 0 })]);
      to.op("Gemm", [to.op("Relu", [flat], {}, "flat"), to.random(16, 3)], {}, "logits");
    });
    const types = inferTypes(made);
    expect(defaultCut(made, types)).toEqual(["flat"]);
    const names = candidateCuts(made, types, 100).map(({ values }) => values.map(({ name }) => name));
    expect(names).toContainEqual(["c3"]);
    expect(names.flat().filter((name) => types.get(name)?.dtype === "int64")).toEqual([]);
  });

  it("classifiers on the way to the last one: what each of them reads crosses, the last one's feature too", () => {
    const kernel = (name: string, filters: number) =>
      weight(name, float32([filters, 4, 1, 1], new Float32Array(filters * 4).fill(0.1)));
    const matrix = (name: string) => weight(name, float32([4, 10], new Float32Array(40).fill(0.1)));
    const classifier = (of: string, name: string) => [
      node("GlobalAveragePool", [of], [`${name} pool`]),
      node("Flatten", [`${name} pool`], [`${name} feature`]),
      node("Gemm", [`${name} feature`, `${name} matrix`], [name]),
    ];
    const main = graph("auxiliary", {
      nodes: [
        node("Conv", ["x", "k1"], ["trunk"]),
        node("Conv", ["trunk", "k2"], ["side"]),
        ...classifier("side", "aux"),
        node("Conv", ["trunk", "k3"], ["deep"]),
        ...classifier("deep", "logits"),
      ],
      inputs: [valueInfo("x", "float32", ["N", 4, 8, 8])],
      outputs: [valueInfo("logits", "float32", ["N", 10]), valueInfo("aux", "float32", ["N", 10])],
      weights: [
        kernel("k1", 4),
        kernel("k2", 4),
        kernel("k3", 4),
        matrix("aux matrix"),
        matrix("logits matrix"),
      ],
    });
    const whole = model(main);
    expect([...defaultCut(whole, inferTypes(whole))].sort()).toEqual(["aux feature", "logits feature"]);
  });

  it("a model without a place to cut is refused", () => {
    const made = network(["y"], (to) => void to.op("Relu", ["x"], {}, "y"));
    expect(candidateCuts(made, inferTypes(made))).toEqual([]);
    expect(() => defaultCut(made, inferTypes(made))).toThrow(/no classifier, feature pyramid or branches/);
  });

  it("a damaged model gives cuts or a typed error", () => {
    const good = modelBytes(networks[0]?.[2] ?? architecture("dense concatenation", "N"));
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), (place, byte) => {
        const bad = good.slice();
        bad[place] = byte;
        try {
          const read = parseModel(bad);
          for (const { backbone, head } of candidateCuts(read, inferTypes(read)))
            expect(Math.min(backbone.flops, head.flops, head.parameters)).toBeGreaterThanOrEqual(0);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(PolyheadError);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it("a constant output takes no part", () => {
    const made = network(["logits", "version"], (to) => {
      trunk(to);
      to.op("Flatten", [to.op("GlobalAveragePool", ["c5"])], {}, "pooled");
      to.op("Gemm", ["pooled", to.random(4, 3)], {}, "logits");
      to.op("Constant", [], { value: int64([1], [3]) }, "version");
    });
    expect(defaultCut(made, inferTypes(made))).toEqual(["pooled"]);
  });
});
