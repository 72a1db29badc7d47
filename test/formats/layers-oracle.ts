/** TF.js itself as the oracle for models of layers: saved by it, imported, run by both on equal inputs. */
import * as tf from "@tensorflow/tfjs-core";
import * as layers from "@tensorflow/tfjs-layers";
import { expect } from "vitest";
import { type Folder, MemoryFolder } from "../../src/base/folder.js";
import { importTfjsLayers, type LayersImport, type LayersImportOptions } from "../../src/formats/index.js";
import type { Runtime } from "../../src/runtime/runtime.js";
import { float32, type Tensor, tensor, toNumbers } from "../../src/tensor/tensor.js";
import { randomInputs, randomNumbers, relativeError, runImported } from "./tfjs-oracle.js";

/** Replaces all weights by random ones, so that nothing hides behind zeros and ones. */
export function randomise(model: layers.LayersModel, seed = 7): void {
  const random = randomNumbers(seed);
  const made = model.weights.map((weight) => {
    const { shape, originalName } = weight as unknown as { shape: number[]; originalName: string };
    const isVariance = /variance$/.test(originalName);
    const count = shape.reduce((product, size) => product * size, 1);
    const values = Float32Array.from({ length: count }, () => (isVariance ? 0.2 + random() : random() - 0.4));
    return tf.tensor(values, shape);
  });
  model.setWeights(made);
}

/** The files that TF.js saves a model as. */
export async function savedFiles(model: layers.LayersModel): Promise<MemoryFolder> {
  const files = new Map<string, Uint8Array>();
  await model.save({
    save: async ({ modelTopology, weightSpecs, weightData }) => {
      const bytes = new Uint8Array(
        Array.isArray(weightData)
          ? Buffer.concat(weightData.map((part) => Buffer.from(part)))
          : (weightData ?? new ArrayBuffer(0)),
      );
      const manifest = [{ paths: ["weights.bin"], weights: weightSpecs }];
      files.set(
        "model.json",
        new TextEncoder().encode(JSON.stringify({ modelTopology, weightsManifest: manifest })),
      );
      files.set("weights.bin", bytes);
      return { modelArtifactsInfo: { dateSaved: new Date(0), modelTopologyType: "JSON" } };
    },
  });
  return new MemoryFolder(files);
}

/** The model that TF.js loads from files. */
export async function loadedModel(folder: Folder, name = "model.json"): Promise<layers.LayersModel> {
  const json = JSON.parse(new TextDecoder().decode(await folder.read(name)));
  const manifest: { paths: string[]; weights: tf.io.WeightsManifestEntry[] }[] = json.weightsManifest;
  const parts = await Promise.all(manifest.flatMap((group) => group.paths.map((path) => folder.read(path))));
  return layers.loadLayersModel({
    load: async () => ({
      modelTopology: json.modelTopology,
      weightSpecs: manifest.flatMap((group) => group.weights),
      weightData: Uint8Array.from(Buffer.concat(parts)).buffer,
    }),
  });
}

/** Outputs of TF.js for the inputs in their order. */
export async function predict(model: layers.LayersModel, inputs: readonly Tensor[]): Promise<Tensor[]> {
  const feeds = inputs.map((value) =>
    tf.tensor(
      value.dtype === "int32" ? Int32Array.from(toNumbers(value)) : Float32Array.from(toNumbers(value)),
      [...value.shape],
      value.dtype === "int32" ? "int32" : "float32",
    ),
  );
  const results = model.predict(feeds.length === 1 ? (feeds[0] as tf.Tensor) : feeds, { batchSize: 64 });
  const list = Array.isArray(results) ? results : [results];
  const read = await Promise.all(
    list.map(async (result) => tensor("float32", result.shape, Float32Array.from(await result.data()))),
  );
  tf.dispose([...feeds, ...list]);
  return read;
}

/** Expects the import of a saved model to compute what TF.js does, within 1e-4 of each output's scale. */
export async function expectSame(
  runtime: Runtime,
  model: layers.LayersModel,
  options: LayersImportOptions & {
    readonly open?: number;
    readonly scale?: number;
    readonly centred?: boolean;
    readonly rows?: Tensor[];
  } = {},
): Promise<LayersImport> {
  const imported = await importTfjsLayers(await savedFiles(model), "model.json", options);
  const inputs = options.rows
    ? new Map(options.rows.map((value, at) => [imported.model.graph.input[at]?.name ?? "", value]))
    : new Map(
        [...randomInputs(imported, 3, options.open ?? 2, 1)].map(([name, value]) => {
          const scale = options.scale ?? 1;
          const shift = options.centred ? 0.5 : 0;
          return [
            name,
            float32(
              value.shape,
              toNumbers(value).map((each) => (each - shift) * scale),
            ),
          ];
        }),
      );
  const expected = await predict(model, [...inputs.values()]);
  const got = await runImported(runtime, imported, inputs);
  expect(got.map(({ shape }) => shape)).toEqual(expected.map(({ shape }) => shape));
  for (const [index, result] of got.entries()) {
    const wanted = expected[index];
    if (!wanted) throw new Error("TF.js gives fewer outputs.");
    expect(Math.max(...toNumbers(wanted)) - Math.min(...toNumbers(wanted)), "spread").toBeGreaterThan(0);
    expect(relativeError(result, wanted), `output ${index}`).toBeLessThanOrEqual(1e-4);
  }
  return imported;
}
