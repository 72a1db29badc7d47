/**
 * Models and routes on disk. Reading takes no lock: an index is read with the changes since, and what they name never
 * changes; should a part have been taken away meanwhile, the newer index is read. A change is made under the lock, is
 * durable when its promise resolves, and becomes visible by one rename.
 */
import { basename } from "node:path";
import { PolyheadError } from "../base/errors.js";
import { loadModel } from "../files/disk.js";
import type { Model } from "../onnx/model.js";
import {
  type Catalogue,
  type Known,
  type Listing,
  readCatalogue,
  readListing,
  requireModel,
} from "./catalogue.js";
import { type Collected, collectGarbage } from "./collect.js";
import type { Digest } from "./digest.js";
import { Layout, type Snapshot } from "./layout.js";
import type { Held, RunOptions } from "./lock.js";
import {
  type ModelArtifact,
  modelArtifact,
  openableGraph,
  readArtifact,
  type StoredModel,
} from "./model-artifact.js";
import type { Descriptor } from "./oci.js";
import {
  type Author,
  changed,
  neededRevisions,
  type Route,
  type RoutesDocument,
  revisionsOf,
} from "./routes.js";
import { isSealDue, sealRoutes, supersededBy } from "./stored-routes.js";
import { type Verification, verifyLayout } from "./verify.js";
import { watchLayout } from "./watch.js";

/** How a store is opened. */
export interface StoreOptions {
  /** Makes nothing and changes nothing; for stores of others, and for folders that cannot be written. */
  readonly readOnly?: boolean;
  /** Milliseconds to wait for another process that changes the store; 15,000 by default. */
  readonly lockWait?: number;
}

/** A model that is put. */
export interface PutOptions {
  /** The name of its file for tools and people; made of the revision by default. */
  readonly title?: string;
}

/** Blobs that nothing leads to are kept for an hour unless told otherwise. */
const GRACE = 3_600_000;
const SUPERSEDED_GRACE = 5_000;
const LOCK_WAIT = 15_000;
/** Reads that are begun again because a part was taken away, before it is called damage. */
const TRIES = 20;

/** A store of models and routes. */
export class Store {
  readonly #layout: Layout;
  readonly #readOnly: boolean;
  readonly #known: Known = { manifests: new Map() };
  /** Blobs of old routes, oldest first, and since when they are old. */
  readonly #superseded = new Map<Digest, number>();

  private constructor(layout: Layout, readOnly: boolean) {
    this.#layout = layout;
    this.#readOnly = readOnly;
  }

  /**
   * Opens a store; makes one of an empty or missing folder.
   * @throws PolyheadError STORE_REFUSED when the folder is something else, STORE_DAMAGED, PATH_REFUSED, FILE_NOT_FOUND,
   *   FILE_NOT_WRITTEN, STORE_LOCKED
   */
  static async open(directory: string, options: StoreOptions = {}): Promise<Store> {
    const { readOnly = false, lockWait = LOCK_WAIT } = options;
    return new Store(await Layout.open(directory, !readOnly, lockWait), readOnly);
  }

  /** The store's folder. */
  get directory(): string {
    return this.#layout.directory;
  }

