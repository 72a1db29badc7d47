/**
 * The documents of the OCI image specification 1.1 that the store reads and writes: descriptors, image manifests used
 * for artifacts, and the image index. What other tools have put into a document stays in it.
 * https://github.com/opencontainers/image-spec
 */
import { PolyheadError } from "../base/errors.js";
import { type BlobName, blobOf } from "./blobs.js";
import { isDigest } from "./digest.js";
import { damaged } from "./durable.js";
import { isObject, isTexts, jsonBytes, parseObject } from "./json.js";

/** Media types of the specification and of Polyhead. */
export const MEDIA_TYPE = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  empty: "application/vnd.oci.empty.v1+json",
  /** A model as an artifact. */
  model: "application/vnd.polyhead.model.v1",
  /** Its `.onnx` file. */
  graph: "application/vnd.polyhead.model.graph.v1+onnx",
  /** Weights beside it, as ONNX external data. */
  weights: "application/vnd.polyhead.model.weights.v1",
  /** The routes as an artifact. */
  routes: "application/vnd.polyhead.routes.v1",
  /** Their document. */
  routesDocument: "application/vnd.polyhead.routes.v1+json",
  /** A piece of their history. */
  routesHistory: "application/vnd.polyhead.routes.history.v1+json",
} as const;

/** Annotation keys of the specification. */
export const ANNOTATION = {
  title: "org.opencontainers.image.title",
  created: "org.opencontainers.image.created",
  /** The tag by which tools address an entry of the index. */
  tag: "org.opencontainers.image.ref.name",
} as const;

/** The largest manifest, the limit of common registries. */
export const MANIFEST_LIMIT = 4 * 2 ** 20;
/** The largest index. */
export const INDEX_LIMIT = 16 * 2 ** 20;

/** A reference to a blob. */
export interface Descriptor extends BlobName {
  readonly mediaType: string;
  readonly artifactType?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** An image manifest, here of an artifact. */
export interface Manifest {
  readonly schemaVersion: 2;
  readonly mediaType?: string;
  readonly artifactType?: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  /** Another manifest that this one is about. */
  readonly subject?: Descriptor;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** A list of manifests. */
export interface ImageIndex {
  readonly schemaVersion: 2;
  readonly mediaType?: string;
  readonly manifests: readonly Descriptor[];
}

/** The configuration of artifacts that have none: `{}`. */
export const EMPTY_CONFIG = blobOf([new TextEncoder().encode("{}")]);

/** The manifest of an artifact without a configuration. */
export function artifactManifest(
  artifactType: string,
  layers: readonly Descriptor[],
  annotations: Readonly<Record<string, string>>,
): Manifest {
  return {
    schemaVersion: 2,
    mediaType: MEDIA_TYPE.manifest,
    artifactType,
    config: { mediaType: MEDIA_TYPE.empty, digest: EMPTY_CONFIG.digest, size: EMPTY_CONFIG.size },
    layers,
    annotations,
  };
}

/**
 * A manifest as bytes.
 * @throws PolyheadError LIMIT_EXCEEDED when no registry would take it
 */
export function manifestBytes(manifest: Manifest): Uint8Array {
  return bounded(jsonBytes(manifest), MANIFEST_LIMIT, "A manifest");
}

/** @throws PolyheadError STORE_DAMAGED */
export function parseManifest(bytes: Uint8Array, what: string): Manifest {
  const value: unknown = parseObject(bytes, what);
  if (isManifest(value)) return value;
  throw damaged(`${what} is not an OCI image manifest with SHA-256 digests.`, { what });
}

/** An index as bytes. @throws PolyheadError LIMIT_EXCEEDED */
export function indexBytes(index: ImageIndex): Uint8Array {
  return bounded(jsonBytes(index), INDEX_LIMIT, "The store's index.json");
}

/** @throws PolyheadError STORE_DAMAGED */
export function parseIndex(bytes: Uint8Array, what: string): ImageIndex {
  const value: unknown = parseObject(bytes, what);
  if (isIndex(value)) return value;
  throw damaged(`${what} is not an OCI image index with SHA-256 digests.`, { what });
}

/** An index that lists nothing. */
export const EMPTY_INDEX: ImageIndex = { schemaVersion: 2, mediaType: MEDIA_TYPE.index, manifests: [] };

/**
 * Bytes as they are when they do not exceed a limit.
 * @throws PolyheadError LIMIT_EXCEEDED
 */
export function bounded(bytes: Uint8Array, limit: number, what: string): Uint8Array {
  if (bytes.length <= limit) return bytes;
  throw new PolyheadError(
    "LIMIT_EXCEEDED",
    `${what} would have ${bytes.length} bytes; the limit is ${limit}.`,
    { size: bytes.length, limit },
  );
}

function isManifest(value: unknown): value is Manifest {
  return (
    isObject(value) &&
    value.schemaVersion === 2 &&
    isOptionalText(value.mediaType) &&
    isOptionalText(value.artifactType) &&
    isDescriptor(value.config) &&
    Array.isArray(value.layers) &&
    value.layers.every(isDescriptor) &&
    (value.subject === undefined || isDescriptor(value.subject)) &&
    (value.annotations === undefined || isTexts(value.annotations))
  );
}

function isIndex(value: unknown): value is ImageIndex {
  return (
    isObject(value) &&
    value.schemaVersion === 2 &&
    isOptionalText(value.mediaType) &&
    Array.isArray(value.manifests) &&
    value.manifests.every(isDescriptor)
  );
}

function isDescriptor(value: unknown): value is Descriptor {
  return (
    isObject(value) &&
    typeof value.mediaType === "string" &&
    isDigest(value.digest) &&
    typeof value.size === "number" &&
    Number.isSafeInteger(value.size) &&
    value.size >= 0 &&
    isOptionalText(value.artifactType) &&
    (value.annotations === undefined || isTexts(value.annotations))
  );
}

function isOptionalText(value: unknown): value is string | undefined {
  return value === undefined || typeof value === "string";
}
