/**
 * What an index lists, as models and routes. A model that is damaged is listed as such, so that the others can be used;
 * entries that are neither belong to other tools and are left alone.
 */
import { asError, PolyheadError } from "../base/errors.js";
import type { BlobStore } from "./blobs.js";
import { type Digest, isHex } from "./digest.js";
import { damaged } from "./durable.js";
import type { Layout, Snapshot } from "./layout.js";
import { type StoredModel, storedModel } from "./model-artifact.js";
import {
  ANNOTATION,
  type Descriptor,
  type ImageIndex,
  MANIFEST_LIMIT,
  type Manifest,
  MEDIA_TYPE,
  parseManifest,
} from "./oci.js";
import { type KnownRoutes, type RoutesArtifact, readRoutes, type StoredRoutes } from "./stored-routes.js";

/** What manifests of models say, which never changes: every new index lists nearly all the same. */
const STORED = new WeakMap<Manifest, StoredModel>();

/** What was read and checked: it cannot change. What old indexes list is dropped when a new one is read. */
export interface Known extends KnownRoutes {
  readonly manifests: Map<Digest, Manifest>;
  listing?: Listing;
}

/** A model that the index lists and whose manifest cannot be read. */
export interface BrokenModel {
  readonly entry: Descriptor;
  /** Where the entry is tagged with it. */
  readonly revision: string | undefined;
  readonly error: Error;
}

/** What one index lists. */
export interface Listing {
  readonly index: ImageIndex;
  readonly models: ReadonlyMap<string, StoredModel>;
  readonly broken: readonly BrokenModel[];
  /** The revision of each entry that is a model, sound or broken. */
  readonly revisions: ReadonlyMap<Descriptor, string>;
  readonly artifact: RoutesArtifact | undefined;
}

/** Models and routes at one time. */
export interface Catalogue extends Listing {
  readonly snapshot: Snapshot;
  readonly routes: StoredRoutes;
}

/**
 * Reads what an index lists, and the changes beside it.
 * @param known manifests and routes that need not be read again; new ones are added
 * @throws PolyheadError STORE_DAMAGED when the routes cannot be read or are there twice, STORE_REFUSED when they are newer
 */
export async function readCatalogue(
  { blobs, changes }: Layout,
  snapshot: Snapshot,
  known: Known,
): Promise<Catalogue> {
  const listing = await readListing(blobs, snapshot.index, known);
  const routes = await readRoutes({ blobs, changes }, listing.artifact, snapshot.changes, known);
  return { ...listing, snapshot, routes };
}

/**
 * Reads what an index lists, of the routes no more than that they are there.
 * @throws PolyheadError STORE_DAMAGED when that cannot be read or is there twice
 */
export async function readListing(blobs: BlobStore, index: ImageIndex, known: Known): Promise<Listing> {
  if (known.listing?.index === index && known.listing.broken.length === 0) return known.listing;
  const models = new Map<string, StoredModel>();
  const revisions = new Map<Descriptor, string>();
  const broken: BrokenModel[] = [];
  let artifact: RoutesArtifact | undefined;
  for (const entry of index.manifests) {
    if (!mayBeOurs(entry)) continue;
    const what = `The manifest ${entry.digest}`;
    try {
      const manifest =
        known.manifests.get(entry.digest) ?? parseManifest(await blobs.read(entry, MANIFEST_LIMIT), what);
      known.manifests.set(entry.digest, manifest);
      if (manifest.artifactType === MEDIA_TYPE.model) {
        const stored = STORED.get(manifest) ?? storedModel(manifest, what);
        STORED.set(manifest, stored);
        revisions.set(entry, stored.revision);
        if (!models.has(stored.revision)) models.set(stored.revision, stored);
      } else if (manifest.artifactType === MEDIA_TYPE.routes) {
        if (artifact) throw damaged("The store does not have exactly one document of routes.", {});
        artifact = { entry, manifest };
      }
    } catch (thrown) {
      if (entry.artifactType !== MEDIA_TYPE.model) throw thrown;
      const tag = entry.annotations?.[ANNOTATION.tag];
      const revision = isHex(tag) ? tag : undefined;
      if (revision !== undefined) revisions.set(entry, revision);
      broken.push({ entry, revision, error: asError(thrown) });
    }
  }
  const listed = new Set(index.manifests.map(({ digest }) => digest));
  for (const digest of known.manifests.keys()) if (!listed.has(digest)) known.manifests.delete(digest);
  known.listing = { index, models, broken, revisions, artifact };
  return known.listing;
}

/**
 * The model of a revision.
 * @throws PolyheadError NOT_FOUND, STORE_DAMAGED
 */
export function requireModel(
  { models, broken }: Pick<Listing, "models" | "broken">,
  revision: string,
): StoredModel {
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
