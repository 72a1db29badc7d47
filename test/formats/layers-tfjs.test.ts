/** Every layer that TF.js has and the import covers, with its options and in models of every form, against TF.js. */
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { input, layers, model, type Sequential, type Shape, sequential } from "@tensorflow/tfjs-layers";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { importTfjsLayers } from "../../src/formats/index.js";
import type { Runtime } from "../../src/runtime/runtime.js";
import { tensor } from "../../src/tensor/tensor.js";
import { expectSame, loadedModel, predict, randomise, savedFiles } from "./layers-oracle.js";
import { openRuntime, randomInputs, relativeError, runImported } from "./tfjs-oracle.js";

type Layer = Parameters<Sequential["add"]>[0];

let runtime: Runtime;
beforeAll(async () => {
  await tf.setBackend("cpu");
  runtime = await openRuntime();
});
afterAll(() => runtime.close());

const IMAGE = [9, 8, 4];
const OPEN = [null, null, 4];
const ROW = [12];
const SEQUENCE = [7, 6];
const VOLUME = [5, 6, 4, 3];

/** One layer alone in a model. */
function alone(shape: Shape, layer: Layer): Sequential {
  const made = sequential();
  made.add(layers.inputLayer({ inputShape: shape }));
  made.add(layer);
  randomise(made);
  return made;
}

const PADDINGS = ["valid", "same"] as const;
const FIRST = "channelsFirst" as const;

