/** Keras' own files: a published one against TF.js, models of TF.js written as Keras 2 and 3 write them, refusals. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { input, type LayersModel, layers, loadLayersModel, model, sequential } from "@tensorflow/tfjs-layers";
import * as h5wasm from "h5wasm/node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ZipFolder } from "../../src/base/zip-folder.js";
import { importKerasArchive, importKerasHdf5, type LayersImport } from "../../src/formats/index.js";
import type { Runtime } from "../../src/runtime/runtime.js";
import { float32, type Tensor } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import {
  builtLayers,
  keras3Config,
  keras3Weights,
  kerasArchive,
  kerasHdf5,
  type Numbers,
  savedConfig,
  writtenHdf5,
} from "./keras-files.js";
import { predict, randomise } from "./layers-oracle.js";
import { openRuntime, randomInputs, randomNumbers, relativeError, runImported } from "./tfjs-oracle.js";

let runtime: Runtime;
beforeAll(async () => {
  await tf.setBackend("cpu");
  runtime = await openRuntime();
});
afterAll(() => runtime.close());

async function expectEqual(
  imported: LayersImport,
  inputs: ReadonlyMap<string, Tensor>,
  expected: readonly Tensor[],
): Promise<void> {
  const got = await runImported(runtime, imported, inputs);
  expect(got.map(({ shape }) => shape)).toEqual(expected.map(({ shape }) => shape));
  for (const [at, result] of got.entries())
    expect(relativeError(result, expected[at] ?? result)).toBeLessThanOrEqual(1e-4);
}

async function expectAs(imported: LayersImport, made: LayersModel): Promise<void> {
  const inputs = randomInputs(imported, 2, 2);
  await expectEqual(imported, inputs, await predict(made, [...inputs.values()]));
}

type Symbolic = ReturnType<typeof input>;
type Layer = { apply(value: Symbolic | Symbolic[]): unknown };
const apply = (layer: Layer, value: Symbolic | Symbolic[]) => layer.apply(value) as Symbolic;

/** A small network of all that order and names of weights can go wrong with. */
function network({ frozen = false } = {}): LayersModel {
  const image = input({ shape: [12, 10, 3], name: "photo" });
  const tower = sequential({
    name: "tower",
    layers: [
      layers.conv2d({
        inputShape: [12, 10, 3],
        filters: 4,
        kernelSize: 3,
        strides: 2,
        padding: "same",
        name: "first",
      }),
      layers.batchNormalization({ name: "norm" }),
      layers.conv2d({ filters: 4, kernelSize: 3, padding: "same", name: "second" }),
      layers.prelu({ name: "slopes", sharedAxes: [1, 2] }),
      layers.batchNormalization({ name: "norm2", scale: false }),
    ],
  });
  if (frozen) for (const layer of tower.layers.slice(0, 2)) layer.trainable = false;
  const inside = apply(tower, image);
  const apart = apply(
    layers.separableConv2d({ filters: 4, kernelSize: 3, padding: "same", name: "apart" }),
    inside,
  );
  const both = apply(layers.add({ name: "sum" }), [inside, apart]);
  const shared = layers.depthwiseConv2d({ kernelSize: 3, padding: "same", name: "shared" });
  const twice = apply(shared, apply(shared, both));
  const pooled = apply(layers.globalAveragePooling2d({ name: "pool" }), twice);
  const outputs = [
    apply(layers.dense({ units: 3, activation: "softmax", name: "kinds" }), pooled),
    apply(layers.dense({ units: 2, name: "place" }), pooled),
  ];
  const made = model({ inputs: image, outputs, name: "network" });
  randomise(made);
  return made;
}

describe.skipIf(!hasFixtures)("a published Keras model", () => {
  it("classifies as TF.js does with the same configuration and weights", async () => {
    const path = join(fixturesDir, "keras/fer2013_mini_XCEPTION.102-0.66.hdf5");
    const imported = importKerasHdf5(new Uint8Array(readFileSync(path)));
    await h5wasm.ready;
    const file = new h5wasm.File(path, "r");
    const specs: tf.io.WeightsManifestEntry[] = [];
    const parts: Uint8Array[] = [];
    const all = file.get("model_weights") as h5wasm.Group;
    for (const layer of all.keys()) {
      const group = all.get(layer) as h5wasm.Group;
      const names = (group.attrs.weight_names?.value ?? []) as string[];
      for (const name of typeof names[0] === "string" ? names : []) {
        const { shape, value } = group.get(name) as h5wasm.Dataset;
        specs.push({ name: name.replace(/:0$/, ""), shape: shape ?? [], dtype: "float32" });
        parts.push(new Uint8Array((value as Float32Array).slice().buffer));
      }
    }
    const config = JSON.parse(String(file.attrs.model_config?.value));
    file.close();
    const weightData = Uint8Array.from(Buffer.concat(parts)).buffer;
    const reference = await loadLayersModel({
      load: async () => ({ modelTopology: config, weightSpecs: specs, weightData }),
    });
    const inputs = new Map(
      [...randomInputs(imported, 6, 3)].map(([name, { shape, data }]) => [
        name,
        float32(
          shape,
          Float32Array.from(data as Float32Array, (each) => 2 * each - 1),
        ),
      ]),
    );
    expect([...inputs.values()][0]?.shape).toEqual([3, 64, 64, 1]);
    const expected = await predict(reference, [...inputs.values()]);
    expect(expected[0]?.shape).toEqual([3, 7]);
    await expectEqual(imported, inputs, expected);
  });
});

