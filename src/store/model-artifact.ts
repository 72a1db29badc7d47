/**
 * A model as an OCI artifact. A small model is one layer, its `.onnx` file with the weights inside, and the layer's
 * digest is its revision. A model with much weight is two: the graph, and the weights as ONNX external data. The graph
 * names the weights' file by its digest, which is its name in the blob folder too; so the graph's blob is a whole ONNX
 * file where it lies, and a runtime that is given its path maps the weights into memory. The revision is the same
 * either way: SHA-256 of the file with its weights inside, which is what the engine calls a revision.
 */
import { PolyheadError } from "../base/errors.js";
import type { Folder } from "../base/folder.js";
import { isTap, type Metadata, readMetadata, type Tap } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { MAX_MODEL_BYTES, readModel } from "../onnx/read.js";
import { revisionOf } from "../onnx/revision.js";
import { bigWeightBytes, serializeModel } from "../onnx/write.js";
import { type BlobContent, type BlobStore, blobOf } from "./blobs.js";
import { digestOf, hexOf, isHex } from "./digest.js";
import { damaged } from "./durable.js";
import {
  ANNOTATION,
  artifactManifest,
  type Descriptor,
  EMPTY_CONFIG,
  type Manifest,
  MEDIA_TYPE,
  manifestBytes,
} from "./oci.js";

/** Weights of more than this many bytes in all are a layer of their own. */
export const WEIGHTS_FROM = 2 ** 20;
/** Metadata that takes more letters is in the model's file only. */
const ANNOTATION_LENGTH = 2 ** 15;
const TITLE_LENGTH = 256;
const PREFIX = "polyhead.";
const REVISION = `${PREFIX}revision`;
/** Metadata that is annotated as it is; of the labels only the number is. */
const ANNOTATED = ["role", "task", "taps", "produces", "provenance", "quality"] as const;

/** A model of a store, as its manifest tells it. */
export interface StoredModel {
  readonly revision: string;
  /** The name of the file that it was put from, or one made of its revision. */
  readonly title: string;
  /** When it was put; ISO 8601. */
  readonly created: string | undefined;
  readonly role: string | undefined;
  readonly task: string | undefined;
  readonly taps: readonly Tap[] | undefined;
  /** How many labels it has. */
  readonly labels: number | undefined;
  /** Bytes of all layers. */
  readonly bytes: number;
  /** The graph first. */
  readonly layers: readonly Descriptor[];
}

/** A model ready to be stored. */
export interface ModelArtifact {
  readonly revision: string;
  /** The manifest last. */
  readonly blobs: readonly BlobContent[];
  readonly manifest: Manifest;
  /** What the manifest says. */
  readonly stored: StoredModel;
  /** The entry for the index. */
  readonly entry: Descriptor;
}

/**
 * The blobs of a model. Their pieces share the model's memory.
 * @param title name of its file
 * @throws PolyheadError LIMIT_EXCEEDED, INVALID_ARGUMENT for a title that is no file name, MODEL_MALFORMED
 */
export async function modelArtifact(model: Model, title?: string): Promise<ModelArtifact> {
  const contents = layersOf(model).map(blobOf);
  const [file, ...weights] = contents;
  const revision = file && weights.length === 0 ? hexOf(file.digest) : await revisionOf(model);
  const name = checkedTitle(title ?? `${revision.slice(0, 12)}.onnx`);
  const layers = contents.map(
    ({ digest, size }, at): Descriptor =>
      at === 0
        ? { mediaType: MEDIA_TYPE.graph, digest, size, annotations: { [ANNOTATION.title]: name } }
        : { mediaType: MEDIA_TYPE.weights, digest, size, annotations: { [ANNOTATION.title]: hexOf(digest) } },
  );
  const manifest = artifactManifest(MEDIA_TYPE.model, layers, {
    [ANNOTATION.title]: name,
    [ANNOTATION.created]: new Date().toISOString(),
    [REVISION]: revision,
    ...annotationsOf(readMetadata(model)),
  });
  const written = blobOf([manifestBytes(manifest)]);
  return {
    revision,
    blobs: [...contents, EMPTY_CONFIG, written],
    manifest,
    stored: storedModel(manifest, "The model's manifest"),
    entry: {
      mediaType: MEDIA_TYPE.manifest,
      digest: written.digest,
      size: written.size,
      artifactType: MEDIA_TYPE.model,
      annotations: { [ANNOTATION.tag]: revision },
    },
  };
}

/** The contents of a model's layers. */
function layersOf(model: Model): (readonly Uint8Array[])[] {
  if (bigWeightBytes(model) <= WEIGHTS_FROM) return [serializeModel(model).file];
  // What stands in the data file does not depend on its name, and the name is made of what stands in it.
  const weights = serializeModel(model, "weights").external;
  return [serializeModel(model, hexOf(digestOf(weights))).file, weights];
}