/** Layers on values between -4 and 4. */
const CASES: [name: string, shape: Shape, make: () => Layer][] = [
  ["dense", ROW, () => layers.dense({ units: 5 })],
  ["dense without bias", ROW, () => layers.dense({ units: 5, useBias: false })],
  ["dense over sequences", SEQUENCE, () => layers.dense({ units: 5, activation: "relu" })],
  ["dense over images", IMAGE, () => layers.dense({ units: 5 })],
  ["flatten", IMAGE, () => layers.flatten()],
  ["flatten channels first", IMAGE, () => layers.flatten({ dataFormat: FIRST })],
  ["reshape", IMAGE, () => layers.reshape({ targetShape: [6, -1, 3] })],
  ["reshape open", IMAGE, () => layers.reshape({ targetShape: [-1] })],
  ["permute", IMAGE, () => layers.permute({ dims: [3, 1, 2] })],
  ["permute inner", IMAGE, () => layers.permute({ dims: [2, 1, 3] })],
  ["repeat vector", ROW, () => layers.repeatVector({ n: 3 })],
  ["dropout", ROW, () => layers.dropout({ rate: 0.5 })],
  ["spatial dropout", SEQUENCE, () => layers.spatialDropout1d({ rate: 0.5 })],
  ["gaussian noise", ROW, () => layers.gaussianNoise({ stddev: 1 })],
  ["gaussian dropout", ROW, () => layers.gaussianDropout({ rate: 0.5 })],
  ["alpha dropout", ROW, () => layers.alphaDropout({ rate: 0.5 })],

  ["relu layer", IMAGE, () => layers.reLU()],
  ["relu layer to a level", IMAGE, () => layers.reLU({ maxValue: 1.5 })],
  ["leaky relu", IMAGE, () => layers.leakyReLU({ alpha: 0.2 })],
  ["leaky relu by default", IMAGE, () => layers.leakyReLU()],
  ["elu", IMAGE, () => layers.elu({ alpha: 1 })],
  ["thresholded relu", IMAGE, () => layers.thresholdedReLU({ theta: 0.7 })],
  ["softmax layer", ROW, () => layers.softmax({ axis: -1 })],
  ["prelu", IMAGE, () => layers.prelu()],
  ["prelu with shared axes", IMAGE, () => layers.prelu({ sharedAxes: [1, 2] })],

  ["batch normalisation of images", IMAGE, () => layers.batchNormalization()],
  ["batch normalisation of rows", ROW, () => layers.batchNormalization({ epsilon: 0.1 })],
  ["batch normalisation of sequences", SEQUENCE, () => layers.batchNormalization()],
  ["batch normalisation bare", IMAGE, () => layers.batchNormalization({ scale: false, center: false })],
  ["batch normalisation unscaled", IMAGE, () => layers.batchNormalization({ scale: false })],
  ["layer normalisation", SEQUENCE, () => layers.layerNormalization()],
  [
    "layer normalisation over two axes",
    IMAGE,
    () => layers.layerNormalization({ axis: [2, 3], epsilon: 0.2 }),
  ],
  ["layer normalisation over apart axes", IMAGE, () => layers.layerNormalization({ axis: [1, 3] })],
  ["layer normalisation bare", IMAGE, () => layers.layerNormalization({ scale: false, center: false })],

  ["zero padding", IMAGE, () => layers.zeroPadding2d({ padding: 2 })],
  [
    "zero padding uneven",
    IMAGE,
    () =>
      layers.zeroPadding2d({
        padding: [
          [0, 1],
          [2, 3],
        ],
      }),
  ],
  ["zero padding channels first", IMAGE, () => layers.zeroPadding2d({ padding: [1, 2], dataFormat: FIRST })],
  [
    "cropping",
    IMAGE,
    () =>
      layers.cropping2D({
        cropping: [
          [1, 0],
          [2, 3],
        ],
      }),
  ],
  [
    "cropping channels first",
    IMAGE,
    () =>
      layers.cropping2D({
        cropping: [
          [1, 2],
          [0, 1],
        ],
        dataFormat: FIRST,
      }),
  ],
  ["upsampling", IMAGE, () => layers.upSampling2d({ size: [2, 3] })],
  ["upsampling by lines", IMAGE, () => layers.upSampling2d({ size: [2, 3], interpolation: "bilinear" })],
  ["upsampling channels first", IMAGE, () => layers.upSampling2d({ size: [2, 2], dataFormat: FIRST })],
  ["rescaling", IMAGE, () => layers.rescaling({ scale: 1 / 127.5, offset: -1 })],

  ["global average pooling", IMAGE, () => layers.globalAveragePooling2d({})],
  [
    "global average pooling channels first",
    IMAGE,
    () => layers.globalAveragePooling2d({ dataFormat: FIRST }),
  ],
  ["global max pooling", IMAGE, () => layers.globalMaxPooling2d({})],
  ["global average pooling of sequences", SEQUENCE, () => layers.globalAveragePooling1d()],
  ["global max pooling of sequences", SEQUENCE, () => layers.globalMaxPooling1d()],

  ["time distributed dense", SEQUENCE, () => layers.timeDistributed({ layer: layers.dense({ units: 4 }) })],
  [
    "time distributed convolution",
    [3, 9, 8, 4],
    () => layers.timeDistributed({ layer: layers.conv2d({ filters: 2, kernelSize: 3 }) }),
  ],
];

for (const activation of [
  ...([
    "elu",
    "gelu",
    "gelu_new",
    "hardSigmoid",
    "linear",
    "logSoftmax",
    "mish",
    "relu",
    "relu6",
    "selu",
  ] as const),
  ...(["sigmoid", "softmax", "softplus", "softsign", "swish", "tanh"] as const),
]) {
  const kind = activation as "relu";
  CASES.push([`activation ${activation}`, SEQUENCE, () => layers.activation({ activation: kind })]);
  CASES.push([
    `convolution with ${activation}`,
    IMAGE,
    () => layers.conv2d({ filters: 3, kernelSize: 2, activation: kind }),
  ]);
}

