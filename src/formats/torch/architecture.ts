/**
 * Architectures: a short JSON list of layers by PyTorch's names that says what a file of weights leaves open. An entry is
 * the class of a layer, `"ReLU"`, or an object, `{"type": "Conv2d", "name": "conv1", "padding": 1}`, with the
 * settings of its constructor. `name` is where its weights stand; left out, it is the entry's place in the list, as
 * `nn.Sequential` numbers its layers. What the weights tell (sizes of kernels, channels, features) need not be said.
 */
import { PolyheadError } from "../../base/errors.js";
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";
import { type State, withoutPrefixes } from "./checkpoint.js";
import { Layer } from "./layer.js";
import { LAYER_RULES } from "./layers/table.js";
import { joined } from "./module.js";
import type { StoredTensor } from "./tensor.js";

/** One layer of an architecture. */
export interface LayerEntry {
  readonly type: string;
  readonly name?: string;
  readonly [setting: string]: unknown;
}

/** An architecture as its JSON has it. */
export type Architecture =
  | readonly (string | LayerEntry)[]
  | { readonly input?: SymbolicShape; readonly layers: readonly (string | LayerEntry)[] };

/** More layers are no head. */
const MOST_LAYERS = 2 ** 10;

/** Settings of constructors that the weights know, or that mean nothing in evaluation mode. */
const NEEDLESS: ReadonlySet<string> = new Set([
  ...["in_features", "out_features", "in_channels", "out_channels", "num_parameters", "device", "dtype"],
  ...[
    "bias",
    "p",
    "inplace",
    "momentum",
    "affine",
    "elementwise_affine",
    "track_running_stats",
    "kernel_size",
  ],
  ...["num_features", "num_channels", "normalized_shape", "mode"],
]);

/** Tensors that training needs and answers do not. */
const COUNTER = /(^|\.)num_batches_tracked$/;

/** An architecture, checked: entries with types that have rules. */
export interface ParsedArchitecture {
  readonly input: SymbolicShape | undefined;
  readonly entries: readonly LayerEntry[];
}

/**
 * Checks an architecture out of JSON.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function parseArchitecture(source: unknown): ParsedArchitecture {
  const isList = Array.isArray(source);
  const { layers, input } = isList ? { layers: source } : isRecord(source) ? source : {};
  const unknown =
    isList || !isRecord(source)
      ? []
      : Object.keys(source).filter((key) => !["input", "layers"].includes(key));
  if (!Array.isArray(layers) || layers.length === 0 || layers.length > MOST_LAYERS || unknown.length > 0)
    throw wrong(
      `The architecture should be a list of layers, such as ["Linear", "ReLU", "Linear"], or {"input": [...], "layers": [...]}${unknown.length > 0 ? `; it has ${unknown.join(", ")}` : ""}.`,
    );
  return {
    input: input === undefined ? undefined : parseInputShape(input),
    entries: layers.map((layer, at) => parseEntry(layer, at)),
  };
}

/**
 * Checks the shape of an input: sizes, and names of open ones; the first is the batch.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function parseInputShape(shape: unknown): SymbolicShape {
  const isDimension = (size: unknown): size is Dimension =>
    typeof size === "string"
      ? /^[A-Za-z_]\w*$/.test(size)
      : Number.isSafeInteger(size) && Number(size) > 0 && Number(size) < 2 ** 31;
  if (Array.isArray(shape) && shape.length >= 2 && shape.length <= 8 && shape.every(isDimension))
    return shape;
  throw wrong(
    `The input shape ${JSON.stringify(shape)} should be sizes or names of open ones, the batch first, such as batch,512 or batch,3,224,224.`,
    { got: shape },
  );
}

function parseEntry(layer: unknown, at: number): LayerEntry {
  const entry = typeof layer === "string" ? { type: layer } : layer;
  if (
    !isRecord(entry) ||
    typeof entry.type !== "string" ||
    !["string", "undefined"].includes(typeof entry.name)
  )
    throw wrong(
      `Layer ${at} of the architecture should be the name of a layer or an object with a "type"; got ${JSON.stringify(layer)?.slice(0, 80)}.`,
      { layer: at },
    );
  const wanted = entry.type.replace(/^(torch\.)?nn\./, "").toLowerCase();
  const type = [...LAYER_RULES.keys()].find((kind) => kind.toLowerCase() === wanted);
  if (type !== undefined) return { ...entry, type };
  throw wrong(
    `Layer ${at} of the architecture is ${JSON.stringify(entry.type)}, which is none of the layers that can be imported: ${[...LAYER_RULES.keys()].join(", ")}.`,
    { layer: at, got: entry.type, expected: [...LAYER_RULES.keys()] },
  );
}

/** Layers with their weights, and what checks afterwards that nothing was left over. */
export interface Arranged {
  readonly layers: readonly Layer[];
  /** @throws PolyheadError INVALID_ARGUMENT for settings that no layer knows */
  checkSettings(): void;
}