function annotationsOf(metadata: Metadata): Record<string, string> {
  const found: Record<string, string> = {};
  for (const key of ANNOTATED) {
    const value = metadata[key];
    if (value === undefined) continue;
    const text = typeof value === "string" ? value : JSON.stringify(value);
    if (text.length <= ANNOTATION_LENGTH) found[PREFIX + key] = text;
  }
  if (metadata.labels) found[`${PREFIX}labels`] = String(metadata.labels.length);
  return found;
}

/**
 * What a manifest says of its model. A model that another tool put as one layer has that layer's digest as revision.
 * @throws PolyheadError STORE_DAMAGED
 */
export function storedModel(manifest: Manifest, what: string): StoredModel {
  const { layers, annotations = {} } = manifest;
  const [graph] = layers;
  if (!graph) throw damaged(`${what} is a model without layers.`, { what });
  const revision = annotations[REVISION] ?? (layers.length === 1 ? hexOf(graph.digest) : undefined);
  if (!isHex(revision)) throw damaged(`${what} is a model without a good revision.`, { what, got: revision });
  const labels = annotations[`${PREFIX}labels`];
  return {
    revision,
    title: annotations[ANNOTATION.title] ?? titleOf(graph) ?? `${revision.slice(0, 12)}.onnx`,
    created: annotations[ANNOTATION.created],
    role: annotations[`${PREFIX}role`],
    task: annotations[`${PREFIX}task`],
    taps: tapsOf(annotations[`${PREFIX}taps`], what),
    labels: labels === undefined || !/^\d{1,9}$/.test(labels) ? undefined : Number(labels),
    bytes: layers.reduce((sum, { size }) => sum + size, 0),
    layers,
  };
}

function tapsOf(text: string | undefined, what: string): readonly Tap[] | undefined {
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (Array.isArray(value) && value.every(isTap)) return value;
  throw damaged(`${what} has the annotation ${PREFIX}taps, which is not a list of taps.`, { what });
}

/**
 * The model of an artifact.
 * @throws PolyheadError STORE_DAMAGED when it is not the one of this revision, LIMIT_EXCEEDED
 */
export async function readArtifact(blobs: BlobStore, stored: StoredModel): Promise<Model> {
  const [graph, ...others] = stored.layers;
  if (!graph) throw damaged(`The model ${stored.revision} has no layers.`, { revision: stored.revision });
  const model = await readModel(
    await blobs.read(graph, MAX_MODEL_BYTES),
    new LayerFolder(blobs, others),
  ).catch((thrown: unknown) => {
    if (thrown instanceof PolyheadError && thrown.code !== "STORE_DAMAGED") {
      throw damaged(`The model ${stored.revision} cannot be read: ${thrown.message}`, {
        revision: stored.revision,
        code: thrown.code,
      });
    }
    throw thrown;
  });
  const got = await revisionOf(model);
  if (got === stored.revision) return model;
  throw damaged(
    `The model ${stored.revision} has content of revision ${got}. Put it once more, or restore the folder from a copy.`,
    { revision: stored.revision, got },
  );
}

/** The graph's layer when it can be opened by path: the weights beside it have the names that the graph gives them. */
export function openableGraph({ layers: [graph, ...others] }: StoredModel): Descriptor | undefined {
  return others.every((layer) => titleOf(layer) === hexOf(layer.digest)) ? graph : undefined;
}

/** The layers beside a graph as the folder that its external data lies in. */
class LayerFolder implements Folder {
  readonly #blobs: BlobStore;
  readonly #layers: ReadonlyMap<string | undefined, Descriptor>;

  constructor(blobs: BlobStore, layers: readonly Descriptor[]) {
    this.#blobs = blobs;
    this.#layers = new Map(layers.map((layer) => [titleOf(layer), layer]));
  }

  async size(name: string): Promise<number> {
    return this.#find(name).size;
  }

  async read(name: string, offset = 0, length?: number): Promise<Uint8Array> {
    const { digest, size } = this.#find(name);
    return this.#blobs.readRange(digest, offset, length ?? size - offset);
  }

  #find(name: string): Descriptor {
    const layer = this.#layers.get(name);
    if (layer) return layer;
    throw damaged(`The model's graph reads ${JSON.stringify(name)}, and no layer has this name.`, {
      path: name,
    });
  }
}

function titleOf({ annotations }: Descriptor): string | undefined {
  return annotations?.[ANNOTATION.title];
}

/** Tools write a layer into a file of its title when they fetch it. */
function checkedTitle(title: string): string {
  const good =
    title.length > 0 &&
    title.length <= TITLE_LENGTH &&
    title !== "." &&
    title !== ".." &&
    ![...title].some((letter) => letter < " " || letter === "/" || letter === "\\");
  if (good) return title;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `${JSON.stringify(title)} cannot be a model's title; expected a file name of up to ${TITLE_LENGTH} letters.`,
    { title },
  );
}
