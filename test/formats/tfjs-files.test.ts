/** Files: quantised weights, several shards, names, and what is broken, lying or hostile. */
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { MemoryFolder } from "../../src/base/folder.js";
import { importTfjsGraph, isTfjsGraphModel } from "../../src/formats/index.js";
import type { Runtime } from "../../src/runtime/runtime.js";
import { float32 } from "../../src/tensor/tensor.js";
import {
  type GraphSpec,
  graphFolder,
  graphJson,
  ints,
  list,
  noise,
  scalar,
  weightBytes,
} from "./tfjs-graph.js";
import { expectAgreement, humanFolder, openRuntime } from "./tfjs-oracle.js";

let runtime: Runtime;
beforeAll(async () => {
  await tf.setBackend("cpu");
  runtime = await openRuntime();
});
afterAll(() => runtime.close());

const plain: GraphSpec = {
  inputs: { x: { shape: [1, 4, 4, 3] } },
  constants: { f: noise([3, 3, 3, 2]), bias: noise([2]) },
  nodes: [
    {
      name: "c",
      op: "Conv2D",
      inputs: ["x", "f"],
      attributes: { strides: [1, 1, 1, 1], dilations: [1, 1, 1, 1], padding: "SAME", data_format: "NHWC" },
    },
    { name: "y", op: "BiasAdd", inputs: ["c", "bias"] },
  ],
  outputs: ["y"],
};

/** A folder of the plain model after a test has had its way with the JSON. */
function spoiled(
  spoil: (json: ReturnType<typeof graphJson>) => void,
  weights = weightBytes(plain),
): MemoryFolder {
  const json = graphJson(plain);
  spoil(json);
  return new MemoryFolder({ "model.json": Buffer.from(JSON.stringify(json)), "weights.bin": weights });
}

const attempt = (folder: MemoryFolder) => importTfjsGraph(folder, "model.json");

describe("weights", () => {
  it.each(["uint8", "uint16"] as const)("%s is widened as TF.js does it", async (dtype) => {
    const levels = dtype === "uint8" ? 255 : 65535;
    const numbers = Array.from({ length: 56 }, (_, at) => (at * 7919) % levels);
    const stored = dtype === "uint8" ? Uint8Array.from(numbers) : Uint16Array.from(numbers);
    const folder = spoiled((json) => {
      for (const entry of json.weightsManifest[0]?.weights ?? [])
        entry.quantization = { dtype, scale: 2.7 / levels, min: -1.3, original_dtype: "float32" };
    }, new Uint8Array(stored.buffer));
    await expectAgreement(runtime, folder, "model.json", { tolerance: 1e-6 });
  });

  it("float16 is widened as TF.js does it, subnormal numbers too", async () => {
    const stored = Uint16Array.from({ length: 56 }, (_, at) => ((at * 997) % 0x4800) | (at % 2 ? 0x8000 : 0));
    const folder = spoiled((json) => {
      for (const entry of json.weightsManifest[0]?.weights ?? []) entry.quantization = { dtype: "float16" };
    }, new Uint8Array(stored.buffer));
    await expectAgreement(runtime, folder, "model.json", { tolerance: 1e-6 });
  });

  it("may lie in several files, in groups, in a folder below", async () => {
    const json = graphJson(plain);
    const bytes = weightBytes(plain);
    const paths = ["a.bin", "b.bin", "c.bin"];
    json.weightsManifest = [{ paths, weights: json.weightsManifest[0]?.weights ?? [] }];
    const files = {
      "deep/model.json": Buffer.from(JSON.stringify(json)),
      "deep/a.bin": bytes.slice(0, 13),
      "deep/b.bin": bytes.slice(13, 100),
      "deep/c.bin": bytes.slice(100),
    };
    const one = await importTfjsGraph(new MemoryFolder(files), "deep/model.json");
    const other = await attempt(graphFolder(plain));
    expect(one.model).toEqual(other.model);
  });
});