for (const padding of PADDINGS) {
  for (const strides of [1, 2, 3]) {
    for (const kernelSize of [1, 2, 3, 5]) {
      const way = `${padding} kernel ${kernelSize} stride ${strides}`;
      const base = { kernelSize, strides, padding };
      CASES.push([`conv2d ${way}`, IMAGE, () => layers.conv2d({ filters: 3, ...base })]);
      CASES.push([`conv1d ${way}`, SEQUENCE, () => layers.conv1d({ filters: 3, ...base })]);
      CASES.push([`depthwise ${way}`, IMAGE, () => layers.depthwiseConv2d({ depthMultiplier: 2, ...base })]);
      CASES.push([`transposed ${way}`, IMAGE, () => layers.conv2dTranspose({ filters: 3, ...base })]);
      CASES.push([
        `max pooling ${way}`,
        IMAGE,
        () => layers.maxPooling2d({ poolSize: kernelSize, strides, padding }),
      ]);
      CASES.push([
        `average pooling ${way}`,
        IMAGE,
        () => layers.averagePooling2d({ poolSize: kernelSize, strides, padding }),
      ]);
      CASES.push([`conv2d of open size ${way}`, OPEN, () => layers.conv2d({ filters: 3, ...base })]);
      if (kernelSize === 3) {
        CASES.push([`conv3d ${way}`, VOLUME, () => layers.conv3d({ filters: 3, ...base })]);
        CASES.push([`transposed 3d ${way}`, VOLUME, () => layers.conv3dTranspose({ filters: 3, ...base })]);
        CASES.push([
          `separable ${way}`,
          IMAGE,
          () => layers.separableConv2d({ filters: 3, depthMultiplier: 2, ...base }),
        ]);
        CASES.push([
          `max pooling 1d ${way}`,
          SEQUENCE,
          () => layers.maxPooling1d({ poolSize: kernelSize, strides, padding }),
        ]);
        CASES.push([
          `average pooling 1d ${way}`,
          SEQUENCE,
          () => layers.averagePooling1d({ poolSize: kernelSize, strides, padding }),
        ]);
        CASES.push([
          `max pooling 3d ${way}`,
          VOLUME,
          () => layers.maxPooling3d({ poolSize: 3, strides, padding }),
        ]);
        CASES.push([
          `average pooling 3d ${way}`,
          VOLUME,
          () => layers.averagePooling3d({ poolSize: 3, strides, padding }),
        ]);
      }
    }
  }
  CASES.push([
    `dilated ${padding}`,
    IMAGE,
    () => layers.conv2d({ filters: 3, kernelSize: 3, dilationRate: 2, padding }),
  ]);
  CASES.push([
    `dilated sequence ${padding}`,
    SEQUENCE,
    () => layers.conv1d({ filters: 3, kernelSize: 2, dilationRate: 3, padding }),
  ]);
  CASES.push([
    `uneven window ${padding}`,
    IMAGE,
    () => layers.conv2d({ filters: 3, kernelSize: [2, 5], strides: [3, 1], padding }),
  ]);
  CASES.push([
    `conv2d channels first ${padding}`,
    [4, 9, 8],
    () => layers.conv2d({ filters: 3, kernelSize: 3, strides: 2, padding, dataFormat: FIRST }),
  ]);
  CASES.push([
    `pooling channels first ${padding}`,
    [4, 9, 8],
    () => layers.maxPooling2d({ poolSize: 2, padding, dataFormat: FIRST }),
  ]);
  CASES.push([
    `depthwise channels first ${padding}`,
    [4, 9, 8],
    () => layers.depthwiseConv2d({ kernelSize: 3, padding, dataFormat: FIRST }),
  ]);
}
CASES.push(["pooling by default", IMAGE, () => layers.maxPooling2d({})]);