  /** A text that differs whenever the store does. */
  async version(): Promise<string> {
    return (await this.#layout.read()).version;
  }

  /** All models that can be read, oldest first. */
  models(): Promise<StoredModel[]> {
    return this.#readModels(async ({ models }) => [...models.values()]);
  }

  /**
   * The model of a revision, equal in every byte to the one that was put.
   * @throws PolyheadError NOT_FOUND, STORE_DAMAGED
   */
  model(revision: string): Promise<Model> {
    return this.#readModels((listing) => readArtifact(this.#layout.blobs, requireModel(listing, revision)));
  }

  /**
   * The path of an ONNX file that is this model, for runtimes that map weights into memory. The file's content is not
   * checked; {@link verify} does that. It stays where it is until the model is removed.
   * @returns undefined when another tool has put the model in a way that only {@link model} can read
   * @throws PolyheadError NOT_FOUND, STORE_DAMAGED
   */
  pathOf(revision: string): Promise<string | undefined> {
    return this.#readModels(async (listing) => {
      const graph = openableGraph(requireModel(listing, revision));
      return graph && this.#layout.blobs.path(graph.digest);
    });
  }

  /**
   * Keeps a model. Putting one that is there changes nothing, unless its files are damaged, which mends them.
   * @returns the revision
   * @throws PolyheadError INVALID_ARGUMENT, LIMIT_EXCEEDED from 2 GiB on, MODEL_MALFORMED, FILE_NOT_WRITTEN,
   *   STORE_LOCKED, PROOF_FAILED when the model would not be read back as it was
   */
  async put(model: Model, { title }: PutOptions = {}): Promise<string> {
    this.#requireWritable();
    const artifact = await modelArtifact(model, title);
    const { revision } = artifact;
    const mayBeThere = this.#known.listing?.models.has(revision) !== false;
    if (mayBeThere && (await this.#readModels((listing) => this.#isSound(listing, revision))))
      return revision;
    // The weights are written before the lock is taken, so that nobody waits for them.
    await this.#layout.blobs.put(artifact.blobs);
    await this.#prove(artifact);
    const keep = async (catalogue: Catalogue, held: Held) => {
      if (await this.#isSound(catalogue, revision)) return;
      await this.#layout.blobs.restore(artifact.blobs); // somebody may have collected garbage since
      await this.#commit(held, catalogue, [...entriesBut(catalogue, revision), artifact.entry]);
      this.#known.manifests.set(artifact.entry.digest, artifact.manifest);
    };
    await this.#change(keep, { isMoreToCome: true }); // most models are put for a route that is changed next
    return revision;
  }

  /**
   * Keeps the model of an `.onnx` file, with its external data.
   * @returns the revision
   * @throws PolyheadError what {@link put} and reading throw
   */
  async putFile(path: string): Promise<string> {
    return this.put(await loadModel(path), { title: basename(path) });
  }

  /**
   * Forgets a model; {@link gc} frees its space.
   * @throws PolyheadError NOT_FOUND, IN_USE when a route or the history names it
   */
  async remove(revision: string): Promise<void> {
    await this.#change(async (catalogue, held) => {
      const rest = entriesBut(catalogue, revision);
      if (rest.length === catalogue.index.manifests.length) requireModel(catalogue, revision);
      if (neededRevisions(catalogue.routes.document).has(revision))
        throw inUse(catalogue.routes.document, revision);
      await this.#commit(held, catalogue, rest);
    });
  }

  /** The routes and their history. */
  routes(): Promise<RoutesDocument> {
    return this.#read(async ({ routes }) => routes.document);
  }

  /**
   * Changes routes, one or several at once: `update` is given all routes as they are now and changes the map; what it
   * throws ends the change. When this resolves the change outlasts a crash; when it rejects nothing has changed,
   * except that a failure to flush the folder (FILE_NOT_WRITTEN) leaves open whether it has.
   * @returns the document after the change
   * @throws PolyheadError INVALID_ARGUMENT, NOT_FOUND for a revision that the store does not have, LIMIT_EXCEEDED,
   *   STORE_LOCKED, FILE_NOT_WRITTEN
   */
  change(update: (routes: Map<string, Route>) => void, author: Author): Promise<RoutesDocument> {
    return this.#change(async (catalogue, held) => {
      const { routes } = catalogue;
      const next = changed(routes.document, update, author);
      if (next === routes.document) return next;
      for (const { to } of next.history.at(-1)?.routes ?? []) {
        for (const revision of to ? revisionsOf(to) : []) requireModel(catalogue, revision);
      }
      if (isSealDue(routes)) await this.#seal(held, catalogue, next);
      else await this.#append(held, catalogue, next);
      return next;
    });
  }

  /**
   * Calls back after each change that was not made by this object, with the new {@link version}; several may be one call.
   * @param every milliseconds between looks, for file systems that give no notice
   * @returns ends it
   */
  watch(changed: (version: string) => void, every = 1000): Promise<() => void> {
    return watchLayout(this.#layout, changed, every);
  }

  /** Looks everything through; what is wrong is found, not thrown. */
  verify(): Promise<Verification> {
    return verifyLayout(this.#layout);
  }

  /**
   * Frees the space of what neither models nor routes nor history need, and of files that were never finished.
   * @param grace milliseconds for which such files are kept for those who are about to use them; one hour by default
   * @throws PolyheadError STORE_DAMAGED when a manifest cannot be read; then nothing is freed
   */
  async gc({ grace = GRACE }: { readonly grace?: number } = {}): Promise<Collected> {
    this.#requireWritable();
    return this.#layout.lock.run(() => collectGarbage(this.#layout, grace));
  }

  #read<T>(work: (catalogue: Catalogue) => Promise<T>): Promise<T> {
    return this.#attempt(async (snapshot) => work(await readCatalogue(this.#layout, snapshot, this.#known)));
  }

  /** The same for what needs no routes, and so can do with damaged ones. */
  #readModels<T>(work: (listing: Listing) => Promise<T>): Promise<T> {
    return this.#attempt(async ({ index }) =>
      work(await readListing(this.#layout.blobs, index, this.#known)),
    );
  }

  /** Reads by one index, and by the next one when a part of it has been taken away meanwhile. */
  async #attempt<T>(work: (snapshot: Snapshot) => Promise<T>, read = () => this.#layout.read()): Promise<T> {
    for (let tries = 1; ; tries++) {
      const snapshot = await read();
      try {
        return await work(snapshot);
      } catch (thrown) {
        this.#layout.distrust();
        const isDamage = thrown instanceof PolyheadError && thrown.code === "STORE_DAMAGED";
        if (!isDamage || tries === TRIES || (await this.version()) === snapshot.version) throw thrown;
      }
    }
  }

  /** Does some work with the lock held, so that what it is given is what there is. */
  async #change<T>(
    work: (catalogue: Catalogue, held: Held) => Promise<T>,
    options: RunOptions = {},
  ): Promise<T> {
    this.#requireWritable();
    return this.#layout.lock.run(async (held) => {
      const read = () => this.#layout.readHeld(held);
      return this.#attempt(
        async (snapshot) => work(await readCatalogue(this.#layout, snapshot, this.#known), held),
        read,
      );
    }, options);
  }

  /** Keeps a change beside the others that came since the routes were sealed. */
  async #append(held: Held, { routes, snapshot }: Catalogue, next: RoutesDocument): Promise<void> {
    const change = next.history.at(-1);
    if (!change) return;
    await held.confirm();
    const last = routes.sealed?.document.generation ?? 0;
    const sealed = snapshot.changes.find(({ generation }) => generation <= last);
    const file = await this.#layout.append(held, snapshot, change, sealed);
    this.#known.routes = { ...routes, document: next, since: [...routes.since, file] };
  }

  /** Makes the routes a part of what the index leads to. */
  async #seal(held: Held, catalogue: Catalogue, next: RoutesDocument): Promise<void> {
    const { routes, index } = catalogue;
    const made = await sealRoutes(this.#layout.blobs, routes, next);
    const others = index.manifests.filter(({ digest }) => digest !== routes.sealed?.entry.digest);
    await this.#commit(held, catalogue, [...others, made.sealed.entry]);
    this.#known.sealed = made.sealed;
    this.#known.routes = made;
    await this.#sweepLater(supersededBy(routes, made));
  }

  /**
   * A store that changes often would grow by its old routes. Only an old index leads to them, and whoever reads by one
   * has this long; what a process leaves behind when it ends is for garbage collection.
   */
  async #sweepLater(superseded: readonly Digest[]): Promise<void> {
    const now = Date.now();
    for (const digest of superseded) this.#superseded.set(digest, now);
    for (const [digest, since] of this.#superseded) {
      if (now - since < SUPERSEDED_GRACE) break;
      this.#superseded.delete(digest);
      await this.#layout.blobs.remove(digest).catch(() => {});
    }
  }

  async #commit(held: Held, { index, snapshot }: Catalogue, manifests: readonly Descriptor[]): Promise<void> {
    await held.confirm();
    await this.#layout.write(held, snapshot, { ...index, manifests });
  }

  /** Whether a model is there with all its files as they should be. */
  async #isSound({ models, revisions }: Listing, revision: string): Promise<boolean> {
    const entries = [...revisions].filter(([, each]) => each === revision).map(([entry]) => entry);
    const layers = models.get(revision)?.layers;
    if (!layers) return false;
    for (const blob of [...entries, ...layers]) {
      if (!(await this.#layout.blobs.isSound(blob))) return false;
    }
    return true;
  }

  /** What was written must be read back as the model that was given, before anything leads to it. */
  async #prove({ revision, stored }: ModelArtifact): Promise<void> {
    try {
      await readArtifact(this.#layout.blobs, stored);
    } catch (cause) {
      throw new PolyheadError(
        "PROOF_FAILED",
        `The model ${revision} is not read back as it was put, so it was not taken. Write its file anew with another tool.`,
        { revision },
        { cause },
      );
    }
  }

  #requireWritable(): void {
    if (!this.#readOnly) return;
    throw new PolyheadError("INVALID_ARGUMENT", "The store was opened for reading only.", {
      directory: this.directory,
    });
  }
}

function entriesBut({ index, revisions }: Catalogue, revision: string): Descriptor[] {
  return index.manifests.filter((entry) => revisions.get(entry) !== revision);
}

function inUse({ routes }: RoutesDocument, revision: string): PolyheadError {
  const users = [...routes]
    .filter(([, route]) => revisionsOf(route).includes(revision))
    .map(([name]) => name);
  const by = users.length > 0 ? `the route ${users.join(", ")}` : "the history of the routes";
  return new PolyheadError(
    "IN_USE",
    `The model ${revision} is needed by ${by}; it can be removed when no route and no remembered change names it.`,
    { revision, routes: users },
  );
}