describe("names", () => {
  it("are the signature's; nodes' where there is none", async () => {
    const named = await attempt(
      spoiled((json) => {
        json.signature = { inputs: { picture: { name: "x:0" } }, outputs: { "scores:0": { name: "y:0" } } };
      }),
    );
    expect(named.model.graph.input.map(({ name }) => name)).toEqual(["picture"]);
    expect(named.model.graph.output.map(({ name }) => name)).toEqual(["scores"]);
    const unnamed = await attempt(spoiled((json) => Object.assign(json, { signature: undefined })));
    expect(unnamed.model.graph.input.map(({ name }) => name)).toEqual(["x"]);
    expect(unnamed.model.graph.output.map(({ name }) => name)).toEqual(["y"]);
  });

  it("of outputs that are inputs, constants or one value twice are all there", async () => {
    const spec: GraphSpec = {
      inputs: { x: { shape: [2, 2] } },
      constants: { k: noise([2]) },
      nodes: [
        { name: "a", op: "Identity", inputs: ["x"] },
        { name: "b", op: "Identity", inputs: ["k"] },
        { name: "c", op: "Relu", inputs: ["x"] },
        { name: "d", op: "Identity", inputs: ["c"] },
        { name: "e", op: "Identity", inputs: ["c"] },
      ],
      outputs: ["a", "b", "d", "e"],
    };
    const { model } = await expectAgreement(runtime, graphFolder(spec), "model.json");
    expect(model.graph.output.map(({ name }) => name)).toEqual(["a", "b", "d", "e"]);
  });

  it("a shape that the caller states replaces the file's", async () => {
    const { model } = await importTfjsGraph(graphFolder(plain), "model.json", {
      inputShapes: { x: [-1, 6, 6, 3] },
    });
    const [input] = model.graph.input;
    expect(
      input?.type?.value.case === "tensorType" && input.type.value.value.shape?.dim[0]?.value.value,
    ).toBe("batch");
    const wrong = importTfjsGraph(graphFolder(plain), "model.json", { inputShapes: { x: [-1, 6.5, 6, 3] } });
    await expect(wrong).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});

describe("isTfjsGraphModel", () => {
  it("tells graph models from layers models and anything else", () => {
    expect(isTfjsGraphModel(graphJson(plain))).toBe(true);
    expect(
      isTfjsGraphModel({ format: "layers-model", modelTopology: { model_config: {} }, weightsManifest: [] }),
    ).toBe(false);
    for (const other of [null, 1, "x", [], {}]) expect(isTfjsGraphModel(other)).toBe(false);
  });
});

describe("what cannot be imported", () => {
  it("names all operators and all uses at once", async () => {
    const operators = spoiled((json) => {
      json.modelTopology.node.push(
        { name: "w", op: "While", input: ["y"], attr: {} },
        { name: "z", op: "StringSplit", input: ["w"], attr: {} },
      );
      json.signature = { inputs: {}, outputs: { z: { name: "z" } } };
    });
    await expect(attempt(operators)).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      details: { operators: ["StringSplit", "While"] },
    });

    const uses = graphFolder({
      inputs: { x: { shape: [2, 2] }, axis: { shape: [], dtype: "DT_INT32" } },
      nodes: [
        { name: "a", op: "Sum", inputs: ["x", "axis"] },
        { name: "b", op: "Cumsum", inputs: ["x", "axis"] },
        { name: "c", op: "Add", inputs: ["a", "b"] },
      ],
      outputs: ["c"],
    });
    await expect(attempt(uses)).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      details: { nodes: ["a", "b"] },
    });
  });
});

