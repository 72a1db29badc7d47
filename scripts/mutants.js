/**
 * Breaks files at random and imports them: PyTorch pickles (the fixtures of the tests) and Keras HDF5 files (written by
 * h5wasm). Every import must end with a model or an error of the catalogue; the slowest one and the growth of memory are printed.
 * Needs `npm run build`. Ends with status 1 when a mutant did anything else, took longer than 10 seconds, or 512 MiB more.
 *
 *     node scripts/mutants.js [NUMBER OF EACH]
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { unzipSync, zipSync } from "fflate";
import { FS, File as H5File, ready } from "h5wasm/node";
import { PolyheadError } from "../dist/base/errors.js";
import { isZip } from "../dist/base/zip.js";
import { importKerasHdf5, importTorch } from "../dist/formats/index.js";

const EACH = Number(process.argv[2] ?? 10_000);
const SLOWEST_ALLOWED = 10_000;
const GROWTH_ALLOWED = 2 ** 29;
/** What the fixtures that call something would write. */
const TRACE = "/tmp/polyhead_ran";

let state = 2026;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
const below = (/** @type {number} */ limit) => Math.floor(random() * limit);

await ready;
const before = process.memoryUsage().rss;
const pickles = torchFiles();
let failed = existsSync(TRACE);
run("PyTorch pickles", pickles, importTorch, pickled);
run("Keras HDF5 files", [kerasFile(false), kerasFile(true)], importKerasHdf5, structural);
if (existsSync(TRACE)) {
  console.log(`${TRACE} exists: something of a file ran`);
  failed = true;
}
process.exit(failed ? 1 : 0);

/**
 * @param {string} what
 * @param {readonly Uint8Array[]} files
 * @param {(bytes: Uint8Array) => unknown} read
 * @param {(bytes: Uint8Array) => Uint8Array} mutate
 */
function run(what, files, read, mutate) {
  const ends = new Map();
  let [slowest, most] = [0, 0];
  for (let count = 0; count < EACH; count++) {
    const bytes = mutate(files[count % files.length] ?? new Uint8Array());
    const start = performance.now();
    let end = "imported";
    try {
      read(bytes);
    } catch (thrown) {
      end =
        thrown instanceof PolyheadError
          ? thrown.code
          : `UNEXPECTED ${thrown instanceof Error ? thrown.stack : thrown}`;
      if (!(thrown instanceof PolyheadError) || thrown.code === "INTERNAL") {
        failed = true;
        console.log(`mutant ${count}: ${end}`);
      }
    }
    slowest = Math.max(slowest, performance.now() - start);
    most = Math.max(most, process.memoryUsage().rss - before);
    ends.set(end, (ends.get(end) ?? 0) + 1);
  }
  if (slowest > SLOWEST_ALLOWED || most > GROWTH_ALLOWED) failed = true;
  const told = [...ends].sort(([, a], [, b]) => b - a).map(([end, times]) => `${end} ${times}`);
  console.log(
    `${EACH} ${what}: ${told.join(", ")}; slowest ${slowest.toFixed(0)} ms, memory at most ${(most / 2 ** 20).toFixed(0)} MiB more`,
  );
}

function torchFiles() {
  const folder = fileURLToPath(new URL("../test/fixtures/torch/", import.meta.url));
  return readdirSync(folder)
    .filter((name) => /\.(pth|pkl)$/.test(name) && name !== "layers.pth")
    .map((name) => new Uint8Array(readFileSync(folder + name)));
}

/** A small whole Keras model; in chunks with gzip, or in one piece. */
function kerasFile(/** @type {boolean} */ isChunked) {
  const file = new H5File("/model.h5", "w");
  const layer = (/** @type {string} */ class_name, /** @type {object} */ config) => ({ class_name, config });
  const layers = [
    layer("Conv2D", {
      name: "conv",
      batch_input_shape: [null, 8, 8, 3],
      filters: 4,
      kernel_size: [3, 3],
      padding: "same",
      activation: "relu",
    }),
    layer("Flatten", { name: "flat" }),
    layer("Dense", { name: "dense", units: 5, activation: "softmax" }),
  ];
  file.create_attribute("keras_version", "2.9.0");
  file.create_attribute("backend", "tensorflow");
  file.create_attribute(
    "model_config",
    JSON.stringify({ class_name: "Sequential", config: { name: "s", layers } }),
  );
  const weights = file.create_group("model_weights");
  weights.create_attribute("layer_names", ["conv", "flat", "dense"]);
  const shapes = { conv: [[3, 3, 3, 4], [4]], flat: [], dense: [[256, 5], [5]] };
  for (const [name, own] of Object.entries(shapes)) {
    const group = weights.create_group(name);
    const names = ["kernel", "bias"].slice(0, own.length).map((part) => `${name}/${part}:0`);
    if (names.length === 0) continue;
    group.create_attribute("weight_names", names);
    const inner = group.create_group(name);
    own.forEach((shape, at) => {
      const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, random);
      const options = isChunked ? { chunks: shape, compression: 4 } : {};
      inner.create_dataset({ name: at === 0 ? "kernel:0" : "bias:0", data, shape, dtype: "<f4", ...options });
    });
  }
  file.close();
  if (!FS) throw new Error("h5wasm has no files");
  return Uint8Array.from(FS.readFile("/model.h5"));
}

/**
 * A few random changes: other bytes, flipped bits, bytes put in, taken out and moved, an end cut off.
 * @param {Uint8Array} bytes
 * @param {(length: number) => number} at where to change something
 */
function mutated(bytes, at) {
  let made = [...bytes];
  for (let changes = 1 + below(4); changes > 0; changes--) {
    const place = at(made.length);
    const from = below(made.length);
    const part = made.slice(from, from + below(40));
    const kind = below(7);
    if (kind === 0) made[place] = below(256);
    else if (kind === 1) made[place] = (made[place] ?? 0) ^ (1 << below(8));
    else if (kind === 2) made.splice(place, 0, below(256));
    else if (kind === 3) made.splice(place, part.length);
    else if (kind === 4) made.splice(place, part.length, ...part);
    else if (kind === 5) made.splice(place, Math.min(8, made.length - place), ...Array(8).fill(255));
    else if (below(4) === 0) made = made.slice(0, place);
    else made[place] = 255;
    if (made.length === 0) made = [0];
  }
  return Uint8Array.from(made);
}

/** The pickle within an archive, the archive around it whole; or any byte of the file. */
function pickled(/** @type {Uint8Array} */ bytes) {
  if (!isZip(bytes) || random() < 0.2) return mutated(bytes, below);
  const entries = Object.entries(unzipSync(bytes)).map(([name, content]) => [
    name,
    name.endsWith("/data.pkl") ? mutated(content, below) : content,
  ]);
  return zipSync(Object.fromEntries(entries), { level: random() < 0.1 ? 6 : 0 });
}

/** Bytes that are not zero are mostly structure, where changes matter; a few changes fall anywhere. */
function structural(/** @type {Uint8Array} */ bytes) {
  return mutated(bytes, (length) => {
    for (let tries = 0; tries < 20; tries++) {
      const place = below(length);
      if (bytes[place] !== 0 && (place < 3000 || random() < 0.3)) return place;
    }
    return below(length);
  });
}
