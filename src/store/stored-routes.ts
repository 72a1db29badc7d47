/**
 * The routes as they lie in a store: an artifact in the index, whose layers are the routes as they were when it was sealed
 * and their history in pieces that are never written again, and after it the changes since, in files of their own.
 */
import { type BlobName, type BlobStore, blobOf } from "./blobs.js";
import type { ChangeFile, ChangeFiles } from "./change-files.js";
import type { Digest } from "./digest.js";
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
import { applied, type Change, NO_ROUTES, type RoutesDocument, recent } from "./routes.js";
import {
  HISTORY_BYTES,
  historyBytes,
  parseHistory,
  parseRoutes,
  ROUTES_LIMIT,
  routesBytes,
} from "./routes-json.js";

/** Changes that are sealed together at most, and routes that these change at most, beside the last change. */
const SEALED_CHANGES = 64;
const SEALED_ROUTES = 512;
const ROUTES_TAG = "routes";

/** The routes' entry in an index with its manifest. */
export interface RoutesArtifact {
  readonly entry: Descriptor;
  readonly manifest: Manifest;
}

/** A piece of the history. */
interface Piece {
  readonly blob: Descriptor;
  /** The generation after its last change. */
  readonly until: number;
}

/** The routes as they were sealed last. */
interface Sealed {
  readonly entry: Descriptor;
  /** The blob of the routes themselves. */
  readonly blob: Descriptor;
  readonly document: RoutesDocument;
  /** Oldest first. */
  readonly pieces: readonly Piece[];
  /** Whether version 1 of Polyhead's documents wrote it, which knew of no changes beside it. */
  readonly isOld: boolean;
}

/** The routes of a store. */
export interface StoredRoutes {
  /** The routes now, with their history. */
  readonly document: RoutesDocument;
  /** Undefined before the first change. */
  readonly sealed: Sealed | undefined;
  /** The files of the changes since, oldest first. */
  readonly since: readonly ChangeFile[];
}

/** What was read and checked; it cannot change. */
export interface KnownRoutes {
  sealed?: Sealed;
  routes?: StoredRoutes;
}

/**
 * The routes by an index and the changes beside it.
 * @throws PolyheadError STORE_DAMAGED when a part is missing or is not what its name says, STORE_REFUSED for newer versions
 */
export async function readRoutes(
  { blobs, changes }: { readonly blobs: BlobStore; readonly changes: ChangeFiles },
  artifact: RoutesArtifact | undefined,
  files: readonly ChangeFile[],
  known: KnownRoutes,
): Promise<StoredRoutes> {
  const sealed = artifact && (await readSealed(blobs, artifact, known));
  const generation = sealed?.document.generation ?? 0;
  const since = files.filter((file) => file.generation > generation);
  if (since.some((file, at) => file.generation !== generation + at + 1)) {
    const got = since.map((file) => file.generation);
    throw damaged(
      `The store's changes lead to the generations ${got.join(", ")}; expected one for each from ${generation + 1} on. Restore the folder from a copy.`,
      { got, from: generation + 1 },
    );
  }
  const before = known.routes?.sealed === sealed ? known.routes : undefined;
  const isKnown = before?.since.every(({ name }, at) => since[at]?.name === name) === true;
  const start = isKnown && before ? before : { document: sealed?.document ?? NO_ROUTES, sealed, since: [] };
  const fresh: Change[] = [];
  for (const file of since.slice(start.since.length)) fresh.push(await changes.read(file));
  const routes = fresh.length === 0 ? start : { ...start, document: applied(start.document, fresh), since };
  known.routes = routes;
  return routes;
}

/** Whether the next change is better sealed than put beside the others. */
export function isSealDue({ sealed, since, document: { history } }: StoredRoutes): boolean {
  if (!sealed || sealed.isOld || since.length >= SEALED_CHANGES - 1) return true;
  const last = since.length === 0 ? [] : history.slice(-since.length);
  return last.reduce((sum, { routes }) => sum + routes.length, 0) >= SEALED_ROUTES;
}

