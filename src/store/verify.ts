/** Looks a store through: every blob's size and digest, every manifest, every model, and what the routes name. */
import { asError } from "../base/errors.js";
import { type Known, readCatalogue } from "./catalogue.js";
import type { Digest } from "./digest.js";
import type { Layout, Snapshot } from "./layout.js";
import { readArtifact } from "./model-artifact.js";
import type { Descriptor } from "./oci.js";
import { referenced } from "./references.js";
import { neededRevisions } from "./routes.js";

/** Something that is not as it should be. */
export interface Finding {
  /** `index`: nothing can be read; `blob`: missing, altered or not understood; `model`; `routes`; `history`. */
  readonly kind: "index" | "blob" | "model" | "routes" | "history";
  /** What is wrong and how to mend it. */
  readonly message: string;
  /** The blob or the revision that it is about. */
  readonly subject?: string;
}

/** What was looked at and found. */
export interface Verification {
  readonly findings: readonly Finding[];
  readonly models: number;
  /** Blobs that the index leads to, and their bytes. */
  readonly blobs: number;
  readonly bytes: number;
  /** Bytes of blobs that it does not lead to, for garbage collection. */
  readonly garbage: number;
}

/** Another process may change the store meanwhile; what it has changed is looked at again, so many times at most. */
const TRIES = 20;

/** Verifies a store; what is wrong is found, not thrown. */
export async function verifyLayout(layout: Layout): Promise<Verification> {
  const sound: Sound = { blobs: new Set(), models: new Set(), named: new Map(), manifests: new Map() };
  for (let tries = 1; ; tries++) {
    let snapshot: Snapshot;
    try {
      snapshot = await layout.read();
    } catch (thrown) {
      const findings = [{ kind: "index", message: asError(thrown).message } as const];
      return { findings, models: 0, blobs: 0, bytes: 0, garbage: 0 };
    }
    const result = await verifySnapshot(layout, snapshot, sound);
    if (result.findings.length === 0 || tries === TRIES) return result;
    const now = await layout.read().catch(() => snapshot);
    if (now.version === snapshot.version) return result;
  }
}

/** What was found to be well, and need not be looked at again: later looks are quicker than any writer. */
interface Sound {
  readonly blobs: Set<Digest>;
  readonly models: Set<string>;
  readonly named: Map<Digest, readonly Descriptor[]>;
  readonly manifests: Known["manifests"];
}

async function verifySnapshot(layout: Layout, snapshot: Snapshot, sound: Sound): Promise<Verification> {
  const { blobs } = layout;
  const findings: Finding[] = [];
  const bad = new Map<Digest, unknown>();
  const found = await referenced(blobs, snapshot.index, sound.named, ({ digest }, reason) =>
    bad.set(digest, reason),
  );
  let bytes = 0;
  for (const descriptor of found.values()) {
    bytes += descriptor.size;
    const { digest } = descriptor;
    if (bad.has(digest) || sound.blobs.has(digest)) continue;
    await blobs.check(descriptor).then(
      () => sound.blobs.add(digest),
      (thrown) => bad.set(digest, thrown),
    );
  }
  for (const [subject, reason] of bad)
    findings.push({ kind: "blob", message: asError(reason).message, subject });

  const unused = (await blobs.list()).filter(({ digest }) => !found.has(digest));
  const garbage = unused.reduce((sum, { size }) => sum + size, 0);
  const counts = { blobs: found.size, bytes, garbage };
  try {
    const { models, broken, routes } = await readCatalogue(layout, snapshot, { manifests: sound.manifests });
    const { document } = routes;
    for (const { entry, error } of broken) {
      if (!bad.has(entry.digest))
        findings.push({ kind: "model", message: error.message, subject: entry.digest });
    }
    for (const stored of models.values()) {
      const { revision, layers } = stored;
      if (sound.models.has(revision) || layers.some(({ digest }) => bad.has(digest))) continue;
      await readArtifact(blobs, stored).then(
        () => sound.models.add(revision),
        (thrown) => findings.push({ kind: "model", message: asError(thrown).message, subject: revision }),
      );
    }
    const live = neededRevisions({ ...document, history: [] });
    for (const revision of neededRevisions(document)) {
      if (models.has(revision)) continue;
      const kind = live.has(revision) ? "routes" : "history";
      findings.push({
        kind,
        message: `The ${kind} need the model ${revision}, which the store does not have. Put it once more.`,
        subject: revision,
      });
    }
    return { findings, models: models.size, ...counts };
  } catch (thrown) {
    findings.push({ kind: "routes", message: asError(thrown).message });
    return { findings, models: 0, ...counts };
  }
}