describe("broken and hostile files", () => {
  const first = (json: ReturnType<typeof graphJson>) => json.weightsManifest[0] ?? { paths: [], weights: [] };
  const nodeOf = (json: ReturnType<typeof graphJson>, name: string) =>
    json.modelTopology.node.find((each) => each.name === name);
  const cases: [what: string, code: string, folder: () => MemoryFolder][] = [
    [
      "no JSON",
      "MODEL_MALFORMED",
      () => new MemoryFolder({ "model.json": Buffer.from('{"modelTopology":') }),
    ],
    ["deep JSON", "MODEL_MALFORMED", () => new MemoryFolder({ "model.json": Buffer.from("[".repeat(1e6)) })],
    ["another format", "MODEL_MALFORMED", () => new MemoryFolder({ "model.json": Buffer.from("{}") })],
    ["no file", "FILE_NOT_FOUND", () => new MemoryFolder({})],
    [
      "no weight file",
      "FILE_NOT_FOUND",
      () =>
        spoiled((json) => {
          first(json).paths = ["other.bin"];
        }),
    ],
    [
      "a path outside",
      "PATH_REFUSED",
      () =>
        spoiled((json) => {
          first(json).paths = ["../weights.bin"];
        }),
    ],
    [
      "an absolute path",
      "PATH_REFUSED",
      () =>
        spoiled((json) => {
          first(json).paths = ["/etc/passwd"];
        }),
    ],
    [
      "a file listed often",
      "MODEL_MALFORMED",
      () =>
        spoiled((json) => {
          first(json).paths = Array(1e5).fill("weights.bin");
        }),
    ],
    ["weights cut off", "MODEL_MALFORMED", () => spoiled(() => {}, weightBytes(plain).slice(0, 40))],
    ["weights too long", "MODEL_MALFORMED", () => spoiled(() => {}, new Uint8Array(4000))],
    [
      "an absurd shape",
      "MODEL_MALFORMED",
      () =>
        spoiled((json) => Object.assign(first(json).weights[0] ?? {}, { shape: [2 ** 30, 2 ** 30, 1, 1] })),
    ],
    [
      "an empty, absurd shape",
      "MODEL_MALFORMED",
      () => spoiled((json) => Object.assign(first(json).weights[0] ?? {}, { shape: [0, 2 ** 40] })),
    ],
    [
      "a shape of many axes",
      "MODEL_MALFORMED",
      () => spoiled((json) => Object.assign(first(json).weights[0] ?? {}, { shape: Array(1e5).fill(1) })),
    ],
    [
      "a weight left out",
      "MODEL_MALFORMED",
      () =>
        spoiled(
          (json) => {
            first(json).weights.pop();
          },
          weightBytes(plain).slice(0, 216),
        ),
    ],
    [
      "an unknown quantisation",
      "MODEL_MALFORMED",
      () =>
        spoiled((json) => Object.assign(first(json).weights[0] ?? {}, { quantization: { dtype: "int4" } })),
    ],
    [
      "a node that is not there",
      "MODEL_MALFORMED",
      () => spoiled((json) => Object.assign(nodeOf(json, "y") ?? {}, { input: ["c", "nowhere"] })),
    ],
    [
      "an output that is not there",
      "MODEL_MALFORMED",
      () => spoiled((json) => Object.assign(nodeOf(json, "y") ?? {}, { input: ["c:7", "bias"] })),
    ],
    [
      "a circle",
      "MODEL_MALFORMED",
      () => spoiled((json) => Object.assign(nodeOf(json, "c") ?? {}, { input: ["y", "f"] })),
    ],
    [
      "two nodes of one name",
      "MODEL_MALFORMED",
      () =>
        spoiled((json) => {
          json.modelTopology.node.push({ name: "c", op: "Relu", input: ["x"], attr: {} });
        }),
    ],
    [
      "an input too few",
      "MODEL_MALFORMED",
      () => spoiled((json) => Object.assign(nodeOf(json, "y") ?? {}, { input: ["c"] })),
    ],
    [
      "shapes that do not fit",
      "MODEL_MALFORMED",
      () => spoiled((json) => Object.assign(nodeOf(json, "y") ?? {}, { input: ["c", "x"] })),
    ],
    [
      "a stride of zero",
      "MODEL_MALFORMED",
      () =>
        spoiled((json) =>
          Object.assign(nodeOf(json, "c")?.attr ?? {}, { strides: { list: { i: ["1", "0", "1", "1"] } } }),
        ),
    ],
    [
      "an attribute that is no number",
      "MODEL_MALFORMED",
      () =>
        spoiled((json) =>
          Object.assign(nodeOf(json, "c")?.attr ?? {}, { strides: { list: { i: ["1", "x", "1", "1"] } } }),
        ),
    ],
    [
      "a name of the prototype",
      "MODEL_UNSUPPORTED",
      () => spoiled((json) => Object.assign(nodeOf(json, "y") ?? {}, { op: "constructor" })),
    ],
  ];
  it.each(cases)("%s: %s", async (_, code, folder) => {
    await expect(attempt(folder())).rejects.toMatchObject({ name: "PolyheadError", code });
  });

  it("constants are not folded without end", async () => {
    const orders = Array.from({ length: 400 }, (_, at) => ({
      name: `t${at}`,
      op: "Transpose",
      inputs: [at === 0 ? "k" : `t${at - 1}`, "order"],
    }));
    const spec: GraphSpec = {
      inputs: { x: { shape: [1] } },
      constants: { k: float32([2 ** 9, 2 ** 10], new Float32Array(2 ** 19)), order: list(1, 0) },
      nodes: [
        ...orders.map((each, at) => ({
          ...each,
          ...(at % 2 ? { op: "Reshape", inputs: [`t${at - 1}`, "target"] } : {}),
        })),
        { name: "y", op: "Mul", inputs: ["t399", "x"] },
      ],
      outputs: ["y"],
    };
    const { model } = await attempt(
      graphFolder({ ...spec, constants: { ...spec.constants, target: list(2 ** 9, 2 ** 10) } }),
    );
    const bytes = model.graph.initializer.reduce((sum, each) => sum + each.rawData.length, 0);
    expect(bytes).toBeLessThan(2 ** 24);
    expect(model.graph.node.length).toBeGreaterThan(300);
  });

  it("lists over axes of billions are not written out", async () => {
    const huge = { x: { shape: [1, 2 ** 30, 1, 1] } };
    const constants = {
      pads: ints([4, 2], [0, 0, 2 ** 30, 2 ** 30, 0, 0, 0, 0]),
      size: list(2 ** 30, 7),
      axis: scalar(1),
      many: scalar(2 ** 30),
    };
    const nodes = [
      { name: "y", op: "MirrorPad", inputs: ["x", "pads"], attributes: { mode: "SYMMETRIC" } },
      { name: "y", op: "Unpack", inputs: ["x"], attributes: { axis: 1, num: 2 ** 30 } },
      { name: "y", op: "Split", inputs: ["axis", "x"], attributes: { num_split: 2 ** 30 } },
    ];
    for (const node of nodes) {
      const folder = graphFolder({ inputs: huge, constants, nodes: [node], outputs: ["y"] });
      await expect(attempt(folder)).rejects.toBeInstanceOf(PolyheadError);
    }
  });

  it("a file with any byte of its JSON changed is imported or refused, never more", async () => {
    const folder = graphFolder(plain);
    const json = await folder.read("model.json");
    const weights = await folder.read("weights.bin");
    await fc.assert(
      fc.asyncProperty(fc.nat(json.length - 1), fc.integer({ min: 32, max: 126 }), async (at, byte) => {
        const changed = json.slice();
        changed[at] = byte;
        const outcome = await attempt(
          new MemoryFolder({ "model.json": changed, "weights.bin": weights }),
        ).catch((error: unknown) => error);
        if (outcome instanceof Error) expect(outcome).toBeInstanceOf(PolyheadError);
      }),
      { numRuns: 1500 },
    );
  });

  it("a published model with any node's inputs exchanged is imported or refused, never more", async () => {
    const folder = humanFolder("movenet-lightning");
    const json = JSON.parse(new TextDecoder().decode(await folder.read("movenet-lightning.json")));
    const bin = await folder.read("movenet-lightning.bin");
    const nodes: { input?: string[] }[] = json.modelTopology.node;
    await fc.assert(
      fc.asyncProperty(fc.nat(nodes.length - 1), fc.nat(nodes.length - 1), async (a, b) => {
        const [one, other] = [nodes[a], nodes[b]];
        if (!one?.input?.length || !other?.input?.length) return;
        [one.input, other.input] = [other.input, one.input];
        const files = { "model.json": Buffer.from(JSON.stringify(json)), "movenet-lightning.bin": bin };
        const outcome = await attempt(new MemoryFolder(files)).catch((error: unknown) => error);
        [one.input, other.input] = [other.input, one.input];
        if (outcome instanceof Error) expect(outcome).toBeInstanceOf(PolyheadError);
      }),
      { numRuns: 40 },
    );
  });
});