describe("layers that stand alone", () => {
  it.each(CASES)("%s", async (_, shape, make) => {
    await expectSame(runtime, alone(shape, make()), {
      open: shape === OPEN ? 7 : 2,
      scale: 4,
      centred: true,
    });
  });

  it("embedding", async () => {
    const made = sequential({ layers: [layers.embedding({ inputDim: 10, outputDim: 4, inputLength: 5 })] });
    randomise(made);
    const rows = [tensor("int32", [2, 5], Int32Array.of(0, 1, 2, 9, 4, 5, 6, 7, 8, 9))];
    await expectSame(runtime, made, { rows });
  });

  it("pads open sizes of every remainder as TF.js does", async () => {
    const made = sequential({
      layers: [
        layers.conv2d({
          inputShape: [null, null, 2],
          filters: 2,
          kernelSize: 3,
          strides: 2,
          padding: "same",
        }),
        layers.maxPooling2d({ poolSize: 3, strides: 2, padding: "same" }),
      ],
    });
    randomise(made);
    for (const open of [4, 5, 6, 7, 8, 9]) await expectSame(runtime, made, { open });
  });
});

describe("merges", () => {
  const MERGES: [name: string, shapes: Shape[], make: () => Layer][] = [
    ["add", [IMAGE, IMAGE, IMAGE], () => layers.add()],
    ["multiply", [IMAGE, IMAGE], () => layers.multiply()],
    ["average", [IMAGE, IMAGE, IMAGE], () => layers.average()],
    ["maximum", [ROW, ROW, ROW], () => layers.maximum()],
    ["minimum", [ROW, ROW], () => layers.minimum()],
    ["concatenate", [IMAGE, IMAGE], () => layers.concatenate()],
    ["concatenate along an inner axis", [IMAGE, [2, 8, 4]], () => layers.concatenate({ axis: 1 })],
    ["dot of rows", [ROW, ROW], () => layers.dot({ axes: -1 })],
    ["dot normalised", [ROW, ROW], () => layers.dot({ axes: 1, normalize: true })],
    [
      "dot of sequences",
      [
        [4, 6],
        [5, 6],
      ],
      () => layers.dot({ axes: 2 }),
    ],
    [
      "dot along different axes",
      [
        [4, 6],
        [6, 5],
      ],
      () => layers.dot({ axes: [2, 1] }),
    ],
    ["dot of a sequence and a row", [[4, 6], [6]], () => layers.dot({ axes: [2, 1] })],
  ];
  it.each(MERGES)("%s", async (_, shapes, make) => {
    const inputs = shapes.map((shape) => input({ shape }));
    const made = model({ inputs, outputs: make().apply(inputs) as ReturnType<typeof input> });
    await expectSame(runtime, made, { scale: 4, centred: true });
  });

  it("merges what convolutions made without turning it", async () => {
    const image = input({ shape: IMAGE });
    const conv = (value: ReturnType<typeof input>) =>
      layers
        .conv2d({ filters: 4, kernelSize: 3, padding: "same", activation: "relu" })
        .apply(value) as typeof image;
    const merged = layers
      .concatenate()
      .apply([layers.add().apply([conv(image), conv(image)]) as typeof image, conv(image)]);
    const pooled = layers.globalAveragePooling2d({}).apply(conv(merged as typeof image)) as typeof image;
    const made = model({ inputs: image, outputs: pooled });
    randomise(made);
    const imported = await expectSame(runtime, made);
    expect(imported.model.graph.node.filter(({ opType }) => opType === "Transpose")).toHaveLength(1);
  });
});

