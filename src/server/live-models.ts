/**
 * The models of a store that are loaded into an engine: what routes and requests need, with the backbones and adapters that
 * heads read, and what may be wanted again soon.
 */
import { PolyheadError } from "../base/errors.js";
import type { Engine, LoadedModel } from "../engine/index.js";
import { type Metadata, readMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import type { Route, Store, StoredModel } from "../store/index.js";
import { giveWay } from "./give-way.js";
import type { NamedBackbone } from "./head-plan.js";

/** Told of a failure that nobody waits for. */
export type Report = (what: string, thrown: unknown, more?: Readonly<Record<string, unknown>>) => void;

/** A store's models in an engine. */
export class LiveModels {
  readonly #store: Store;
  readonly #engine: Engine;
  readonly #report: Report;
  /** Backbones as the store had them when it was looked at last. */
  #kept: readonly StoredModel[] = [];
  #moves = 0;

  constructor(store: Store, engine: Engine, report: Report) {
    this.#store = store;
    this.#engine = engine;
    this.#report = report;
  }

  /** Loads and unloads so far. */
  get moves(): number {
    return this.#moves;
  }

  /** Looks what the store has, after it got a model from here or was changed by others. */
  async refresh(): Promise<void> {
    this.#kept = (await this.#store.models()).filter(({ role }) => role === "backbone");
  }

  /**
   * Loads a model and, once that went well, keeps it in the store.
   * @param title makes a file name of the revision
   * @returns its revision
   * @throws PolyheadError what loading and keeping throw
   */
  async keep(model: Model, title: (revision: string) => string): Promise<string> {
    const revision = await this.#loadReading(model);
    await giveWay(this.#engine);
    await this.#store.put(model, { title: title(revision) });
    await giveWay(this.#engine);
    if (readMetadata(model).role === "backbone") await this.refresh();
    return revision;
  }

  /** All that are loaded, by revision. */
  loaded(): ReadonlyMap<string, LoadedModel> {
    return new Map(this.#engine.models.map((each) => [each.revision, each]));
  }

  /** What is known of the adapter that a revision reads through; undefined where there is none. */
  adapterOf(revision: string): Metadata | undefined {
    const loaded = this.loaded();
    const through = (loaded.get(revision)?.through ?? []).flatMap((each) => loaded.get(each)?.metadata ?? []);
    return through.find(({ role }) => role === "adapter");
  }

  /**
   * Loaded backbones by the names that they were kept under; they are models without being routes. Of several of one
   * name the first has it, and the others have the beginning of their revision behind it.
   */
  backbones(): ReadonlyMap<string, string> {
    const named = new Map<string, string>();
    for (const { title, revision } of this.#kept.filter((each) => this.#engine.has(each.revision))) {
      const name = nameOf(title);
      named.set(named.has(name) ? `${name}-${revision.slice(0, 12)}` : name, revision);
    }
    return named;
  }

  /** The same with their graphs. */
  async backboneModels(): Promise<NamedBackbone[]> {
    return Promise.all(
      [...this.backbones()].map(async ([name, revision]) => ({
        name,
        model: await this.#store.model(revision),
      })),
    );
  }

  /** Loads what a route needs to answer. @throws PolyheadError what loading throws */
  async load({ targets, shadows = [] }: Route): Promise<void> {
    for (const revision of [...targets.map((each) => each.revision), ...shadows])
      await this.#loadRevision(revision);
  }

  /** Loads what nothing leads to yet or any more, so that a switch to it is quick; what fails is left out. */
  async loadReady(revisions: Iterable<string>): Promise<void> {
    for (const revision of revisions)
      await this.#loadRevision(revision).catch((thrown) => this.#report("load", thrown, { revision }));
  }

  /**
   * Loads the backbones that the store had when it was looked at last: they are models whether or not a head reads them.
   * What fails is left out.
   * @returns whether there were any that were not loaded
   */
  async loadBackbones(): Promise<boolean> {
    const { moves } = this;
    await this.loadReady(this.#kept.map(({ revision }) => revision));
    return this.moves > moves;
  }

  /** Gives up heads that no route uses; backbones stay for heads to come. */
  async unloadBut(kept: ReadonlySet<string>): Promise<void> {
    for (const { revision, routes, metadata } of this.#engine.models) {
      const isProvider = metadata.role === "backbone" || metadata.role === "adapter";
      if (routes.length > 0 || isProvider || kept.has(revision)) continue;
      await this.#engine.unload(revision);
      this.#moves++;
    }
  }

  async #loadRevision(revision: string): Promise<void> {
    if (this.#engine.has(revision)) return;
    await this.#loadReading(await this.#store.model(revision));
  }

  /** Loads a model, with what the store has for it to read where that is not loaded yet. */
  async #loadReading(model: Model): Promise<string> {
    try {
      return await this.#toEngine(model);
    } catch (thrown) {
      const isMismatch = thrown instanceof PolyheadError && thrown.code === "HEAD_MISMATCH";
      if (!isMismatch || !(await this.#loadProviders())) throw thrown;
      return this.#toEngine(model);
    }
  }

  async #toEngine(model: Model): Promise<string> {
    const revision = await this.#engine.load(model);
    this.#moves++;
    return revision;
  }

  /** Loads the store's backbones and adapters that are not loaded yet. @returns whether there were any */
  async #loadProviders(): Promise<boolean> {
    const missing = (await this.#store.models()).filter(
      ({ role, revision }) => (role === "backbone" || role === "adapter") && !this.#engine.has(revision),
    );
    const backbonesFirst = missing.sort(
      (a, b) => Number(a.role === "adapter") - Number(b.role === "adapter"),
    );
    let found = false;
    for (const { revision } of backbonesFirst) {
      const isLoaded = await this.#toEngine(await this.#store.model(revision)).catch(() => undefined);
      found ||= isLoaded !== undefined;
    }
    return found;
  }
}

/** The public name of a model that was kept under a title. */
export function nameOf(title: string): string {
  return title.replace(/\.onnx$/, "");
}
