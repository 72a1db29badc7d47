/**
 * Import: a file of any supported format as a model in evaluation mode that was tried out in the runtime, with
 * what the user knows about it (preprocessing, labels, task, decoding) in its metadata. Writes nothing.
 */
import { basename } from "node:path";
import { PolyheadError } from "../base/errors.js";
import { loadModel } from "../files/disk.js";
import type { TorchImportOptions } from "../formats/index.js";
import { toEvaluation } from "../onnx/evaluation.js";
import { bindHead, tapsOf } from "../onnx/fit.js";
import { GraphIndex } from "../onnx/graph.js";
import { requireMemory } from "../onnx/memory.js";
import { type Activation, readMetadata, type Tap, withMetadata } from "../onnx/metadata.js";
import { type Model, valueInfo } from "../onnx/model.js";
import { sampleInputs } from "../onnx/samples.js";
import type { SymbolicShape } from "../tensor/shape.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";
import { CENTERNET_DECODING, type Decoding, outputsOf, parseDecoding } from "../vision/decoding.js";
import { inputShape, type PartialPreprocessing, type Preprocessing } from "../vision/preprocessing.js";
import { imageInput, preprocessingFor } from "./image-input.js";
import { readLabels } from "./labels.js";
import { manifest } from "./manifest.js";
import { readSourceModel } from "./source-model.js";
import { inTrial } from "./trial/trial.js";

type TorchOptions = Omit<TorchImportOptions, "inputShape">;

/** What the user knows about a model; what is left out stays as the file has it. */
export interface ImportOptions {
  /** A recipe of {@link MODEL_RECIPES} for everything below; what is given below goes before it. */
  readonly recipe?: string | undefined;
  /** Recipe of preprocessing. */
  readonly preprocess?: string | undefined;
  /** What differs from the recipe of preprocessing. */
  readonly changes?: PartialPreprocessing | undefined;
  /** `coco`, or a file of labels. */
  readonly labels?: string | undefined;
  readonly task?: string | undefined;
  /** `centernet`, or a decoding as JSON text. */
  readonly decode?: string | undefined;
  /** What turns a classifier's numbers into scores. */
  readonly activation?: Activation | undefined;
  /** What a PyTorch or safetensors file does not say itself. */
  readonly torch?: TorchOptions | undefined;
  /** Shape of the only input, where the file leaves it open. */
  readonly inputShape?: SymbolicShape | undefined;
  /** An ONNX file whose tap the head reads, on the user's word. */
  readonly backbone?: string | undefined;
  /** That tap; by default the one output of the backbone that has the type of the head's input. */
  readonly tap?: string | undefined;
}

/** An imported model, and remarks on what was changed or assumed. */
export interface Imported {
  readonly model: Model;
  readonly notes: readonly string[];
}

/** All that is to say about well-known models, by one name. */
export const MODEL_RECIPES: Readonly<Record<string, Omit<ImportOptions, "recipe" | "changes">>> = {
  centernet: { preprocess: "centernet", labels: "coco", task: "detection", decode: "centernet" },
  imagenet: { preprocess: "imagenet", task: "classification", activation: "softmax" },
  mobilenet: { preprocess: "mobilenet", task: "classification" },
};

const DECODINGS: Readonly<Record<string, Decoding>> = { centernet: CENTERNET_DECODING };

/**
 * The model in a file, ready to be written or used.
 * @throws PolyheadError INVALID_ARGUMENT, FILE_NOT_FOUND, MODEL_MALFORMED, MODEL_UNSUPPORTED, LOAD_FAILED,
 *   HEAD_MISMATCH, NOT_FOUND, RUN_FAILED, LIMIT_EXCEEDED when a run would take too much memory, DATA_MALFORMED for labels
 */
export async function importModel(path: string, options: ImportOptions = {}): Promise<Imported> {
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
  const taps = await offeredTaps(options);
  const { inputShape: stated } = options;
  const source = await readSourceModel(path, {
    torch: shapedBy(taps, options.torch),
    ...(stated && { inputShape: stated }),
  });
  const { known } = source;
  const wanted: ImportOptions = {
    ...(known.task !== undefined && { task: known.task }),
    ...(known.activation !== undefined && { activation: known.activation }),
    ...(known.preprocess !== undefined && { preprocess: known.preprocess }),
    ...recipeOf(options.recipe),
    ...given,
    changes: { ...known.changes, ...options.changes },
  };
  const evaluation = toEvaluation(source.model);
  const fit = taps && bindHead(evaluation.model, taps);
  const model = fit?.model ?? evaluation.model;
  const preprocessing = preprocessingOf(model, wanted);
  const decoding = wanted.decode === undefined ? undefined : decodingOf(model, wanted.decode);
  const labels = wanted.labels === undefined ? known.labels : await readLabels(wanted.labels);
  const remarks = await tryOut(model, preprocessing);
  const notes = [...source.notes, ...evaluation.notes, ...remarks, ...(fit ? [wordOf(fit.tap, wanted)] : [])];
  const { file, format, sha256, files } = source;
  return {
    model: withMetadata(model, {
      ...(preprocessing && { preprocessing: { ...preprocessing } }),
      ...(decoding && { decoding: { ...decoding } }),
      ...(labels && { labels }),
      ...(wanted.task !== undefined && { task: wanted.task }),
      ...(wanted.activation !== undefined && { activation: wanted.activation }),
      provenance: {
        ...{ file, format, sha256, files, polyhead: manifest.version },
        ...(fit && {
          fit: { tap: fit.tap.name, backbone: basename(wanted.backbone ?? ""), by: "the user's word" },
        }),
        ...saidOf(wanted.torch),
      },
      ...(notes.length > 0 && { notes: [...(readMetadata(model).notes ?? []), ...notes] }),
    }),
    notes,
  };
}