describe("models of every form", () => {
  type Symbolic = ReturnType<typeof input>;
  const apply = (layer: Layer | Sequential, value: Symbolic | Symbolic[]) => layer.apply(value) as Symbolic;

  it("several inputs and outputs, in their order and by name", async () => {
    const [image, row] = [input({ shape: IMAGE, name: "photo" }), input({ shape: ROW, name: "facts" })];
    const features = apply(
      layers.globalAveragePooling2d({}),
      apply(layers.conv2d({ filters: 4, kernelSize: 3 }), image),
    );
    const both = apply(layers.concatenate(), [row, features]);
    const outputs = [
      apply(layers.dense({ units: 2, name: "second" }), both),
      apply(layers.dense({ units: 3, name: "first" }), features),
    ];
    const made = model({ inputs: [image, row], outputs });
    randomise(made);
    const { model: onnx } = await expectSame(runtime, made);
    expect(onnx.graph.input.map(({ name }) => name)).toEqual(["photo", "facts"]);
    expect(onnx.graph.output.map(({ name }) => name)).toEqual(["second", "first"]);
  });

  it("a layer that is called several times has its weights once", async () => {
    const [a, b] = [input({ shape: ROW }), input({ shape: ROW })];
    const shared = layers.dense({ units: 12, name: "shared" });
    const difference = apply(layers.average(), [apply(shared, apply(shared, a)), apply(shared, b)]);
    const made = model({ inputs: [a, b], outputs: difference });
    randomise(made);
    const { model: onnx } = await expectSame(runtime, made);
    expect(onnx.graph.initializer.filter(({ name }) => name.startsWith("shared/kernel"))).toHaveLength(1);
  });

  it("models within models, one of them called twice", async () => {
    const inner = sequential({
      name: "tower",
      layers: [
        layers.conv2d({ inputShape: IMAGE, filters: 3, kernelSize: 3, activation: "relu" }),
        layers.globalMaxPooling2d({}),
      ],
    });
    const outer = sequential({ name: "encoder", layers: [inner, layers.dense({ units: 6 })] });
    const [a, b] = [input({ shape: IMAGE }), input({ shape: IMAGE })];
    const made = model({
      inputs: [a, b],
      outputs: apply(layers.multiply(), [apply(outer, a), apply(outer, b)]),
    });
    randomise(made);
    await expectSame(runtime, made);
  });

  it("a functional model with several outputs within another", async () => {
    const row = input({ shape: ROW });
    const [left, right] = [apply(layers.dense({ units: 4 }), row), apply(layers.dense({ units: 4 }), row)];
    const inner = model({ inputs: row, outputs: [left, right] });
    const start = input({ shape: ROW });
    const [one, two] = inner.apply(start) as Symbolic[];
    if (!one || !two) throw new Error("The inner model has two outputs.");
    const made = model({ inputs: start, outputs: [apply(layers.minimum(), [one, two]), two] });
    randomise(made);
    await expectSame(runtime, made);
  });

  it("an output that is the input, and one value given out twice", async () => {
    const row = input({ shape: ROW, name: "row" });
    const made = model({
      inputs: row,
      outputs: [row, apply(layers.dense({ units: 3, name: "dense" }), row)],
    });
    randomise(made);
    const { model: onnx } = await expectSame(runtime, made);
    expect(onnx.graph.output.map(({ name }) => name)).toEqual(["row_1", "dense"]);
  });

  it("weights quantised to halves and bytes, as the converter writes them", async () => {
    const made = alone(ROW, layers.dense({ units: 5 }));
    const folder = await savedFiles(made);
    const json = JSON.parse(new TextDecoder().decode(await folder.read("model.json")));
    const specs: tf.io.WeightsManifestEntry[] = json.weightsManifest[0].weights;
    for (const spec of specs) spec.quantization = { dtype: "uint8", scale: 0.01, min: -0.5 };
    const bytes = Uint8Array.from({ length: 65 }, (_, at) => (at * 37) % 256);
    const { MemoryFolder } = await import("../../src/base/folder.js");
    const small = new MemoryFolder({
      "model.json": new TextEncoder().encode(JSON.stringify(json)),
      "weights.bin": bytes,
    });
    const imported = await importTfjsLayers(small, "model.json");
    const inputs = randomInputs(imported, 1, 2);
    const [expected] = await predict(await loadedModel(small), [...inputs.values()]);
    const [got] = await runImported(runtime, imported, inputs);
    if (!got || !expected) throw new Error("There is no output.");
    expect(relativeError(got, expected)).toBeLessThanOrEqual(1e-4);
  });
});