/**
 * Gives the layers of an architecture their weights.
 * @throws PolyheadError INVALID_ARGUMENT when weights are left over or found nowhere
 */
export function arrange({ entries }: ParsedArchitecture, given: State, path: string): Arranged {
  const states = withoutPrefixes(new Map([...given].filter(([name]) => !COUNTER.test(name))));
  const names = entries.map(({ name }, at) => name ?? String(at));
  // The state without as many prefixes as it takes until every tensor belongs to a layer.
  const state = states.find((each) => leftOver(each, names).length === 0);
  const bare = states.at(-1);
  const only = entries.filter(({ type }) => takesWeights(type));
  const isBare =
    !state &&
    only.length === 1 &&
    bare !== undefined &&
    [...bare.keys()].every((name) => !name.includes("."));
  if (!state && !isBare) {
    const left = leftOver(bare ?? given, names);
    throw wrong(
      `The architecture has no layer for ${left.slice(0, 6).join(", ")}${left.length > 6 ? ` and ${left.length - 6} more` : ""} of the file; its layers are named ${names.join(", ")}. Give a layer its "name" in the file, or take a part of the file with --head.`,
      { left: left.slice(0, 50), names },
    );
  }
  const layers = entries.map(({ type, name: _, ...settings }, at) => {
    const name = names[at] ?? "";
    const tensors = isBare
      ? takesWeights(type)
        ? bare
        : new Map<string, StoredTensor>()
      : below(state ?? given, name);
    return new Layer(type, joined(path, name), new Map(Object.entries(settings)), tensors);
  });
  const checkSettings = () => {
    for (const [at, { type, name: _, ...settings }] of entries.entries()) {
      const unknown = Object.keys(settings).find((key) => !layers[at]?.asked.has(key) && !NEEDLESS.has(key));
      if (unknown !== undefined)
        throw wrong(
          `Layer ${at} of the architecture, ${type}, has no setting ${JSON.stringify(unknown)}; it has ${[...(layers[at]?.asked ?? [])].join(", ") || "none"}.`,
          { layer: at, got: unknown },
        );
    }
  };
  return { layers, checkSettings };
}

/** Whether a layer can have weights of its own. */
function takesWeights(type: string): boolean {
  return /^(Linear|Conv|.*Norm\w*$|PReLU)/.test(type);
}

function below(state: State, name: string): Map<string, StoredTensor> {
  const prefix = name === "" ? "" : `${name}.`;
  return new Map(
    [...state].flatMap(([key, tensor]) =>
      key.startsWith(prefix) && !key.slice(prefix.length).includes(".")
        ? [[key.slice(prefix.length), tensor] as const]
        : [],
    ),
  );
}

/** Names of tensors that belong to none of the layers. */
function leftOver(state: State, names: readonly string[]): string[] {
  const known = new Set(names);
  return [...state.keys()].filter((key) => !known.has(key.slice(0, Math.max(0, key.lastIndexOf(".")))));
}

function wrong(message: string, details: Readonly<Record<string, unknown>> = {}): PolyheadError {
  return new PolyheadError("INVALID_ARGUMENT", message, details);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