/**
 * Writes what makes the routes whole without the changes beside them; the history grows by one piece.
 * @param routes as they were
 * @param next as they are to be
 * @returns the routes, with their new entry for the index
 * @throws PolyheadError FILE_NOT_WRITTEN, LIMIT_EXCEEDED
 */
export async function sealRoutes(
  blobs: BlobStore,
  { sealed }: StoredRoutes,
  next: RoutesDocument,
): Promise<StoredRoutes & { readonly sealed: Sealed }> {
  const oldest = next.history[0]?.after ?? 0;
  const kept = sealed?.isOld ? [] : (sealed?.pieces ?? []).filter(({ until }) => until >= oldest);
  const from = kept.at(-1)?.until ?? 0;
  const document = blobOf([routesBytes(next)]);
  const history = blobOf([historyBytes(next.history.filter(({ after }) => after > from))]);
  const blob = descriptorOf(document, MEDIA_TYPE.routesDocument, "routes.json");
  const newest = descriptorOf(history, MEDIA_TYPE.routesHistory, `history-${next.generation}.json`);
  const pieces = [...kept, { blob: newest, until: next.generation }];
  const manifest = artifactManifest(MEDIA_TYPE.routes, [blob, ...pieces.map((piece) => piece.blob)], {
    [ANNOTATION.created]: new Date().toISOString(),
    "polyhead.generation": String(next.generation),
  });
  const written = blobOf([manifestBytes(manifest)]);
  await blobs.put([document, history, EMPTY_CONFIG, written]);
  const entry = {
    mediaType: MEDIA_TYPE.manifest,
    digest: written.digest,
    size: written.size,
    artifactType: MEDIA_TYPE.routes,
    annotations: { [ANNOTATION.tag]: ROUTES_TAG },
  };
  return { document: next, sealed: { entry, blob, document: next, pieces, isOld: false }, since: [] };
}

function descriptorOf({ digest, size }: BlobName, mediaType: string, title: string): Descriptor {
  return { mediaType, digest, size, annotations: { [ANNOTATION.title]: title } };
}

/** The blobs that routes had before they were sealed anew and have no more. */
export function supersededBy(before: StoredRoutes, after: StoredRoutes): readonly Digest[] {
  const kept = new Set(blobsOf(after));
  return blobsOf(before).filter((digest) => !kept.has(digest));
}

function blobsOf({ sealed }: StoredRoutes): Digest[] {
  if (!sealed) return [];
  const { entry, blob, pieces } = sealed;
  return [entry.digest, blob.digest, ...pieces.map((piece) => piece.blob.digest)];
}

async function readSealed(
  blobs: BlobStore,
  { entry, manifest }: RoutesArtifact,
  known: KnownRoutes,
): Promise<Sealed> {
  if (known.sealed?.entry.digest === entry.digest) return known.sealed;
  const [blob, ...others] = manifest.layers;
  if (!blob) throw damaged("The store's routes have no document.", {});
  const { isOld, ...document } = parseRoutes(await blobs.read(blob, ROUTES_LIMIT));
  const pieces: Piece[] = [];
  const history: Change[] = [...document.history];
  for (const layer of others) {
    const changes = parseHistory(await blobs.read(layer, HISTORY_BYTES));
    history.push(...changes);
    pieces.push({ blob: layer, until: changes.at(-1)?.after ?? 0 });
  }
  const { generation } = document;
  const leads = history.every(({ after }, at) => (history[at + 1]?.before ?? generation) === after);
  const isWhole = leads && (isOld || history.length > 0);
  if (!isWhole)
    throw damaged(`The history of the routes does not lead to generation ${generation}.`, { generation });
  known.sealed = { entry, blob, document: { ...document, history: recent(history) }, pieces, isOld };
  return known.sealed;
}