describe("files of Keras 2", () => {
  it("are read with names of weights", async () => {
    const made = network();
    const imported = importKerasHdf5(await kerasHdf5(made));
    expect(imported.model.graph.output.map(({ name }) => name)).toEqual(["kinds", "place"]);
    await expectAs(imported, made);
  });

  it("are read by order where the names say nothing, and where Keras cut the list of names", async () => {
    const made = network();
    let count = 0;
    const names = new Map<string, string>();
    const nameOf = ({ name }: { name: string }) => {
      names.set(name, names.get(name) ?? `param_${count++}`);
      return names.get(name) ?? "";
    };
    await expectAs(importKerasHdf5(await kerasHdf5(made, { nameOf, chunkedNames: true })), made);
  });

  it("are read by order with some layers within frozen, which puts their weights last", async () => {
    const made = network({ frozen: true });
    let count = 0;
    await expectAs(importKerasHdf5(await kerasHdf5(made, { nameOf: () => `w${count++}` })), made);
  });

  it("compute Keras 3's hard_sigmoid where Keras 3 wrote them", async () => {
    const made = sequential({ layers: [layers.activation({ inputShape: [8], activation: "hardSigmoid" })] });
    const [two, three] = await Promise.all(["2.9.0", "3.3.3"].map((version) => kerasHdf5(made, { version })));
    const row = float32([1, 8], [-4, -2.6, -1, 0, 0.5, 1, 2.6, 4]);
    const run = async (bytes: Uint8Array | undefined) => {
      const imported = importKerasHdf5(bytes ?? new Uint8Array());
      const [result] = await runImported(
        runtime,
        imported,
        new Map([[imported.model.graph.input[0]?.name ?? "", row]]),
      );
      if (!result) throw new Error("There is no output.");
      return [...(result.data as Float32Array)].map((each) => Math.round(each * 1e4) / 1e4);
    };
    expect(await run(two)).toEqual([0, 0, 0.3, 0.5, 0.6, 0.7, 1, 1]);
    expect(await run(three)).toEqual([0, 0.0667, 0.3333, 0.5, 0.5833, 0.6667, 0.9333, 1]);
  });
});

describe("archives of Keras 3", () => {
  it("of functional models, models within and shared layers", async () => {
    const made = network();
    const archive = await kerasArchive(keras3Config(savedConfig(made)), keras3Weights(builtLayers(made)));
    await expectAs(await importKerasArchive(new ZipFolder(archive)), made);
  });

  it("that Keras 2.13 wrote on Windows: another name of the list, and whole paths as names of groups", async () => {
    const made = network();
    const weights = Object.entries(keras3Weights(builtLayers(made))).map(([path, numbers]) => {
      const [layer = "", at = ""] = path.split("/vars/");
      const name = layer.replaceAll("layers/", "_layer_checkpoint_dependencies/").replaceAll("/", "\\");
      return [`${name}/vars/${at}`, numbers] as const;
    });
    // Keras makes a group of every layer, those without weights too.
    const tower = [
      "_layer_checkpoint_dependencies\\sequential/vars/none",
      { shape: [1], data: new Float32Array(1) },
    ] as const;
    const files = Object.fromEntries([tower, ...weights]);
    expect(Object.keys(files).filter((path) => path.split("\\").length > 3).length).toBeGreaterThan(3);
    const archive = await kerasArchive(keras3Config(savedConfig(made)), files, "2.13.1");
    await expectAs(await importKerasArchive(new ZipFolder(archive)), made);
  });

  it("of a Sequential with several layers of a class", async () => {
    const made = sequential({
      layers: [
        layers.dense({ inputShape: [5], units: 7, activation: "relu" }),
        layers.dense({ units: 6 }),
        layers.reLU({ maxValue: 2 }),
        layers.dense({ units: 4 }),
      ],
    });
    randomise(made);
    const config = keras3Config(savedConfig(made));
    await expectAs(
      await importKerasArchive(new ZipFolder(await kerasArchive(config, keras3Weights(builtLayers(made))))),
      made,
    );
  });
});

