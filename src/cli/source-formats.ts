/**
 * The table of formats: how each is recognised by its content, and how its models are read. Formats that are known
 * but not read say what to do instead. The first one that matches holds.
 */
import { bytesToHex } from "@noble/hashes/utils.js";
import { PolyheadError } from "../base/errors.js";
import type { Folder } from "../base/folder.js";
import { isZip } from "../base/zip.js";
import { ZipFolder } from "../base/zip-folder.js";
import {
  importKerasArchive,
  importKerasHdf5,
  importSafetensors,
  importTfjsGraph,
  importTfjsLayers,
  importTorch,
  isHdf5,
  isSafetensors,
  isTeachableMachine,
  isTfjsGraphModel,
  isTfjsLayersModel,
  readTeachableMachine,
  type TorchImportOptions,
  torchKind,
} from "../formats/index.js";
import type { Activation } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { readModel } from "../onnx/read.js";
import { upgraded } from "../onnx/upgrade.js";
import type { SymbolicShape } from "../tensor/shape.js";
import type { PartialPreprocessing } from "../vision/preprocessing.js";

/** A file at hand, and what lies beside it. */
export interface SourceFile {
  readonly bytes: Uint8Array;
  /** Its name without its folder. */
  readonly file: string;
  readonly folder: Folder;
}

/** What a file says of its model beside the graph. */
export interface Known {
  readonly task?: string;
  readonly labels?: readonly string[];
  readonly activation?: Activation;
  /** Recipe of preprocessing, and what differs from it. */
  readonly preprocess?: string;
  readonly changes?: PartialPreprocessing;
}

/** What a reader makes of a file. */
export interface Read {
  readonly model: Model;
  readonly notes?: readonly string[];
  readonly known?: Known;
}

/** What the caller says about a file that does not say it itself. */
export interface SourceOptions {
  /** For PyTorch and safetensors files only. */
  readonly torch?: Omit<TorchImportOptions, "inputShape">;
  /** Shape of the only input, for all but ONNX files and exports that fix it. */
  readonly inputShape?: SymbolicShape;
}

/** One format. */
export interface SourceFormat {
  /** Short name for programs, kept as provenance. */
  readonly format: string;
  /** What it is, in words. */
  readonly label: string;
  /** Whether a file is of this format. */
  readonly matches: (source: SourceFile) => boolean | Promise<boolean>;
  /** Reads the model; formats that are not read throw MODEL_UNSUPPORTED. */
  readonly read: (source: SourceFile, options: SourceOptions) => Promise<Read>;
  /** Whether a file that matches is surely of this format; yes when left out. */
  readonly isSure?: (source: SourceFile) => boolean;
  /** Names of the other files in its folder that belong to it. */
  readonly parts?: (source: SourceFile) => Promise<readonly string[]>;
}

const SUPPORTED = [
  "ONNX files",
  "PyTorch and safetensors files",
  "Keras models (.h5, .hdf5, .keras)",
  "TF.js graph and layers models (model.json with its weight files)",
  "Teachable Machine exports (their folder or zip)",
];

const FORMATS: readonly SourceFormat[] = [
  {
    format: "teachable-machine",
    label: "Teachable Machine export",
    matches: async (source) => (await metadataBeside(source)) !== undefined && isJson(source),
    read: async (source) => readExport(source.folder, source.file, await metadataBeside(source)),
    parts: async (source) => [...weightFiles(source), "metadata.json"],
  },
  {
    format: "tfjs-layers",
    label: "TF.js layers model",
    matches: (source) => isTfjsLayersModel(parsed(source)),
    read: ({ folder, file }, { inputShape }) => importTfjsLayers(folder, file, shaped(inputShape)),
    parts: async (source) => weightFiles(source),
  },
  {
    format: "tfjs-graph",
    label: "TF.js graph model",
    matches: isJson,
    isSure: (source) => isTfjsGraphModel(parsed(source)),
    read: ({ folder, file }, { inputShape }) => importTfjsGraph(folder, file, shaped(inputShape)),
    parts: async (source) => weightFiles(source),
  },
  {
    format: "teachable-machine",
    label: "Teachable Machine export in a zip",
    matches: (source) => zipHas(source, "model.json", "metadata.json"),
    read: async ({ bytes }) => {
      const folder = new ZipFolder(bytes);
      const directory = directoryOf(folder, "model.json");
      const metadata = await parseFile(folder, `${directory}metadata.json`);
      return readExport(folder, `${directory}model.json`, metadata);
    },
  },
  {
    format: "keras-hdf5",
    label: "Keras HDF5 file",
    matches: ({ bytes }) => isHdf5(bytes),
    read: async ({ bytes }, { inputShape }) => importKerasHdf5(bytes, shaped(inputShape)),
  },
  {
    format: "keras-archive",
    label: "Keras 3 archive",
    matches: (source) => zipHas(source, "config.json", "model.weights.h5"),
    read: ({ bytes }, { inputShape }) => importKerasArchive(new ZipFolder(bytes), shaped(inputShape)),
  },
  {
    format: "torch",
    label: "PyTorch file",
    matches: ({ bytes }) => torchKind(bytes) !== undefined,
    read: async ({ bytes }, options) => importTorch(bytes, torchOptions(options)),
  },
  {
    format: "safetensors",
    label: "safetensors file",
    matches: ({ bytes }) => isSafetensors(bytes),
    read: async ({ bytes }, options) => importSafetensors(bytes, torchOptions(options)),
  },
  refused("zip", "a zip file of an unknown kind", /^504b0304/, ["take the model out of it"]),
  refused("tflite", "a TFLite file", /^.{8}54464c33/, ["convert it with tf2onnx"]),
  {
    format: "onnx",
    label: "ONNX model",
    matches: () => true,
    isSure: ({ file }) => /\.onnx$/i.test(file),
    read: async ({ bytes, folder }) => upgraded(await readModel(bytes, folder)),
  },
];

