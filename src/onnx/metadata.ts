/**
 * What Polyhead knows of a model beyond its graph, kept in the file's own `metadata_props` under `polyhead.*`
 * keys, so that it travels with the file through any tool. Values are JSON.
 */
import { create } from "@bufbuild/protobuf";
import { asError, PolyheadError } from "../base/errors.js";
import { type DType, isDType } from "../tensor/dtype.js";
import type { SymbolicShape } from "../tensor/shape.js";
import { StringStringEntryProtoSchema } from "./generated/onnx_pb.js";
import type { Identity } from "./identity.js";
import type { Model } from "./model.js";

/** What a model is for. */
export type Role = "backbone" | "head" | "adapter";

/** A named value that heads may read. */
export interface Tap {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: SymbolicShape;
  readonly identity: Identity;
}

/** What can turn a classifier's numbers into scores. */
export const ACTIVATIONS = ["none", "softmax", "sigmoid"] as const;

/** What turns numbers into scores: nothing (they are scores), over all classes, or each class alone. */
export type Activation = (typeof ACTIVATIONS)[number];

/** Everything Polyhead keeps in a model's metadata. Absent keys are unknown. */
export interface Metadata {
  readonly role?: Role;
  /** A backbone's outputs, or the values that a head reads, in the order of its inputs. */
  readonly taps?: readonly Tap[];
  /** An adapter's: the taps that its outputs stand in for, in the order of its outputs. */
  readonly produces?: readonly Tap[];
  /** `classification`, `detection`, `embedding` or a word of the user's. */
  readonly task?: string;
  /** Class names by index. */
  readonly labels?: readonly string[];
  /** What turns a classifier's numbers, its first output with one for each label, into scores. */
  readonly activation?: Activation;
  /** How an image becomes the backbone's input; see `polyhead/vision`. */
  readonly preprocessing?: Readonly<Record<string, unknown>>;
  /** How a head's outputs become an answer; see `polyhead/vision`. */
  readonly decoding?: Readonly<Record<string, unknown>>;
  /** Where the model came from: files, tools, settings. */
  readonly provenance?: Readonly<Record<string, unknown>>;
  /** Measured quality, with how it was measured. */
  readonly quality?: Readonly<Record<string, unknown>>;
  /** Remarks of the import: what was changed and why. */
  readonly notes?: readonly string[];
}

const PREFIX = "polyhead.";

/**
 * The metadata of a model; empty for a model that Polyhead has not met.
 * @throws PolyheadError MODEL_MALFORMED when a key does not hold what it should
 */
export function readMetadata(model: Model): Metadata {
  const found: Record<string, unknown> = {};
  for (const { key, value } of model.metadataProps) {
    if (key.startsWith(PREFIX)) found[key.slice(PREFIX.length)] = parse(key, value);
  }
  const { labels } = found;
  for (const key of ["taps", "produces"]) {
    const value = found[key];
    if (value !== undefined && !(Array.isArray(value) && value.every(isTap)))
      throw malformed(`polyhead.${key}`, "a list of taps with name, dtype, shape and identity");
  }
  if (labels !== undefined && !(Array.isArray(labels) && labels.every((label) => typeof label === "string")))
    throw malformed("polyhead.labels", "a list of texts");
  if (found.activation !== undefined && !ACTIVATIONS.some((each) => each === found.activation))
    throw malformed("polyhead.activation", ACTIVATIONS.join(", "));
  return found as Metadata;
}

/** The model with keys of its metadata replaced; a key given as undefined is removed. */
export function withMetadata(
  model: Model,
  changes: { readonly [Key in keyof Metadata]?: Metadata[Key] | undefined },
): Model {
  const changed = new Set(Object.keys(changes).map((key) => PREFIX + key));
  const kept = model.metadataProps.filter(({ key }) => !changed.has(key));
  const added = Object.entries(changes)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) =>
      create(StringStringEntryProtoSchema, { key: PREFIX + key, value: JSON.stringify(value) }),
    );
  return Object.assign(Object.create(Object.getPrototypeOf(model)), model, {
    metadataProps: [...kept, ...added],
  });
}

function parse(key: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (thrown) {
    throw new PolyheadError(
      "MODEL_MALFORMED",
      `The metadata ${key} is not JSON: ${asError(thrown).message}`,
      { key },
    );
  }
}

/** Whether a value out of JSON is a tap. */
export function isTap(value: unknown): value is Tap {
  if (typeof value !== "object" || value === null) return false;
  const { name, dtype, shape, identity } = value as Partial<Record<keyof Tap, unknown>>;
  return (
    typeof name === "string" &&
    typeof dtype === "string" &&
    isDType(dtype) &&
    Array.isArray(shape) &&
    shape.every((size) => typeof size === "number" || typeof size === "string") &&
    typeof identity === "string" &&
    /^[0-9a-f]{64}$/.test(identity)
  );
}

function malformed(key: string, expected: string): PolyheadError {
  return new PolyheadError(
    "MODEL_MALFORMED",
    `The metadata ${key} is not what it should be: expected ${expected}.`,
    { key, expected },
  );
}