/** Layers that TF.js does not have, or computes otherwise: expected values come from TF.js' operators. */
describe("layers of Keras alone", () => {
  const numbers = (shape: number[], seed: number): Numbers => {
    const random = randomNumbers(seed);
    return {
      shape,
      data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => random() - 0.4),
    };
  };
  const read = ({ shape, data }: Numbers) => tf.tensor(data, shape);

  type Case = {
    name: string;
    shapes: number[][];
    layer: string;
    config: object;
    weights?: Record<string, Numbers>;
    kwargs?: object;
    expected: (inputs: tf.Tensor[], weights: tf.Tensor[]) => tf.Tensor;
  };
  const kernel = (shape: number[], path = "vars/0") => ({ [path]: numbers(shape, 11) });
  const heads = { query: [6, 2, 3], key: [6, 2, 3], value: [6, 2, 4] };
  /** A row of pixels as an image of one line, for the operators that only images have. */
  const asImage = (x: tf.Tensor | undefined) => tf.expandDims(x ?? tf.scalar(0), 1) as tf.Tensor4D;
  const asFilter = (w: tf.Tensor | undefined) => tf.expandDims(w ?? tf.scalar(0), 0) as tf.Tensor4D;
  const positive = ({ shape, data }: Numbers): Numbers => ({
    shape,
    data: data.map((each) => Math.abs(each) + 0.1),
  });
  const RANDOM = [
    ..."Brightness ColorDegeneration ColorJitter Contrast Erasing Flip GaussianBlur Grayscale Hue Invert".split(
      " ",
    ),
    ..."Perspective Posterization Rotation Saturation Sharpness Shear Translation Zoom".split(" "),
  ].map((name) => `Random${name}`);
  const CASES: Case[] = [
    {
      name: "depthwise convolution of rows",
      shapes: [[7, 3]],
      layer: "DepthwiseConv1D",
      config: { kernel_size: [3], depth_multiplier: 2, padding: "same", use_bias: false },
      weights: kernel([3, 3, 2]),
      expected: ([x], [w]) => tf.squeeze(tf.depthwiseConv2d(asImage(x), asFilter(w), 1, "same"), [1]),
    },
    {
      name: "separable convolution of rows with steps",
      shapes: [[8, 3]],
      layer: "SeparableConv1D",
      config: { filters: 4, kernel_size: [3], strides: [2], padding: "same", activation: "tanh" },
      weights: { ...kernel([3, 3, 2]), ...kernel([1, 6, 4], "vars/1"), ...kernel([4], "vars/2") },
      expected: ([x], [depth, point, bias]) =>
        tf.tanh(
          tf.add(
            tf.squeeze(tf.separableConv2d(asImage(x), asFilter(depth), asFilter(point), [2, 2], "same"), [1]),
            bias ?? 0,
          ),
        ),
    },
    {
      name: "transposed convolution of rows",
      shapes: [[5, 3]],
      layer: "Conv1DTranspose",
      config: { filters: 2, kernel_size: [4], strides: [3], padding: "same", use_bias: false },
      weights: kernel([4, 2, 3]),
      expected: ([x], [w]) =>
        tf.squeeze(tf.conv2dTranspose(asImage(x), asFilter(w), [2, 1, 15, 2], [1, 3], "same"), [1]),
    },
    {
      name: "padding of volumes",
      shapes: [[2, 3, 4, 2]],
      layer: "ZeroPadding3D",
      config: {
        padding: [
          [1, 0],
          [2, 1],
          [0, 3],
        ],
      },
      expected: ([x]) =>
        tf.pad(x ?? 0, [
          [0, 0],
          [1, 0],
          [2, 1],
          [0, 3],
          [0, 0],
        ]),
    },
    {
      name: "cropping of volumes",
      shapes: [[4, 5, 6, 2]],
      layer: "Cropping3D",
      config: {
        cropping: [
          [1, 0],
          [2, 1],
          [0, 3],
        ],
      },
      expected: ([x]) => tf.slice(x ?? 0, [0, 1, 2, 0, 0], [2, 3, 2, 3, 2]),
    },
    {
      name: "enlarging of volumes",
      shapes: [[2, 3, 2, 2]],
      layer: "UpSampling3D",
      config: { size: [2, 1, 3] },
      expected: ([x]) => tf.gather(tf.gather(x ?? 0, [0, 0, 1, 1], 1), [0, 0, 0, 1, 1, 1], 3),
    },
    ...(["Max", "Average"] as const).map((kind) => ({
      name: `${kind} of whole volumes`,
      shapes: [[2, 3, 4, 2]],
      layer: `Global${kind}Pooling3D`,
      config: { keepdims: true },
      expected: ([x]: tf.Tensor[]) => (kind === "Max" ? tf.max : tf.mean)(x ?? 0, [1, 2, 3], true),
    })),
    ...[4, 1].map((axis) => ({
      name: `batch norm of volumes over axis ${axis}`,
      shapes: [[3, 2, 4, 3]],
      layer: "BatchNormalization",
      config: { axis, epsilon: 0.01 },
      weights: {
        "vars/0": numbers([3], 3),
        "vars/1": numbers([3], 4),
        "vars/2": numbers([3], 5),
        "vars/3": positive(numbers([3], 6)),
      },
      expected: ([x]: tf.Tensor[], weights: tf.Tensor[]) => {
        const shape = axis === 4 ? [3] : [3, 1, 1, 1];
        const [gamma, beta, mean, variance] = weights.map((each) => tf.reshape(each, shape));
        const normal = tf.div(tf.sub(x ?? 0, mean ?? 0), tf.sqrt(tf.add(variance ?? 0, 0.01)));
        return tf.add(tf.mul(normal, gamma ?? 1), beta ?? 0);
      },
    })),
    ...[1, 2, -2].map((axis) => ({
      name: `softmax over axis ${axis}`,
      shapes: [[3, 4, 5]],
      layer: "Softmax",
      config: { axis },
      expected: ([x]: tf.Tensor[]) => {
        const turned = axis === 1 ? [0, 3, 2, 1] : [0, 1, 3, 2];
        return tf.transpose(tf.softmax(tf.transpose(x ?? tf.scalar(0), turned)), turned);
      },
    })),
    ...["ActivityRegularization", "GaussianNoise", "AlphaDropout", "SpatialDropout2D", ...RANDOM].map(
      (layer) => ({
        name: `in evaluation nothing (${layer})`,
        shapes: [[4, 4, 3]],
        layer,
        config: { factor: 0.3, rate: 0.5, stddev: 0.1, l1: 0.1 },
        expected: ([x]: tf.Tensor[]) => tf.clone(x ?? 0),
      }),
    ),
    {
      name: "causal convolution",
      shapes: [[7, 3]],
      layer: "Conv1D",
      config: { filters: 2, kernel_size: [3], dilation_rate: [2], padding: "causal", use_bias: false },
      weights: kernel([3, 3, 2]),
      expected: ([x], [w]) =>
        tf.conv1d(
          tf.pad(x as tf.Tensor3D, [
            [0, 0],
            [4, 0],
            [0, 0],
          ]),
          w as tf.Tensor3D,
          1,
          "valid",
          "NWC",
          2,
        ),
    },
    {
      name: "grouped convolution",
      shapes: [[6, 5, 4]],
      layer: "Conv2D",
      config: { filters: 6, kernel_size: [3, 3], groups: 2, use_bias: false },
      weights: kernel([3, 3, 2, 6]),
      expected: ([x], [w]) =>
        tf.concat(
          tf
            .split(x as tf.Tensor4D, 2, 3)
            .map((part, at) =>
              tf.conv2d(
                part as tf.Tensor4D,
                tf.slice(w as tf.Tensor4D, [0, 0, 0, 3 * at], [3, 3, 2, 3]),
                1,
                "valid",
              ),
            ),
          3,
        ),
    },
    {
      name: "dilated depthwise convolution",
      shapes: [[9, 8, 3]],
      layer: "DepthwiseConv2D",
      config: { kernel_size: [3, 3], dilation_rate: [2, 2], padding: "same", use_bias: false },
      weights: kernel([3, 3, 3, 2]),
      expected: ([x], [w]) => tf.depthwiseConv2d(x as tf.Tensor4D, w as tf.Tensor4D, 1, "same", "NHWC", 2),
    },
    {
      name: "transposed convolution with an output padding",
      shapes: [[5, 4, 3]],
      layer: "Conv2DTranspose",
      config: {
        filters: 2,
        kernel_size: [3, 3],
        strides: [2, 2],
        padding: "same",
        output_padding: [1, 1],
        use_bias: false,
      },
      weights: kernel([3, 3, 2, 3]),
      expected: ([x], [w]) =>
        tf.conv2dTranspose(x as tf.Tensor4D, w as tf.Tensor4D, [2, 10, 8, 2], 2, "same"),
    },
    {
      name: "batch normalisation along the first axis",
      shapes: [[4, 5, 6]],
      layer: "BatchNormalization",
      config: { axis: [1], epsilon: 0.01, center: false, scale: false },
      weights: { "vars/0": numbers([4], 3), "vars/1": { shape: [4], data: Float32Array.of(0.5, 1, 2, 3) } },
      expected: ([x], [mean, variance]) =>
        tf.div(
          tf.sub(x as tf.Tensor, tf.reshape(mean as tf.Tensor, [1, 4, 1, 1])),
          tf.sqrt(tf.add(tf.reshape(variance as tf.Tensor, [1, 4, 1, 1]), 0.01)),
        ),
    },
    {
      name: "batch normalisation along an inner axis",
      shapes: [[4, 5, 6]],
      layer: "BatchNormalization",
      config: { axis: 2, epsilon: 0.01, center: false, scale: false },
      weights: {
        "vars/0": numbers([5], 3),
        "vars/1": { shape: [5], data: Float32Array.of(0.5, 1, 2, 3, 4) },
      },
      expected: ([x], [mean, variance]) =>
        tf.div(
          tf.sub(x as tf.Tensor, tf.reshape(mean as tf.Tensor, [1, 1, 5, 1])),
          tf.sqrt(tf.add(tf.reshape(variance as tf.Tensor, [1, 1, 5, 1]), 0.01)),
        ),
    },
    {
      name: "group normalisation",
      shapes: [[4, 5, 6]],
      layer: "GroupNormalization",
      config: { groups: 3, axis: -1, epsilon: 0.01 },
      weights: { "vars/0": numbers([6], 3), "vars/1": numbers([6], 4) },
      expected: ([x], [gamma, beta]) => {
        const apart = tf.reshape(x as tf.Tensor, [2, 4, 5, 3, 2]);
        const { mean, variance } = tf.moments(apart, [1, 2, 4], true);
        const even = tf.div(tf.sub(apart, mean), tf.sqrt(tf.add(variance, 0.01)));
        return tf.add(tf.mul(tf.reshape(even, [2, 4, 5, 6]), gamma as tf.Tensor), beta as tf.Tensor);
      },
    },
    {
      name: "unit normalisation",
      shapes: [[4, 6]],
      layer: "UnitNormalization",
      config: { axis: -1 },
      expected: ([x]) => tf.div(x as tf.Tensor, tf.norm(x as tf.Tensor, 2, -1, true)),
    },
    {
      name: "normalisation",
      shapes: [[4, 3]],
      layer: "Normalization",
      config: { axis: [-1] },
      weights: { "vars/0": numbers([3], 3), "vars/1": { shape: [3], data: Float32Array.of(4, 2, 0.5) } },
      expected: ([x], [mean, variance]) =>
        tf.div(tf.sub(x as tf.Tensor, mean as tf.Tensor), tf.sqrt(variance as tf.Tensor)),
    },
    {
      name: "normalisation by numbers in the configuration",
      shapes: [[4, 3]],
      layer: "Normalization",
      config: { axis: [-1], mean: [[[1, 2, 3]]], variance: [[[4, 1, 9]]] },
      expected: ([x]) => tf.div(tf.sub(x as tf.Tensor, [1, 2, 3]), [2, 1, 3]),
    },
    {
      name: "subtract",
      shapes: [[5], [5]],
      layer: "Subtract",
      config: {},
      expected: ([a, b]) => tf.sub(a as tf.Tensor, b as tf.Tensor),
    },
    {
      name: "addition of a row to images",
      shapes: [[4, 5, 6], [6]],
      layer: "Add",
      config: {},
      expected: ([a, b]) => tf.add(a as tf.Tensor, tf.reshape(b as tf.Tensor, [2, 1, 1, 6])),
    },
    {
      name: "resizing",
      shapes: [[9, 8, 3]],
      layer: "Resizing",
      config: { height: 13, width: 5, interpolation: "bilinear" },
      expected: ([x]) => tf.image.resizeBilinear(x as tf.Tensor4D, [13, 5], false, true),
    },
    {
      name: "upsampling by lines",
      shapes: [[5, 4, 3]],
      layer: "UpSampling2D",
      config: { size: [2, 3], interpolation: "bilinear" },
      expected: ([x]) => tf.image.resizeBilinear(x as tf.Tensor4D, [10, 12], false, true),
    },
    {
      name: "upsampling of sequences",
      shapes: [[5, 3]],
      layer: "UpSampling1D",
      config: { size: 2 },
      expected: ([x]) => tf.reshape(tf.tile(tf.expandDims(x as tf.Tensor, 2), [1, 1, 2, 1]), [2, 10, 3]),
    },
    {
      name: "the middle of images",
      shapes: [[9, 8, 3]],
      layer: "CenterCrop",
      config: { height: 4, width: 5 },
      expected: ([x]) => tf.slice(x as tf.Tensor4D, [0, 2, 1, 0], [2, 4, 5, 3]),
    },
    {
      name: "cropping of sequences",
      shapes: [[9, 3]],
      layer: "Cropping1D",
      config: { cropping: [2, 1] },
      expected: ([x]) => tf.slice(x as tf.Tensor3D, [0, 2, 0], [2, 6, 3]),
    },
    {
      name: "padding of sequences",
      shapes: [[9, 3]],
      layer: "ZeroPadding1D",
      config: { padding: [2, 1] },
      expected: ([x]) =>
        tf.pad(x as tf.Tensor3D, [
          [0, 0],
          [2, 1],
          [0, 0],
        ]),
    },
    {
      name: "global pooling that keeps axes",
      shapes: [[4, 5, 6]],
      layer: "GlobalAveragePooling2D",
      config: { keepdims: true },
      expected: ([x]) => tf.mean(x as tf.Tensor, [1, 2], true),
    },
    {
      name: "global pooling of volumes",
      shapes: [[3, 4, 5, 2]],
      layer: "GlobalMaxPooling3D",
      config: {},
      expected: ([x]) => tf.max(x as tf.Tensor, [1, 2, 3]),
    },
    {
      name: "relu with all that it can have",
      shapes: [[40]],
      layer: "ReLU",
      config: { max_value: 0.4, negative_slope: 0.2, threshold: 0.1 },
      expected: ([x]) =>
        tf.where(
          tf.greaterEqual(x as tf.Tensor, 0.1),
          tf.minimum(x as tf.Tensor, 0.4),
          tf.mul(tf.sub(x as tf.Tensor, 0.1), 0.2),
        ),
    },
    {
      name: "leaky relu",
      shapes: [[40]],
      layer: "LeakyReLU",
      config: { negative_slope: 0.15 },
      expected: ([x]) => tf.leakyRelu(x as tf.Tensor, 0.15),
    },
    {
      name: "elu with another slope",
      shapes: [[40]],
      layer: "ELU",
      config: { alpha: 0.5 },
      expected: ([x]) =>
        tf.where(tf.greater(x as tf.Tensor, 0), x as tf.Tensor, tf.mul(tf.expm1(x as tf.Tensor), 0.5)),
    },
    {
      name: "an activation that is a layer",
      shapes: [[5]],
      layer: "Dense",
      config: {
        units: 4,
        use_bias: false,
        activation: {
          module: "keras.layers",
          class_name: "LeakyReLU",
          config: { negative_slope: 0.1 },
          registered_name: null,
        },
      },
      weights: kernel([5, 4]),
      expected: ([x], [w]) => tf.leakyRelu(tf.matMul(x as tf.Tensor2D, w as tf.Tensor2D), 0.1),
    },
    {
      name: "attention of two heads",
      shapes: [
        [5, 6],
        [7, 6],
      ],
      layer: "MultiHeadAttention",
      config: { num_heads: 2, key_dim: 3, value_dim: 4 },
      weights: {
        "query_dense/vars/0": numbers(heads.query, 1),
        "query_dense/vars/1": numbers([2, 3], 2),
        "key_dense/vars/0": numbers(heads.key, 3),
        "key_dense/vars/1": numbers([2, 3], 4),
        "value_dense/vars/0": numbers(heads.value, 5),
        "value_dense/vars/1": numbers([2, 4], 6),
        "output_dense/vars/0": numbers([2, 4, 6], 7),
        "output_dense/vars/1": numbers([6], 8),
      },
      expected: ([x, y], [wq, bq, wk, bk, wv, bv, wo, bo]) => {
        const project = (of: tf.Tensor | undefined, w: tf.Tensor | undefined, b: tf.Tensor | undefined) =>
          tf.add(tf.einsum("bld,dhk->blhk", of as tf.Tensor, w as tf.Tensor), b as tf.Tensor);
        const scores = tf.einsum(
          "bthk,bshk->bhts",
          tf.mul(project(x, wq, bq), 1 / Math.sqrt(3)),
          project(y, wk, bk),
        );
        const mixed = tf.einsum("bhts,bshv->bthv", tf.softmax(scores), project(y, wv, bv));
        return tf.add(tf.einsum("bthv,hvo->bto", mixed, wo as tf.Tensor), bo as tf.Tensor);
      },
    },
    {
      name: "attention without weights",
      shapes: [
        [5, 6],
        [7, 6],
      ],
      layer: "Attention",
      config: { use_scale: false, score_mode: "dot" },
      expected: ([q, v]) =>
        tf.matMul(tf.softmax(tf.matMul(q as tf.Tensor3D, v as tf.Tensor3D, false, true)), v as tf.Tensor3D),
    },
  ];
  for (const [activation, compute] of Object.entries<(x: tf.Tensor) => tf.Tensor>({
    hard_sigmoid: (x) => tf.clipByValue(tf.add(tf.div(x, 6), 0.5), 0, 1),
    hard_silu: (x) => tf.mul(x, tf.clipByValue(tf.add(tf.div(x, 6), 0.5), 0, 1)),
    hard_tanh: (x) => tf.clipByValue(x, -1, 1),
    silu: (x) => tf.mul(x, tf.sigmoid(x)),
    gelu: (x) => tf.mul(tf.mul(x, 0.5), tf.add(tf.erf(tf.mul(x, Math.SQRT1_2)), 1)),
    mish: (x) => tf.mul(x, tf.tanh(tf.softplus(x))),
    exponential: (x) => tf.exp(x),
    leaky_relu: (x) => tf.leakyRelu(x, 0.2),
    celu: (x) => tf.elu(x),
    log_sigmoid: (x) => tf.logSigmoid(x),
    log_softmax: (x) => tf.logSoftmax(x),
    hard_shrink: (x) => tf.where(tf.greater(tf.abs(x), 0.5), x, tf.zerosLike(x)),
    soft_shrink: (x) => tf.mul(tf.sign(x), tf.relu(tf.sub(tf.abs(x), 0.5))),
    tanh_shrink: (x) => tf.sub(x, tf.tanh(x)),
    squareplus: (x) => tf.mul(tf.add(x, tf.sqrt(tf.add(tf.square(x), 4))), 0.5),
  }))
    CASES.push({
      name: `activation ${activation}`,
      shapes: [[40]],
      layer: "Activation",
      config: {
        activation: {
          module: "builtins",
          class_name: "function",
          config: activation,
          registered_name: "function",
        },
      },
      expected: ([x]) => compute(tf.mul(x as tf.Tensor, 1)),
    });

  it.each(CASES.map((each) => [each.name, each] as const))(
    "%s",
    async (_, { shapes, layer, config, weights = {}, expected }) => {
      const tensors = shapes.map((_, at) => ({
        class_name: "__keras_tensor__",
        config: { shape: [null], dtype: "float32", keras_history: [`in${at}`, 0, 0] },
      }));
      const isMerge = ["Add", "Subtract", "Attention"].includes(layer);
      const json = {
        module: "keras",
        class_name: "Functional",
        registered_name: "Functional",
        config: {
          name: "one",
          trainable: true,
          layers: [
            ...shapes.map((shape, at) => ({
              module: "keras.layers",
              class_name: "InputLayer",
              name: `in${at}`,
              config: { batch_shape: [null, ...shape], dtype: "float32", name: `in${at}` },
              registered_name: null,
              inbound_nodes: [],
            })),
            {
              module: "keras.layers",
              class_name: layer,
              name: "it",
              config: { name: "it", ...config },
              registered_name: null,
              inbound_nodes: [{ args: isMerge ? [tensors] : tensors, kwargs: {} }],
            },
          ],
          input_layers: shapes.map((_, at) => [`in${at}`, 0, 0]),
          output_layers: [["it", 0, 0]],
        },
      };
      const known: Record<string, string> = {
        Conv1DTranspose: "conv1d_transpose",
        Conv2DTranspose: "conv2d_transpose",
        LeakyReLU: "leaky_re_lu",
      };
      const snake = known[layer] ?? layer.replace(/(?<=[a-z0-9])(?=[A-Z][a-z])/g, "_").toLowerCase();
      const stored = Object.fromEntries(
        Object.entries(weights).map(([path, value]) => [`layers/${snake}/${path}`, value]),
      );
      const imported = await importKerasArchive(new ZipFolder(await kerasArchive(json, stored)));
      const inputs = new Map(
        [...randomInputs(imported, 9, 2)].map(([name, { shape, data }]) => [
          name,
          float32(
            shape,
            Float32Array.from(data as Float32Array, (each) => 4 * each - 2),
          ),
        ]),
      );
      const result = expected(
        [...inputs.values()].map(({ shape, data }) => tf.tensor(data as Float32Array, [...shape])),
        Object.values(weights).map(read),
      );
      await expectEqual(imported, inputs, [float32(result.shape, result.dataSync() as Float32Array)]);
    },
  );
});

