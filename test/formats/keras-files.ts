/** Keras' files for tests, written by the HDF5 library (h5wasm) from models that TF.js made. */
import { readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LayersModel } from "@tensorflow/tfjs-layers";
import { zipSync } from "fflate";
import * as h5wasm from "h5wasm/node";

let count = 0;

/** The bytes of an HDF5 file that `write` fills. */
export async function writtenHdf5(write: (file: h5wasm.File) => void): Promise<Uint8Array> {
  await h5wasm.ready;
  const path = join(tmpdir(), `polyhead-${process.pid}-${count++}.h5`);
  const file = new h5wasm.File(path, "w");
  try {
    write(file);
  } finally {
    file.close();
  }
  const bytes = new Uint8Array(readFileSync(path));
  rmSync(path);
  return bytes;
}

/** A weight as TF.js has it. */
interface Weight {
  readonly name: string;
  readonly originalName: string;
  readonly shape: number[];
  read(): { dataSync(): Float32Array };
}
/** What TF.js keeps of a layer; its types hide the half of it. */
export interface BuiltLayer {
  readonly name: string;
  readonly trainableWeights: readonly Weight[];
  readonly nonTrainableWeights: readonly Weight[];
  readonly layers?: readonly BuiltLayer[];
  getClassName(): string;
}

/** The layers of a model that TF.js made. */
export function builtLayers(model: LayersModel): readonly BuiltLayer[] {
  return model.layers as unknown as readonly BuiltLayer[];
}

/** The model's configuration as TF.js saves it, which is that of Keras 2. */
export function savedConfig(model: LayersModel): { class_name: string; config: Record<string, unknown> } {
  return model.toJSON(undefined, false) as unknown as { class_name: string; config: Record<string, unknown> };
}

/**
 * The HDF5 file that Keras 2 would write of a model.
 * @param nameOf what the weights are called; Keras itself reads them by order
 */
export function kerasHdf5(
  model: LayersModel,
  options: {
    nameOf?: (weight: Weight) => string;
    version?: string;
    chunkedNames?: boolean;
    config?: unknown;
  } = {},
): Promise<Uint8Array> {
  const nameOf = options.nameOf ?? (({ originalName }) => `${originalName}:0`);
  return writtenHdf5((file) => {
    file.create_attribute("model_config", JSON.stringify(options.config ?? savedConfig(model)));
    file.create_attribute("keras_version", options.version ?? "2.9.0");
    file.create_attribute("backend", "tensorflow");
    const all = file.create_group("model_weights");
    all.create_attribute(
      "layer_names",
      builtLayers(model).map(({ name }) => name),
    );
    for (const layer of builtLayers(model)) {
      const group = all.create_group(layer.name);
      const weights = [...layer.trainableWeights, ...layer.nonTrainableWeights];
      if (weights.length === 0) continue;
      const names = weights.map(nameOf);
      if (options.chunkedNames) {
        for (const [at, name] of names.entries()) group.create_attribute(`weight_names${at}`, [name]);
      } else group.create_attribute("weight_names", names);
      for (const [at, weight] of weights.entries()) writeWeight(group, names[at] ?? "", weight);
    }
  });
}

function writeWeight(group: h5wasm.Group, path: string, weight: Weight): void {
  const parts = path.split("/");
  const name = parts.pop() ?? "";
  let place = group;
  for (const part of parts) place = (place.get(part) as h5wasm.Group | null) ?? place.create_group(part);
  place.create_dataset({ name, data: weight.read().dataSync(), shape: weight.shape, dtype: "<f4" });
}

/** Numbers with a shape. */
export interface Numbers {
  readonly shape: number[];
  readonly data: Float32Array;
}

/** The archive that Keras 3 would write: the configuration, and weights by their paths. */
export async function kerasArchive(
  config: unknown,
  weights: Readonly<Record<string, Numbers>>,
  version = "3.5.0",
): Promise<Uint8Array> {
  const bytes = await writtenHdf5((file) => {
    for (const [path, { shape, data }] of Object.entries(weights)) {
      const parts = path.split("/");
      const name = parts.pop() ?? "";
      let place: h5wasm.Group = file;
      for (const part of parts) place = (place.get(part) as h5wasm.Group | null) ?? place.create_group(part);
      place.create_dataset({ name, data, shape, dtype: "<f4" });
    }
  });
  const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
  return zipSync({
    "metadata.json": text({ keras_version: version, date_saved: "2024-01-01@00:00:00" }),
    "config.json": text(config),
    "model.weights.h5": bytes,
  });
}

type Json = Record<string, unknown>;

/** A model's configuration as Keras 3 writes it, translated by hand from that of Keras 2. */
export function keras3Config(old: {
  class_name: string;
  config: Json | unknown[];
  name?: unknown;
  inbound_nodes?: unknown;
}): Json {
  const inner = (Array.isArray(old.config) ? { layers: old.config } : old.config) as Json;
  const { batch_input_shape: shape, ...rest } = inner;
  const isModel = ["Model", "Functional", "Sequential"].includes(old.class_name);
  const config: Json = { ...rest, ...(shape !== undefined && { batch_shape: shape }) };
  if (!isModel)
    config.dtype = {
      module: "keras",
      class_name: "DTypePolicy",
      config: { name: "float32" },
      registered_name: null,
    };
  if (Array.isArray(inner.layers))
    config.layers = inner.layers.map((layer) => keras3Config(layer as Parameters<typeof keras3Config>[0]));
  const single = (list: unknown) => (Array.isArray(list) && list.length === 1 ? list[0] : list);
  if (inner.input_layers !== undefined) config.input_layers = single(inner.input_layers);
  if (inner.output_layers !== undefined) config.output_layers = single(inner.output_layers);
  const nodes = old.inbound_nodes as [string, number, number, Json?][][] | undefined;
  return {
    module: isModel ? "keras" : "keras.layers",
    class_name: old.class_name === "Model" ? "Functional" : old.class_name,
    config,
    registered_name: null,
    ...(nodes && {
      name: old.name,
      inbound_nodes: nodes.map((node) => {
        const tensors = node.map(([layer, call, tensor]) => ({
          class_name: "__keras_tensor__",
          config: { shape: [null, 1], dtype: "float32", keras_history: [layer, call, tensor] },
        }));
        return { args: tensors.length === 1 ? tensors : [tensors], kwargs: {} };
      }),
    }),
  };
}

/** Paths of all weights as Keras 3 names them: after classes, counted, at every depth. */
export function keras3Weights(layers: readonly BuiltLayer[], under = ""): Record<string, Numbers> {
  const counts = new Map<string, number>();
  const found: Record<string, Numbers> = {};
  for (const layer of layers) {
    const known: Record<string, string> = {
      Model: "functional",
      Functional: "functional",
      PReLU: "p_re_lu",
      ReLU: "re_lu",
    };
    const own = layer.getClassName();
    const snake = known[own] ?? own.replace(/(?<=[a-z0-9])(?=[A-Z][a-z])/g, "_").toLowerCase();
    const count = counts.get(snake) ?? 0;
    counts.set(snake, count + 1);
    const path = `${under}layers/${count === 0 ? snake : `${snake}_${count}`}`;
    if (layer.layers) Object.assign(found, keras3Weights(layer.layers, `${path}/`));
    else
      for (const [at, weight] of [...layer.trainableWeights, ...layer.nonTrainableWeights].entries())
        found[`${path}/vars/${at}`] = { shape: weight.shape, data: weight.read().dataSync() };
  }
  return found;
}
