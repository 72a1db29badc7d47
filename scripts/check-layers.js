// Holds the folders of src/ to one direction of imports, keeps Node out of the portable core and finds cycles
// between files. Usage: node scripts/check-layers.js [project folder]
import { readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { lineAt, report, sourceFiles } from "./source-files.js";

/** What each folder may import beside itself, lowest first; sources directly in src/ may import all. */
/** @type {Readonly<Record<string, readonly string[]>>} */
const LAYERS = {
  base: [],
  tensor: ["base"],
  onnx: ["base", "tensor"],
  formats: ["base", "tensor", "onnx"],
  files: ["base", "tensor", "onnx"],
  runtime: ["base", "tensor", "onnx"],
  engine: ["base", "tensor", "onnx", "runtime"],
  vision: ["base", "tensor", "onnx"],
  data: ["base", "tensor", "onnx", "files", "vision"],
  train: ["base", "tensor", "onnx", "runtime"],
  teach: ["base", "tensor", "onnx", "files", "runtime", "engine", "vision", "data"],
  adapt: ["base", "tensor", "onnx", "files", "runtime", "engine", "vision", "data", "train", "teach"],
  report: ["base", "tensor", "onnx", "vision"],
  tune: [
    "base",
    "tensor",
    "onnx",
    "files",
    "runtime",
    "engine",
    "vision",
    "data",
    "train",
    "teach",
    "adapt",
    "report",
  ],
  plan: [
    "base",
    "tensor",
    "onnx",
    "files",
    "runtime",
    "engine",
    "vision",
    "data",
    "teach",
    "adapt",
    "report",
    "train",
    "tune",
  ],
  store: ["base", "tensor", "onnx", "files"],
  server: [
    "base",
    "tensor",
    "onnx",
    "files",
    "runtime",
    "engine",
    "vision",
    "data",
    "teach",
    "adapt",
    "report",
    "plan",
    "store",
  ],
  cli: [
    "base",
    "tensor",
    "onnx",
    "formats",
    "files",
    "runtime",
    "engine",
    "vision",
    "data",
    "teach",
    "adapt",
    "report",
    "plan",
    "train",
    "tune",
    "store",
    "server",
    "index.ts",
  ],
};

/** These folders also run in a browser, except for what stands below `NODE_ONLY`. */
const PORTABLE = new Set(["base", "tensor", "onnx", "formats", "runtime", "engine", "train"]);
const NODE_ONLY = "src/runtime/node/";
const NODE_PACKAGES = new Set(["sharp", "onnxruntime-node", ...builtinModules]);

const root = process.argv[2] ?? fileURLToPath(new URL("..", import.meta.url));
const files = sourceFiles(root);
const imports = new Map(files.map((file) => [file, readImports(file)]));
report("check-layers", [...offences(), ...cycles()]);

/** All imports of a file, type-only, dynamic and re-exported ones included. */
function readImports(/** @type {string} */ file) {
  const text = readFileSync(join(root, file), "utf8");
  return ts.preProcessFile(text, true, true).importedFiles.map(({ fileName, pos }) => ({
    specifier: fileName,
    target: fileName.startsWith(".") ? resolve(file, fileName) : undefined,
    line: lineAt(text, pos),
  }));
}

/**
 * The source that a relative import means, as a path from the project's folder.
 * @param {string} file
 * @param {string} specifier
 */
function resolve(file, specifier) {
  return posix.join(posix.dirname(file), specifier).replace(/\.js$/, ".ts");
}

/** The folder of src/ that a source belongs to, or the file's own name when it stands directly in src/. */
function layerOf(/** @type {string} */ file) {
  return file.split("/")[1] ?? file;
}

function isPortable(/** @type {string} */ file) {
  return PORTABLE.has(layerOf(file)) && !file.startsWith(NODE_ONLY);
}

function* offences() {
  for (const [file, list] of imports) {
    const layer = layerOf(file);
    const inFolder = file.split("/").length > 2;
    if (inFolder && !(layer in LAYERS)) {
      yield `${file}:1 imports nothing known: src/${layer} has no row in scripts/check-layers.js`;
      continue;
    }
    for (const { specifier, target, line } of list) {
      const why = target ? whyNotSource(file, target, inFolder) : whyNotPackage(file, specifier);
      if (why) yield `${file}:${line} imports ${specifier}: ${why}`;
    }
  }
}

/**
 * @param {string} file
 * @param {string} target
 * @param {boolean} inFolder
 */
function whyNotSource(file, target, inFolder) {
  if (!target.startsWith("src/")) return "sources import nothing outside of src/";
  const [from, to] = [layerOf(file), layerOf(target)];
  if (inFolder && from !== to && !LAYERS[from]?.includes(to)) {
    return `src/${from} may import only ${LAYERS[from]?.join(", ") || "itself"}`;
  }
  if (isPortable(file) && target.startsWith(NODE_ONLY)) {
    return `src/${from} also runs in a browser, ${NODE_ONLY} does not`;
  }
  return undefined;
}

/**
 * @param {string} file
 * @param {string} specifier
 */
function whyNotPackage(file, specifier) {
  const name = specifier.split("/")[0] ?? "";
  const needsNode = specifier.startsWith("node:") || NODE_PACKAGES.has(name);
  return needsNode && isPortable(file) ? `src/${layerOf(file)} also runs in a browser` : undefined;
}

/** One offence for each import that closes a cycle, found by depth-first search. */
function* cycles() {
  const done = new Set();
  const path = /** @type {string[]} */ ([]);
  /**
   * @param {string} file
   * @returns {Generator<string>}
   */
  function* visit(file) {
    path.push(file);
    for (const { specifier, target, line } of imports.get(file) ?? []) {
      const start = target ? path.indexOf(target) : -1;
      if (start >= 0) {
        yield `${file}:${line} imports ${specifier}: cycle ${[...path.slice(start), target].join(" -> ")}`;
      } else if (target && !done.has(target)) {
        yield* visit(target);
      }
    }
    path.pop();
    done.add(file);
  }
  for (const file of files) if (!done.has(file)) yield* visit(file);
}
