/** What an index leads to: its manifests, what these name, and so on, whichever tool has put it there. */
import type { BlobStore } from "./blobs.js";
import type { Digest } from "./digest.js";
import {
  type Descriptor,
  type ImageIndex,
  INDEX_LIMIT,
  MANIFEST_LIMIT,
  parseIndex,
  parseManifest,
} from "./oci.js";

const MANIFESTS = new Set([
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
]);
const INDEXES = new Set([
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
]);

/**
 * Every blob that an index leads to, by digest.
 * @param known what manifests name that were read before; others are added
 * @param unreadable is told of manifests that cannot be followed; when it throws, so does this
 */
export async function referenced(
  blobs: BlobStore,
  index: ImageIndex,
  known: Map<Digest, readonly Descriptor[]>,
  unreadable: (descriptor: Descriptor, reason: unknown) => void,
): Promise<Map<Digest, Descriptor>> {
  const found = new Map<Digest, Descriptor>();
  const open = [...index.manifests];
  for (let next = open.pop(); next; next = open.pop()) {
    if (found.has(next.digest)) continue;
    found.set(next.digest, next);
    try {
      const named = known.get(next.digest) ?? (await namedBy(blobs, next));
      known.set(next.digest, named);
      open.push(...named);
    } catch (thrown) {
      unreadable(next, thrown);
    }
  }
  return found;
}

async function namedBy(blobs: BlobStore, descriptor: Descriptor): Promise<readonly Descriptor[]> {
  const { mediaType, digest } = descriptor;
  if (MANIFESTS.has(mediaType)) {
    const manifest = parseManifest(await blobs.read(descriptor, MANIFEST_LIMIT), `The manifest ${digest}`);
    const { config, layers, subject } = manifest;
    return subject && blobs.has(subject) ? [config, ...layers, subject] : [config, ...layers];
  }
  if (INDEXES.has(mediaType)) {
    return parseIndex(await blobs.read(descriptor, INDEX_LIMIT), `The index ${digest}`).manifests;
  }
  return [];
}
