/**
 * What an index lists, as models and routes. A model that is damaged is listed as such, so that the others can be used;
 * entries that are neither belong to other tools and are left alone.
 */
import { asError, PolyheadError } from "../base/errors.js";
import type { BlobStore } from "./blobs.js";
import { type Digest, isHex } from "./digest.js";
import { damaged } from "./durable.js";
import type { Snapshot } from "./layout.js";
import { type StoredModel, storedModel } from "./model-artifact.js";
import {
  ANNOTATION,
  type Descriptor,
  MANIFEST_LIMIT,
  type Manifest,
  MEDIA_TYPE,
  parseManifest,
} from "./oci.js";
import { NO_ROUTES, parseRoutes, ROUTES_LIMIT, type RoutesDocument } from "./routes.js";

/** What was read and checked, by digest: it cannot change. What old indexes list is dropped when a new one is read. */
export interface Known {
  readonly manifests: Map<Digest, Manifest>;
  routes?: { readonly digest: Digest; readonly document: RoutesDocument };
}

/** A model that the index lists and whose manifest cannot be read. */
export interface BrokenModel {
  readonly entry: Descriptor;
  /** Where the entry is tagged with it. */
  readonly revision: string | undefined;
  readonly error: Error;
}

/** Models and routes of one index. */
export interface Catalogue extends Snapshot {
  readonly models: ReadonlyMap<string, StoredModel>;
  readonly broken: readonly BrokenModel[];
  readonly routes: RoutesDocument;
  /** The routes' entry in the index and the blob of their document, when there are any. */
  readonly routesBlobs: readonly [entry: Descriptor, document: Descriptor] | undefined;
  /** The revision of each entry that is a model, sound or broken. */
  readonly revisions: ReadonlyMap<Descriptor, string>;
}

/**
 * Reads what an index lists.
 * @param known manifests and routes that need not be read again; new ones are added
 * @throws PolyheadError STORE_DAMAGED when the routes cannot be read or are there twice, STORE_REFUSED when they are newer
 */
export async function readCatalogue(blobs: BlobStore, snapshot: Snapshot, known: Known): Promise<Catalogue> {
  const models = new Map<string, StoredModel>();
  const revisions = new Map<Descriptor, string>();
  const broken: BrokenModel[] = [];
  let routesBlobs: readonly [Descriptor, Descriptor] | undefined;
  for (const entry of snapshot.index.manifests) {
    if (!mayBeOurs(entry)) continue;
    const what = `The manifest ${entry.digest}`;
    try {
      const manifest =
        known.manifests.get(entry.digest) ?? parseManifest(await blobs.read(entry, MANIFEST_LIMIT), what);
      known.manifests.set(entry.digest, manifest);
      if (manifest.artifactType === MEDIA_TYPE.model) {
        const stored = storedModel(manifest, what);
        revisions.set(entry, stored.revision);
        if (!models.has(stored.revision)) models.set(stored.revision, stored);
      } else if (manifest.artifactType === MEDIA_TYPE.routes) {
        const [document] = manifest.layers;
        if (!document || routesBlobs)
          throw damaged("The store does not have exactly one document of routes.", {});
        routesBlobs = [entry, document];
      }
    } catch (thrown) {
      if (entry.artifactType !== MEDIA_TYPE.model) throw thrown;
      const tag = entry.annotations?.[ANNOTATION.tag];
      const revision = isHex(tag) ? tag : undefined;
      if (revision !== undefined) revisions.set(entry, revision);
      broken.push({ entry, revision, error: asError(thrown) });
    }
  }
  const listed = new Set(snapshot.index.manifests.map(({ digest }) => digest));
  for (const digest of known.manifests.keys()) if (!listed.has(digest)) known.manifests.delete(digest);
  const routes = routesBlobs ? await readRoutes(blobs, routesBlobs[1], known) : NO_ROUTES;
  return { ...snapshot, models, broken, routes, routesBlobs, revisions };
}

async function readRoutes(blobs: BlobStore, blob: Descriptor, known: Known): Promise<RoutesDocument> {
  const { digest } = blob;
  if (known.routes?.digest !== digest)
    known.routes = { digest, document: parseRoutes(await blobs.read(blob, ROUTES_LIMIT)) };
  return known.routes.document;
}

/**
 * The model of a revision.
 * @throws PolyheadError NOT_FOUND, STORE_DAMAGED
 */
export function requireModel({ models, broken }: Catalogue, revision: string): StoredModel {
  const stored = models.get(revision);
  if (stored) return stored;
  const found = broken.find((each) => each.revision === revision);
  if (found) throw found.error;
  throw new PolyheadError(
    "NOT_FOUND",
    `The store has no model of revision ${JSON.stringify(revision)}; it has ${models.size} others. Put the model first.`,
    { revision },
  );
}

/** Entries of another artifact type need not be looked into. */
function mayBeOurs({ mediaType, artifactType }: Descriptor): boolean {
  return (
    mediaType === MEDIA_TYPE.manifest &&
    (artifactType === undefined || artifactType === MEDIA_TYPE.model || artifactType === MEDIA_TYPE.routes)
  );
}