function shaped(inputShape: SymbolicShape | undefined): { readonly inputShapes?: SymbolicShape } {
  return inputShape ? { inputShapes: inputShape } : {};
}

function torchOptions({ torch, inputShape }: SourceOptions): TorchImportOptions {
  return { ...torch, ...(inputShape && { inputShape }) };
}

/** The format of a file; what nothing else claims is taken for ONNX. */
export async function findFormat(source: SourceFile): Promise<SourceFormat | undefined> {
  for (const format of FORMATS) if (await format.matches(source)) return format;
  return undefined;
}

/**
 * Refuses to be told of a file what it says itself.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function checkOptions(
  { format, label }: SourceFormat,
  file: string,
  { torch = {}, inputShape }: SourceOptions,
): void {
  if (inputShape && ["onnx", "teachable-machine"].includes(format)) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${JSON.stringify(file)} is read as ${label}, which says the shape of its input itself.`,
      { file, got: "inputShape" },
    );
  }
  if (format === "torch" || format === "safetensors") return;
  const said = { ...torch, inputLike: undefined };
  const [given] = Object.entries(said).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  if (given === undefined) return;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `${JSON.stringify(file)} is read as ${label}; ${given} can be said of PyTorch and safetensors files only.`,
    { file, got: given },
  );
}

/** A format that is known by how its files begin, but not read. */
function refused(
  format: string,
  label: string,
  begins: RegExp,
  [mend = ""]: readonly string[],
): SourceFormat {
  return {
    format,
    label,
    matches: ({ bytes }) => begins.test(bytesToHex(bytes.subarray(0, 64))),
    read: ({ file }) =>
      Promise.reject(
        new PolyheadError(
          "MODEL_UNSUPPORTED",
          `${JSON.stringify(file)} is ${label}; expected one of ${SUPPORTED.join(", ")}. To use it, ${mend}.`,
          { file, got: label, expected: SUPPORTED },
        ),
      ),
  };
}

/** A Teachable Machine export: the model with its labels and preprocessing. */
async function readExport(folder: Folder, modelJson: string, metadata: unknown): Promise<Read> {
  const { labels, imageSize, isGrey } = readTeachableMachine(metadata);
  const { model, notes } = await importTfjsLayers(folder, modelJson);
  return {
    model,
    notes,
    known: {
      task: "classification",
      labels,
      activation: "none",
      preprocess: "teachable-machine",
      changes: {
        ...(imageSize !== undefined && { height: imageSize, width: imageSize }),
        ...(isGrey && { colour: "grey" as const }),
      },
    },
  };
}

const parsedFiles = new WeakMap<Uint8Array, { readonly json: unknown }>();

/** Whether a file begins as JSON objects do; broken JSON is left to the reader, which says what is wrong with it. */
function isJson({ bytes }: SourceFile): boolean {
  return /^(efbbbf)?(20|09|0a|0d)*7b/.test(bytesToHex(bytes.subarray(0, 64)));
}

/** The JSON in a file; undefined when it holds none. */
function parsed(source: SourceFile): unknown {
  if (!isJson(source)) return undefined;
  const known = parsedFiles.get(source.bytes) ?? { json: parse(source.bytes) };
  parsedFiles.set(source.bytes, known);
  return known.json;
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
}

async function parseFile(folder: Folder, name: string): Promise<unknown> {
  return parse(await folder.read(name));
}

/** The metadata of a Teachable Machine export, when the file is its model. */
async function metadataBeside(source: SourceFile): Promise<unknown> {
  if (!isTfjsLayersModel(parsed(source)) && !isTfjsGraphModel(parsed(source))) return undefined;
  const size = await source.folder.size("metadata.json").catch(() => 0);
  if (size === 0 || size > 2 ** 24) return undefined;
  const metadata = parse(await source.folder.read("metadata.json"));
  return isTeachableMachine(metadata) ? metadata : undefined;
}

/** Names of the weight files that a TF.js model lists. */
function weightFiles(source: SourceFile): string[] {
  const json = parsed(source);
  const manifest: unknown =
    typeof json === "object" && json !== null && "weightsManifest" in json ? json.weightsManifest : [];
  if (!Array.isArray(manifest)) return [];
  return manifest.flatMap((group: unknown) => {
    const paths: unknown = typeof group === "object" && group !== null && "paths" in group ? group.paths : [];
    return Array.isArray(paths) ? paths.filter((path): path is string => typeof path === "string") : [];
  });
}

/** Whether a file is a zip archive that holds all of the names in one of its folders. */
function zipHas({ bytes }: SourceFile, ...names: readonly string[]): boolean {
  if (!isZip(bytes)) return false;
  try {
    const folder = new ZipFolder(bytes);
    const directory = directoryOf(folder, names[0] ?? "");
    return names.every((name) => folder.names.includes(directory + name));
  } catch {
    return false;
  }
}

/** The folder within an archive that holds a file. */
function directoryOf(folder: ZipFolder, name: string): string {
  const path = folder.names.find((each) => each === name || each.endsWith(`/${name}`)) ?? name;
  return path.slice(0, path.length - name.length);
}
