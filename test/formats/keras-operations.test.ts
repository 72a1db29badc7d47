/** What Keras models compute between their layers (preprocess_input and the like), against TF.js; and what is refused. */
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { layers, sequential } from "@tensorflow/tfjs-layers";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ZipFolder } from "../../src/base/zip-folder.js";
import { importKerasArchive, importKerasHdf5, type LayersImport } from "../../src/formats/index.js";
import type { Runtime } from "../../src/runtime/runtime.js";
import { float32, toNumbers } from "../../src/tensor/tensor.js";
import { kerasArchive, kerasHdf5 } from "./keras-files.js";
import { openRuntime, relativeError, runImported } from "./tfjs-oracle.js";

let runtime: Runtime;
beforeAll(async () => {
  await tf.setBackend("cpu");
  runtime = await openRuntime();
});
afterAll(() => runtime.close());

describe("operations between layers", () => {
  const image = {
    class_name: "InputLayer",
    name: "image",
    inbound_nodes: [],
    config: { name: "image", batch_input_shape: [null, 2, 3, 3], dtype: "float32" },
  };
  const head = { class_name: "GlobalAveragePooling2D", config: { name: "pool" }, name: "pool" };
  const pixels = float32(
    [2, 2, 3, 3],
    Float32Array.from({ length: 36 }, (_, at) => (at * 29) % 256),
  );
  const means = [103.939, 116.779, 123.68];

  /** What the function makes of every pixel, by TF.js, and the mean of that over the image. */
  async function expectMeans(imported: LayersImport, compute: (x: tf.Tensor) => tf.Tensor): Promise<void> {
    const [got] = await runImported(runtime, imported, new Map([["image", pixels]]));
    const expected = tf.mean(compute(tf.tensor([...toNumbers(pixels)], [2, 2, 3, 3])), [1, 2]);
    if (!got) throw new Error("There is no output.");
    expect(relativeError(got, float32([2, 3], Float32Array.from(await expected.data())))).toBeLessThanOrEqual(
      1e-6,
    );
  }

  const functional = (layers: object[], last: string) => ({
    class_name: "Functional",
    config: {
      name: "m",
      layers: [image, ...layers, { ...head, inbound_nodes: [[[last, 0, 0, {}]]] }],
      input_layers: [["image", 0, 0]],
      output_layers: [["pool", 0, 0]],
    },
  });
  const lambda = (name: string, from: unknown, options: object, className = "TFOpLambda") => ({
    class_name: className,
    name: `tf.${name}`,
    config: { name: `tf.${name}`, trainable: true, dtype: "float32", function: name },
    inbound_nodes: [[...(Array.isArray(from) ? from : [from, 0, 0]), options]],
  });
  const imported = async (made: object[], last: string) =>
    importKerasHdf5(
      await kerasHdf5(sequential({ layers: [layers.dense({ inputShape: [2], units: 1 })] }), {
        config: functional(made, last),
      }),
    );

  it("of Keras 2: what preprocess_input writes for MobileNet, and what EfficientNet and MobileNetV3 hold", async () => {
    const scaled = [
      lambda("math.truediv", "image", { y: 127.5, name: null }),
      lambda("math.subtract", "tf.math.truediv", { y: 1, name: null }),
      lambda("math.multiply", "tf.math.subtract", { y: [[[[1, 2, 3]]]] }),
      lambda("__operators__.add", "tf.math.multiply", { y: ["tf.math.subtract", 0, 0], name: null }),
      lambda("nn.relu6", "tf.__operators__.add", { name: null }),
    ];
    await expectMeans(await imported(scaled, "tf.nn.relu6"), (x) => {
      const unit = tf.sub(tf.div(x, 127.5), 1);
      return tf.relu6(tf.add(tf.mul(unit, [1, 2, 3]), unit));
    });
  });

  it("of Keras 2: what preprocess_input writes for ResNet and VGG", async () => {
    const caffe = [
      lambda(
        "__operators__.getitem",
        "image",
        { slice_spec: [{ class_name: "__ellipsis__" }, { start: null, stop: null, step: -1 }] },
        "SlicingOpLambda",
      ),
      lambda("nn.bias_add", "tf.__operators__.getitem", {
        bias: means.map((mean) => -mean),
        data_format: "channels_last",
        name: null,
      }),
    ];
    await expectMeans(await imported(caffe, "tf.nn.bias_add"), (x) => tf.sub(tf.reverse(x, 3), means));
  });

  it("of Keras 2: a number that stands first", async () => {
    const turned = [
      lambda("math.subtract", ["_CONSTANT_VALUE", -1, 255], { y: ["image", 0, 0], name: null }),
    ];
    await expectMeans(await imported(turned, "tf.math.subtract"), (x) => tf.sub(255, x));
  });

  it("of Keras 3, with numbers in either place", async () => {
    const tensor = (name: string) => ({
      class_name: "__keras_tensor__",
      config: { shape: [null, 2, 3, 3], dtype: "float32", keras_history: [name, 0, 0] },
    });
    const operation = (className: string, name: string, args: unknown[]) => ({
      module: "keras.src.ops.numpy",
      class_name: className,
      registered_name: className,
      name,
      config: { name },
      inbound_nodes: [{ args, kwargs: {} }],
    });
    const nodes = [
      operation("TrueDivide", "divide", [tensor("image"), 127.5]),
      operation("Subtract", "subtract", [1, tensor("divide")]),
      operation("Multiply", "multiply", [tensor("subtract"), tensor("divide")]),
    ];
    const config = functional(nodes, "multiply");
    config.config.layers = config.config.layers.map((layer) =>
      "module" in layer ? layer : { ...layer, module: "keras.layers" },
    );
    const made = await importKerasArchive(new ZipFolder(await kerasArchive(config, {})));
    await expectMeans(made, (x) => tf.mul(tf.sub(1, tf.div(x, 127.5)), tf.div(x, 127.5)));
  });

  it("that are not known are refused by their functions' names, and so are layers that Keras quantised", async () => {
    const others = [
      lambda("math.top_k", "image", { k: 2 }),
      lambda("math.subtract", "tf.math.top_k", { y: "os.system" }),
    ];
    await expect(imported(others, "tf.math.subtract")).rejects.toMatchObject({
      code: "MODEL_UNSUPPORTED",
      details: { layers: ["TFOpLambda math.top_k"] },
    });
    await expect(
      imported([lambda("math.subtract", "image", { y: "os.system" })], "tf.math.subtract"),
    ).rejects.toThrow(/no number.*os\.system/);
    const part = { slice_spec: [{ class_name: "__ellipsis__" }, { start: 1, stop: null, step: null }] };
    await expect(
      imported(
        [lambda("__operators__.getitem", "image", part, "SlicingOpLambda")],
        "tf.__operators__.getitem",
      ),
    ).rejects.toThrow(/part of a value/);
    const dtype = {
      module: "keras",
      class_name: "QuantizedDTypePolicy",
      config: { mode: "int8", source_name: "float32" },
    };
    const dense = {
      module: "keras.layers",
      class_name: "Dense",
      config: { name: "dense", units: 2, batch_input_shape: [null, 3], dtype },
    };
    const bytes = await kerasArchive(
      { module: "keras", class_name: "Sequential", config: { name: "s", layers: [dense] } },
      {
        "layers/dense/vars/0": { shape: [3, 2], data: new Float32Array(6) },
        "layers/dense/vars/1": { shape: [2], data: new Float32Array(2) },
      },
    );
    await expect(importKerasArchive(new ZipFolder(bytes))).rejects.toThrow(/quantised \(int8\)/);
  });
});
