/** Reading and writing models: nothing is lost, nothing broken is accepted. */
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { InferenceSession, Tensor as OrtTensor } from "onnxruntime-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { loadModel, saveModel } from "../../src/files/disk.js";
import { ModelProtoSchema } from "../../src/onnx/generated/onnx_pb.js";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { parseModel } from "../../src/onnx/read.js";
import { weight, weightTensor } from "../../src/onnx/weight.js";
import { modelBytes } from "../../src/onnx/write.js";
import { byteLength, DTYPES, type DType } from "../../src/tensor/dtype.js";
import { float32, fromBytes } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
});
afterAll(() => rm(folder, { recursive: true }));

const dtypes = Object.keys(DTYPES).filter((dtype) => dtype !== "string") as DType[];

function holding(dtype: DType, bytes: Uint8Array, count: number) {
  const weights = [weight("w", fromBytes(dtype, [count], bytes))];
  return model(
    graph("g", {
      nodes: [node("Identity", ["w"], ["y"])],
      inputs: [],
      outputs: [valueInfo("y", dtype, [count])],
      weights,
    }),
  );
}

describe("a written model", () => {
  it.each(dtypes)("keeps %s weights byte for byte", (dtype) => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0 }), (count, seed) => {
        const bytes = Uint8Array.from(
          { length: byteLength(dtype, count) },
          (_, at) => (seed + at * 31) & 255,
        );
        const again = parseModel(modelBytes(holding(dtype, bytes, count)));
        const [stored] = again.graph.initializer;
        expect(stored?.rawData).toEqual(bytes);
      }),
      { numRuns: 20 },
    );
  });

  it("keeps fields that the schema does not know", () => {
    const made = model(
      graph("g", {
        nodes: [node("Relu", ["x"], ["y"])],
        inputs: [valueInfo("x", "float32", [1])],
        outputs: [valueInfo("y", "float32", [1])],
        weights: [],
      }),
    );
    const unknown = { no: 999, wireType: 0, data: Uint8Array.of(7) };
    made.$unknown = [unknown];
    made.graph.$unknown = [unknown];
    const again = parseModel(modelBytes(parseModel(modelBytes(made))));
    expect(again.$unknown).toEqual([unknown]);
    expect(again.graph.$unknown).toEqual([unknown]);
  });

  it("is the same message for any size of weights, inside the file and beside it", async () => {
    for (const external of [false, true]) {
      const made = holding("float32", new Uint8Array(400_000).fill(3), 100_000);
      const path = join(folder, "sized.onnx");
      await saveModel(path, made, { external });
      expect((await readdir(folder)).filter((name) => name.startsWith("sized"))).toHaveLength(
        external ? 2 : 1,
      );
      const again = await loadModel(path);
      expect(toBinary(ModelProtoSchema, again)).toEqual(toBinary(ModelProtoSchema, made));
    }
  });
});

describe("weights that share their memory", () => {
  it("share their place in external data, however often the model is read and written", async () => {
    const values = Float32Array.from({ length: 2 ** 18 }, (_, at) => at);
    const first = weight("w0", float32([2 ** 18], values));
    const tied = Array.from({ length: 50 }, (_, at) => Object.assign({}, first, { name: `w${at}` }));
    const own = weight("own", float32([2 ** 18], values.slice()));
    let made = model(
      graph("tied", {
        nodes: [node("Sum", ["own", ...tied.map(({ name }) => name)], ["y"])],
        inputs: [],
        outputs: [valueInfo("y", "float32", [2 ** 18])],
        weights: [own, ...tied],
      }),
    );
    for (const round of [1, 2]) {
      const path = join(folder, `tied-${round}.onnx`);
      await saveModel(path, made, { external: true });
      const data = (await readdir(folder)).filter((name) => new RegExp(`^tied-${round}.*data$`).test(name));
      expect(data).toHaveLength(1);
      const { size } = await stat(join(folder, data[0] ?? ""));
      expect(size).toBeLessThan(3 * 2 ** 20);
      made = await loadModel(path);
      const session = await InferenceSession.create(path);
      const { y } = await session.run({});
      expect(y?.data).toEqual(values.map((value) => 51 * value));
      await session.release();
    }
  });
});

describe.skipIf(!hasFixtures)("published models (fixtures)", () => {
  const files = hasFixtures
    ? ["zoo", "family", "train"].flatMap((each) =>
        readdirSync(join(fixturesDir, each))
          .filter((name) => name.endsWith(".onnx"))
          .map((name) => join(fixturesDir, each, name)),
      )
    : [];

  it.each(files)("%s is the same message after write and read", (path) => {
    const bytes = readFileSync(path);
    expect(toBinary(ModelProtoSchema, parseModel(modelBytes(parseModel(bytes))))).toHaveLength(
      toBinary(ModelProtoSchema, fromBinary(ModelProtoSchema, bytes)).length,
    );
  });

  it.each(files)("%s computes the same after write and read", async (path) => {
    const input = new OrtTensor(
      "float32",
      Float32Array.from({ length: 3 * 64 * 64 }, (_, at) => Math.sin(at)),
      [1, 3, 64, 64],
    );
    const copy = join(folder, "copy.onnx");
    await saveModel(copy, await loadModel(path), { external: true });
    const answers = [];
    for (const each of [path, copy]) {
      const session = await InferenceSession.create(each);
      const [name = ""] = session.inputNames;
      const out = await session.run({ [name]: input });
      answers.push(Object.values(out).map(({ data }) => data));
      await session.release();
    }
    expect(answers[1]).toEqual(answers[0]);
  });
});

describe("a broken file", () => {
  const good = modelBytes(
    model(
      graph("g", {
        nodes: [node("Add", ["x", "w"], ["y"])],
        inputs: [valueInfo("x", "float32", [4])],
        outputs: [valueInfo("y", "float32", [4])],
        weights: [weight("w", float32([4], [1, 2, 3, 4]))],
      }),
    ),
  );

  it("is read or refused with a typed error, wherever it is cut or changed", () => {
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), fc.boolean(), (at, byte, cut) => {
        const bad = cut ? good.slice(0, at) : good.slice();
        if (!cut) bad[at] = byte;
        try {
          for (const each of parseModel(bad).graph.initializer) weightTensor(each);
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(PolyheadError);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it.each(["", "not a model", "\u0008\u0001"])("%j is not a model", (text) => {
    expect(() => parseModel(new TextEncoder().encode(text))).toThrow(/not an ONNX file/);
  });
});
