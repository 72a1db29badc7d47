/** ONNX Runtime in worker threads, behind the same life cycle: values in and out unchanged, failures typed. */
import { execFile } from "node:child_process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { graph, type Model, model, type Node, node, valueInfo } from "../../src/onnx/model.js";
import type { OpenModel } from "../../src/onnx/runner.js";
import { weight } from "../../src/onnx/weight.js";
import { modelBytes } from "../../src/onnx/write.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { openModelOn } from "../../src/runtime/open-model.js";
import { Runtime } from "../../src/runtime/runtime.js";
import type { DType } from "../../src/tensor/dtype.js";
import { rowOf } from "../../src/tensor/rows.js";
import type { SymbolicShape } from "../../src/tensor/shape.js";
import { float32, fromBytes, type Tensor, tensor } from "../../src/tensor/tensor.js";

const code = (expected: string) => expect.objectContaining({ code: expected });
const run = promisify(execFile);

let runtime: Runtime;
let openModel: OpenModel;
beforeAll(async () => {
  runtime = await Runtime.open(OrtWorker.start, { workers: 2 });
  openModel = openModelOn(runtime);
});
afterAll(async () => {
  expect(runtime.stats).toEqual({ workers: 2, sessions: 0, queued: 0, running: 0 });
  await runtime.close();
});

function oneNode(
  made: Node,
  dtype: DType,
  shape: SymbolicShape,
  weights: Record<string, Tensor> = {},
): Model {
  return model(
    graph("g", {
      nodes: [made],
      inputs: [valueInfo("x", dtype, shape)],
      outputs: [valueInfo("y", dtype, shape)],
      weights: Object.entries(weights).map(([name, value]) => weight(name, value)),
    }),
  );
}

async function computed(of: Model, x: Tensor): Promise<Tensor | undefined> {
  const opened = await openModel(of, "all");
  try {
    return (await opened.run(new Map([["x", x]]))).get("y");
  } finally {
    await opened.close();
  }
}

const elements: readonly Tensor[] = [
  float32([2, 3], [0, -0, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 1e-40]),
  tensor("float64", [3], Float64Array.of(0.1, -1e300, Number.EPSILON)),
  tensor("float16", [4], Uint16Array.of(0x3c00, 0x7bff, 0x0001, 0xfc00)),
  tensor("int8", [3], Int8Array.of(-128, 0, 127)),
  tensor("uint8", [3], Uint8Array.of(0, 1, 255)),
  tensor("int16", [2], Int16Array.of(-32768, 32767)),
  tensor("uint16", [2], Uint16Array.of(0, 65535)),
  tensor("int32", [2], Int32Array.of(-(2 ** 31), 2 ** 31 - 1)),
  tensor("uint32", [2], Uint32Array.of(0, 2 ** 32 - 1)),
  tensor("int64", [2], BigInt64Array.of(-(2n ** 63n), 2n ** 63n - 1n)),
  tensor("uint64", [2], BigUint64Array.of(0n, 2n ** 64n - 1n)),
  tensor("bool", [3], Uint8Array.of(1, 0, 1)),
  tensor("string", [2, 2], ["", "a", "äöü", "\u{1f600}"]),
  float32([], [7]),
  float32([0, 3], []),
];

describe("values", () => {
  it.each(elements)("of $dtype $shape come out as they went in", async (x) => {
    const names = x.shape.map((_, axis) => `d${axis}`);
    expect(await computed(oneNode(node("Identity", ["x"], ["y"]), x.dtype, names), x)).toEqual(x);
  });

  it("of float16 are computed with as halves", async () => {
    const twice = oneNode(node("Add", ["x", "x"], ["y"]), "float16", ["n"]);
    const x = tensor("float16", [2], Uint16Array.of(0x3c00, 0xc000));
    expect(await computed(twice, x)).toEqual(tensor("float16", [2], Uint16Array.of(0x4000, 0xc400)));
  });

  it("of 64 MiB come back whole, and the caller keeps what it gave", async () => {
    const count = 2 ** 24;
    const x = float32([count], new Float32Array(count).fill(3));
    const y = await computed(oneNode(node("Neg", ["x"], ["y"]), "float32", ["n"]), x);
    expect(y?.data.length).toBe(count);
    expect([y?.data[0], y?.data[count - 1], x.data.length]).toEqual([-3, -3, count]);
  });

  it("are shared memory's to refuse, not to crash on", async () => {
    const x = fromBytes("float32", [2], new Uint8Array(new SharedArrayBuffer(8)));
    await expect(computed(oneNode(node("Neg", ["x"], ["y"]), "float32", ["n"]), x)).rejects.toEqual(
      code("RUN_FAILED"),
    );
  });
});

describe("a model that ONNX Runtime refuses", () => {
  it.each([
    ["bytes that are no model", new TextEncoder().encode("no model")],
    ["an empty file", new Uint8Array()],
    ["an unknown operator", modelBytes(oneNode(node("NoSuchOperator", ["x"], ["y"]), "float32", [1]))],
    [
      "an operator that does not take the dtype",
      modelBytes(oneNode(node("Conv", ["x", "x"], ["y"]), "int64", [1, 1, 1, 1])),
    ],
    [
      "an operator set of the future",
      modelBytes(model(oneNode(node("Neg", ["x"], ["y"]), "float32", [1]).graph, 999)),
    ],
  ])("is LOAD_FAILED: %s", async (_, bytes) => {
    await expect(runtime.acquire("bad", () => bytes.slice())).rejects.toEqual(code("LOAD_FAILED"));
  });
});