describe("what cannot be imported", () => {
  const small = () => sequential({ layers: [layers.dense({ inputShape: [3], units: 2, name: "dense" })] });

  it("weights only: it says of which layers, and what is missing", async () => {
    const bytes = await writtenHdf5((file) => file.create_attribute("layer_names", ["conv1", "fc"]));
    expect(() => importKerasHdf5(bytes)).toThrow(
      /weights only, of the layers conv1, fc; what is missing is how/,
    );
    const three = await writtenHdf5((file) => file.create_group("layers").create_group("dense"));
    expect(() => importKerasHdf5(three)).toThrow(/weights only/);
    const other = await writtenHdf5((file) => file.create_group("measurements"));
    expect(() => importKerasHdf5(other)).toThrow(/no Keras model.*measurements/);
  });

  it("custom layers and Lambda, all named at once and never run", async () => {
    const config = {
      class_name: "Sequential",
      config: {
        name: "own",
        layers: [
          { class_name: "Dense", config: { name: "a", units: 1, batch_input_shape: [null, 2] } },
          {
            class_name: "Lambda",
            config: { name: "b", function: ["4wEAAAA=", null, null], function_type: "lambda" },
          },
          { class_name: "Squash", registered_name: "mine>Squash", config: { name: "c" } },
        ],
      },
    };
    const bytes = await kerasHdf5(small(), { config });
    expect(() => importKerasHdf5(bytes)).toThrow(
      expect.objectContaining({
        code: "MODEL_UNSUPPORTED",
        details: { layers: ["Lambda", "mine>Squash"], examples: { Lambda: "b", "mine>Squash": "c" } },
      }),
    );
  });

  it("a class of one's own that is called like one of Keras'", async () => {
    const config = {
      class_name: "Sequential",
      config: {
        name: "own",
        layers: [
          {
            class_name: "Dense",
            registered_name: "mine>Dense",
            config: { name: "a", units: 1, batch_input_shape: [null, 2] },
          },
        ],
      },
    };
    const bytes = await kerasHdf5(small(), { config });
    expect(() => importKerasHdf5(bytes)).toThrow(/mine>Dense/);
  });

  it("weights of another number or shape than the configuration says", async () => {
    const config = (layer: object) => ({
      class_name: "Sequential",
      config: {
        name: "s",
        layers: [
          {
            class_name: "Dense",
            config: { name: "dense", units: 2, batch_input_shape: [null, 3], ...layer },
          },
        ],
      },
    });
    const fewer = await kerasHdf5(small(), {
      config: config({ use_bias: false }),
      nameOf: ({ name }) => `x${name.length}`,
    });
    expect(() => importKerasHdf5(fewer)).toThrow(/dense.*2 weights in the file; its configuration needs 1/);
    const wider = await kerasHdf5(small(), { config: config({ batch_input_shape: [null, 4] }) });
    expect(() => importKerasHdf5(wider)).toThrow(/dense.*\[3, 2\].*\[batch, 4\]/);
  });

  it("models that were never built, circles, and models nested without end", async () => {
    const open = await kerasHdf5(small(), {
      config: {
        class_name: "Sequential",
        config: { name: "s", layers: [{ class_name: "Dense", config: { name: "dense", units: 2 } }] },
      },
    });
    expect(() => importKerasHdf5(open)).toThrow(/does not say which shape/);
    expect(importKerasHdf5(open, { inputShapes: { dense_input: [-1, 3] } }).model.graph.output).toHaveLength(
      1,
    );
    const node = (from: string) => [[[from, 0, 0, {}]]];
    const circle = {
      class_name: "Model",
      config: {
        name: "m",
        layers: [
          { class_name: "Flatten", name: "a", config: { name: "a" }, inbound_nodes: node("b") },
          { class_name: "Flatten", name: "b", config: { name: "b" }, inbound_nodes: node("a") },
        ],
        input_layers: [],
        output_layers: [["a", 0, 0]],
      },
    };
    const bytes = await kerasHdf5(small(), { config: circle });
    expect(() => importKerasHdf5(bytes)).toThrow(/circle/);
    let deep: object = {
      class_name: "Dense",
      config: { name: "dense", units: 2, batch_input_shape: [null, 3] },
    };
    for (let depth = 0; depth < 100; depth++)
      deep = { class_name: "Sequential", config: { name: `s${depth}`, layers: [deep] } };
    const nested = await kerasHdf5(small(), { config: deep });
    expect(() => importKerasHdf5(nested)).toThrow(/nested more than 32 deep/);
  });
});
