/**
 * TF.js itself as the oracle: runs a model's files with its own backends, and the same files through the import
 * and ONNX Runtime, on equal inputs.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { loadGraphModel } from "@tensorflow/tfjs-converter";
import * as tf from "@tensorflow/tfjs-core";
import { expect } from "vitest";
import { type Folder, MemoryFolder } from "../../src/base/folder.js";
import { importTfjsGraph, type TfjsImport, type TfjsImportOptions } from "../../src/formats/index.js";
import { GraphIndex } from "../../src/onnx/graph.js";
import { declaredType } from "../../src/onnx/model.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { openModelOn } from "../../src/runtime/open-model.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { type Tensor, tensor, toNumbers } from "../../src/tensor/tensor.js";

/** Where the package with the published models keeps them. */
const humanModels = new URL("../../node_modules/@vladmandic/human/models/", import.meta.url);

/** The files of one of those models. */
export function humanFolder(name: string): MemoryFolder {
  return new MemoryFolder({
    [`${name}.json`]: readFileSync(fileURLToPath(new URL(`${name}.json`, humanModels))),
    [`${name}.bin`]: readFileSync(fileURLToPath(new URL(`${name}.bin`, humanModels))),
  });
}

/** Numbers that look random and are the same each time (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Runs files through TF.js; outputs in the order of its signature, or of its graph without one. */
export async function runTfjs(
  folder: Folder,
  name: string,
  inputs: ReadonlyMap<string, Tensor>,
): Promise<Tensor[]> {
  const json = JSON.parse(new TextDecoder().decode(await folder.read(name)));
  const manifest: { paths: string[]; weights: tf.io.WeightsManifestEntry[] }[] = json.weightsManifest;
  const parts = await Promise.all(manifest.flatMap((group) => group.paths.map((path) => folder.read(path))));
  const model = await loadGraphModel({
    load: async () => ({
      modelTopology: json.modelTopology,
      signature: json.signature ?? json.userDefinedMetadata?.signature,
      weightSpecs: manifest.flatMap((group) => group.weights),
      weightData: Uint8Array.from(Buffer.concat(parts)).buffer,
    }),
  });
  const feeds: tf.NamedTensorMap = Object.fromEntries(
    [...inputs].map(([key, value]) => {
      const signed = json.signature?.inputs?.[key] ?? json.signature?.inputs?.[`${key}:0`];
      const values =
        value.dtype === "int32" ? Int32Array.from(toNumbers(value)) : Float32Array.from(toNumbers(value));
      const dtype = value.dtype === "int32" ? "int32" : value.dtype === "bool" ? "bool" : "float32";
      return [signed?.name ?? key, tf.tensor(values, [...value.shape], dtype)];
    }),
  );
  const keys = Object.keys(json.signature?.outputs ?? {});
  const names =
    keys.length > 0
      ? keys.map((key) => json.signature.outputs[key].name)
      : model.outputs.map((each) => each.name);
  const isDynamic = json.modelTopology.node.some((node: { op: string }) =>
    /^(NonMax|Where|Switch)/.test(node.op),
  );
  const results = isDynamic ? await model.executeAsync(feeds, names) : model.execute(feeds, names);
  const list = Array.isArray(results) ? results : [results];
  const tensors = await Promise.all(list.map(async (result) => ({ result, data: await result.data() })));
  const read = tensors.map(({ result, data }) =>
    result.dtype === "int32"
      ? tensor("int32", result.shape, Int32Array.from(data))
      : result.dtype === "bool"
        ? tensor("bool", result.shape, Uint8Array.from(data))
        : tensor("float32", result.shape, Float32Array.from(data)),
  );
  for (const each of [...list, ...Object.values(feeds)]) tf.dispose(each);
  model.dispose();
  return read;
}

/** Inputs for an imported model, of random numbers; open sizes are `open`. */
export function randomInputs({ model }: TfjsImport, seed: number, open = 1, scale = 1): Map<string, Tensor> {
  const random = randomNumbers(seed);
  return new Map(
    new GraphIndex(model.graph).inputs.map((info) => {
      const type = declaredType(info);
      if (!type?.shape) throw new Error(`The input ${info.name} has no shape.`);
      const shape = type.shape.map((size) => (typeof size === "number" ? size : open));
      const count = shape.reduce((product, size) => product * size, 1);
      const values = Array.from({ length: count }, () => random());
      const data =
        type.dtype === "float32"
          ? Float32Array.from(values, (value) => value * scale)
          : type.dtype === "bool"
            ? Uint8Array.from(values, (value) => (value < 0.5 ? 0 : 1))
            : Int32Array.from(values, (value) => Math.floor(value * 256));
      return [info.name, tensor(type.dtype, shape, data)] as const;
    }),
  );
}

/** Opens a runtime for a test file. */
export function openRuntime(): Promise<Runtime> {
  return Runtime.open(() => OrtWorker.start());
}

/** Runs an imported model; outputs in the model's order. */
export async function runImported(
  runtime: Runtime,
  { model }: TfjsImport,
  inputs: ReadonlyMap<string, Tensor>,
): Promise<Tensor[]> {
  const opened = await openModelOn(runtime)(model, "all");
  try {
    const results = await opened.run(inputs);
    return model.graph.output.map(({ name }) => {
      const result = results.get(name);
      if (!result) throw new Error(`There is no output ${name}.`);
      return result;
    });
  } finally {
    await opened.close();
  }
}

/** The greatest difference between two lists of numbers, relative to the scale of the second. */
export function relativeError(got: Tensor, expected: Tensor): number {
  const [a, b] = [toNumbers(got), toNumbers(expected)];
  let [worst, scale] = [0, 1e-6];
  for (const [index, value] of b.entries()) {
    const own = a[index] ?? Number.NaN;
    if (Object.is(own, value) || own === value) continue;
    worst = Math.max(worst, Number.isNaN(own - value) ? Number.POSITIVE_INFINITY : Math.abs(own - value));
    if (Number.isFinite(value)) scale = Math.max(scale, Math.abs(value));
  }
  for (const value of b) if (Number.isFinite(value)) scale = Math.max(scale, Math.abs(value));
  return worst / scale;
}

/** Expects the import of a model to compute what TF.js does, within `tolerance` of each output's scale. */
export async function expectAgreement(
  runtime: Runtime,
  folder: Folder,
  name: string,
  options: { seed?: number; open?: number; scale?: number; tolerance?: number } & TfjsImportOptions = {},
): Promise<TfjsImport> {
  const imported = await importTfjsGraph(folder, name, options);
  const inputs = randomInputs(imported, options.seed ?? 1, options.open, options.scale);
  const expected = await runTfjs(folder, name, inputs);
  const got = await runImported(runtime, imported, inputs);
  expect(got.map(({ shape }) => shape)).toEqual(expected.map(({ shape }) => shape));
  expect(got.map(({ dtype }) => dtype)).toEqual(expected.map(({ dtype }) => dtype));
  for (const [index, result] of got.entries()) {
    const wanted = expected[index];
    if (!wanted) throw new Error("TF.js gives fewer outputs.");
    expect(relativeError(result, wanted), `output ${index}`).toBeLessThanOrEqual(options.tolerance ?? 1e-4);
  }
  return imported;
}