describe("inputs that do not fit", () => {
  const sum = oneNode(node("Add", ["x", "w"], ["y"]), "float32", ["n", 2], { w: float32([2], [1, 2]) });

  it.each([
    ["no input", new Map<string, Tensor>()],
    ["another name", new Map([["z", float32([1, 2], [1, 2])]])],
    ["another dtype", new Map([["x", tensor("int32", [1, 2], Int32Array.of(1, 2))]])],
    ["another rank", new Map([["x", float32([2], [1, 2])]])],
    ["another size", new Map([["x", float32([1, 3], [1, 2, 3])]])],
  ])("are INPUT_MISMATCH: %s", async (_, inputs) => {
    const opened = await openModel(sum, "all");
    await expect(opened.run(inputs)).rejects.toEqual(code("INPUT_MISMATCH"));
    await opened.close();
  });

  it("and are given to a session unchecked are typed failures all the same", async () => {
    const handle = await runtime.acquire("sum", () => modelBytes(sum));
    const step = { session: handle.number, feeds: [["x", "v"]], fetches: [["y", "y"]] } as const;
    const program = { steps: [step], results: ["y"] };
    for (const value of [
      tensor("int32", [1, 2], Int32Array.of(1, 2)),
      tensor("bfloat16", [1, 2], Uint16Array.of(1, 2)),
      { dtype: "float32", shape: [1, 5], data: Float32Array.of(1, 2) } as const,
      float32([1, 3], [1, 2, 3]),
    ]) {
      const { failures } = await runtime.run(program, new Map([["v", value]]));
      expect(failures.get("y")).toEqual(code("RUN_FAILED"));
    }
    const unclonable = { dtype: "float32", shape: [], data: (() => {}) as never } as const;
    await expect(runtime.run(program, new Map([["v", unclonable]]))).rejects.toEqual(code("RUN_FAILED"));
    expect((await runtime.run(program, new Map())).failures.get("y")).toEqual(code("INTERNAL"));
    const good = await runtime.run(program, new Map([["v", float32([1, 2], [1, 2])]]));
    expect(good.values.get("y")).toEqual(float32([1, 2], [2, 4]));
    await handle.release();
  });
});

describe("a step by rows", () => {
  it("makes what its rows make one by one", async () => {
    // A reduction over everything: taken as one batch the rows would mix.
    const mean = model(
      graph("g", {
        nodes: [node("ReduceMean", ["x"], ["m"], { keepdims: 1 }), node("Sub", ["x", "m"], ["y"])],
        inputs: [valueInfo("x", "float32", ["n", 3])],
        outputs: [valueInfo("y", "float32", ["n", 3])],
        weights: [],
      }),
    );
    const handle = await runtime.acquire("mean", () => modelBytes(mean));
    const step = { session: handle.number, feeds: [["x", "v"]], fetches: [["y", "y"]] } as const;
    const batch = float32([4, 3], [1, 2, 3, 4, 4, 4, -1, 0, 1, 9, 0, 0]);
    const stacked = await runtime.run(
      { steps: [{ ...step, byRow: true }], results: ["y"] },
      new Map([["v", batch]]),
    );
    expect(stacked.values.get("y")?.shape).toEqual([4, 3]);
    for (let row = 0; row < 4; row++) {
      const single = await runtime.run(
        { steps: [step], results: ["y"] },
        new Map([["v", rowOf(batch, row)]]),
      );
      expect(stacked.values.get("y")?.data.slice(3 * row, 3 * row + 3)).toEqual(single.values.get("y")?.data);
    }
    await handle.release();
  });
});

describe("a process", () => {
  it("ends by itself with a runtime that nobody closed", async () => {
    const built = (name: string) =>
      pathToFileURL(fileURLToPath(new URL(`../../dist/${name}`, import.meta.url))).href;
    const script = `
      const { Runtime } = await import(${JSON.stringify(built("runtime/runtime.js"))});
      const { OrtWorker } = await import(${JSON.stringify(built("runtime/node/ort-worker.js"))});
      const { graph, model, node, valueInfo } = await import(${JSON.stringify(built("onnx/model.js"))});
      const { modelBytes } = await import(${JSON.stringify(built("onnx/write.js"))});
      const runtime = await Runtime.open(OrtWorker.start, { workers: 2 });
      const x = valueInfo("x", "float32", [1]), y = valueInfo("y", "float32", [1]);
      const bytes = modelBytes(model(graph("g", { nodes: [node("Neg", ["x"], ["y"])], inputs: [x], outputs: [y], weights: [] })));
      const { number: session } = await runtime.acquire("k", () => bytes.slice());
      const program = { steps: [{ session, feeds: [["x", "x"]], fetches: [["y", "y"]] }], results: ["y"] };
      const { values } = await runtime.run(program, new Map([["x", { dtype: "float32", shape: [1], data: Float32Array.of(5) }]]));
      console.log(values.get("y").data[0]);
    `;
    const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", script], {
      timeout: 30_000,
    });
    expect(stdout.trim()).toBe("-5");
  });
});