/** What the head may read; undefined when the user names no backbone. */
async function offeredTaps({ backbone, tap }: ImportOptions): Promise<Tap[] | undefined> {
  if (backbone !== undefined) return tapsOf(await loadModel(backbone), tap);
  if (tap === undefined) return undefined;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    "A tap is one of a backbone; name that too: --for BACKBONE.onnx.",
    {
      got: tap,
    },
  );
}

/** Where only one tap is offered, its shape is that of the head's input. */
function shapedBy(taps: readonly Tap[] | undefined, given: TorchOptions = {}): TorchOptions {
  const [tap, ...others] = taps ?? [];
  return tap && others.length === 0 ? { inputLike: tap.shape, ...given } : given;
}

/** What the user said about the file, for its provenance. */
function saidOf({ head, architecture, hidden }: TorchOptions = {}): Readonly<Record<string, unknown>> {
  return {
    ...(head !== undefined && { part: head }),
    ...(architecture && { architecture }),
    ...(hidden && { hidden }),
  };
}

function wordOf({ name }: Tap, { backbone = "" }: ImportOptions): string {
  return `The head reads ${JSON.stringify(name)} of ${basename(backbone)} on your word: the types fit, and nothing in the file tells which features it was trained on.`;
}

function recipeOf(name: string | undefined): ImportOptions {
  if (name === undefined) return {};
  const recipe = Object.hasOwn(MODEL_RECIPES, name) ? MODEL_RECIPES[name] : undefined;
  if (recipe) return recipe;
  const expected = Object.keys(MODEL_RECIPES);
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `No model recipe is named ${JSON.stringify(name)}; expected one of ${expected.join(", ")}.`,
    { got: name, expected },
  );
}

function preprocessingOf(model: Model, { preprocess, changes }: ImportOptions): Preprocessing | undefined {
  if (preprocess !== undefined) return preprocessingFor(model, preprocess, changes);
  if (changes === undefined || Object.keys(changes).length === 0) return undefined;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    "Size and settings change a recipe of preprocessing; name the recipe as well.",
    { got: changes },
  );
}

function decodingOf(model: Model, source: string): Decoding {
  const known = Object.hasOwn(DECODINGS, source) ? DECODINGS[source] : undefined;
  if (!known && !source.trimStart().startsWith("{")) {
    const expected = Object.keys(DECODINGS);
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `No decoding is named ${JSON.stringify(source)}; expected ${expected.join(", ")} or a JSON object.`,
      { got: source, expected },
    );
  }
  const decoding = known ?? parseDecoding(source, "INVALID_ARGUMENT");
  const { outputNames } = new GraphIndex(model.graph);
  const missing = outputsOf(decoding).find((name) => !outputNames.includes(name));
  if (missing === undefined) return decoding;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `The decoding reads an output ${JSON.stringify(missing)}; the model has ${outputNames.join(", ")}.`,
    { got: missing, expected: outputNames },
  );
}

/** Runs the model once on random input, open sizes as the preprocessing has them; returns what was odd. */
async function tryOut(model: Model, preprocessing: Preprocessing | undefined): Promise<string[]> {
  const { inputs, outputNames } = new GraphIndex(model.graph);
  const image = preprocessing && imageInput(model).info;
  const declared = inputs.map((info) =>
    preprocessing && info === image
      ? valueInfo(info.name, preprocessing.dtype, inputShape(preprocessing))
      : info,
  );
  const sample = sampleInputs(declared, { batch: 1 }, 1);
  requireMemory(model, sample);
  const outputs = await inTrial(async (open) => {
    const opened = await open(model, "all");
    return opened.run(sample);
  });
  return outputNames.flatMap((name) => {
    const value = outputs.get(name);
    return value && hasOnlyFinite(value)
      ? []
      : [`On random input, the output ${JSON.stringify(name)} is not finite.`];
  });
}

function hasOnlyFinite(value: Tensor): boolean {
  return value.dtype === "string" || toNumbers(value).every(Number.isFinite);
}
