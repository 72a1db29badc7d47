/**
 * The routes of a store as an engine runs them: the document that was applied last, what of it does not run and why, and
 * each route as clients see it. It reads the store and changes the engine; it never changes the store.
 */
import { isDeepStrictEqual } from "node:util";
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import type { Engine } from "../engine/index.js";
import type { Route, RouteChange, RoutesDocument, Store } from "../store/index.js";
import { isRetargeting, revisionsOf } from "../store/index.js";
import { type LiveModels, nameOf, type Report } from "./live-models.js";
import type { HistoryEntry, RepositoryEntry, ServedModel } from "./service.js";
import { historyOf, toEngine } from "./targets.js";

/** Changes whose earlier revisions stay loaded, so that going back is as quick as a switch. */
const REMEMBERED = 16;

/** What live routes work with. */
export interface LiveRoutesParts {
  readonly store: Store;
  readonly engine: Engine;
  readonly models: LiveModels;
  readonly report: Report;
  /** Told the routes whenever they were applied, with the names of those that answer otherwise than before. */
  readonly applied: (routes: ReadonlyMap<string, Route>, switched: readonly string[]) => void;
}

/** A store's routes in an engine. */
export class LiveRoutes {
  readonly #parts: LiveRoutesParts;
  /** Why routes of the store do not run. */
  readonly #unavailable = new Map<string, string>();
  /** Routes as clients see them, one entry a revision, until something changes. */
  readonly #served = new Map<string, readonly ServedModel[]>();
  /** Loads and unloads when they were described. */
  #moves = 0;
  #document: RoutesDocument;

  private constructor(parts: LiveRoutesParts, document: RoutesDocument) {
    this.#parts = parts;
    this.#document = document;
  }

  /**
   * Runs what the store's routes say. A route whose model does not load is left out, and said to be unavailable.
   * @throws PolyheadError STORE_DAMAGED when the routes cannot be read
   */
  static async open(parts: LiveRoutesParts): Promise<LiveRoutes> {
    const made = new LiveRoutes(parts, await parts.store.routes());
    await parts.models.refresh();
    await parts.models.loadBackbones();
    await made.apply(made.#document);
    return made;
  }

  /** The routes of the store, with their history, as they were applied last. */
  get document(): RoutesDocument {
    return this.#document;
  }

  /** Names of the routes that run. */
  get names(): string[] {
    return [...this.#parts.engine.routes.keys()].filter((name) => this.#document.routes.has(name));
  }

  /** A route as the store has it. @throws PolyheadError NOT_FOUND */
  stored(name: string): Route {
    const route = this.#document.routes.get(name);
    if (!route) throw this.noRoute(name);
    return route;
  }

  /** A route or backbone as clients see it. @throws PolyheadError NOT_FOUND */
  model(name: string, version?: string): ServedModel {
    const known = this.#served.get(name) ?? this.#describe(name);
    this.#served.set(name, known);
    const model = version === undefined ? known[0] : known.find(({ versions }) => versions[0] === version);
    if (!model) {
      const expected = known.flatMap(({ versions }) => versions.slice(0, 1));
      throw new PolyheadError(
        "NOT_FOUND",
        `The route ${JSON.stringify(name)} has no revision ${JSON.stringify(version)}; it has ${expected.join(", ")}.`,
        { route: name, version, expected },
      );
    }
    return { ...model, versions: known.map(({ versions }) => versions[0] ?? "") };
  }

  /** All routes and backbones that run. */
  all(): readonly ServedModel[] {
    return [...this.#parts.engine.routes.keys()].map((name) => this.model(name));
  }

  /** What runs and what does not, as the repository extension lists it. */
  async repositoryIndex(readyOnly: boolean): Promise<readonly RepositoryEntry[]> {
    const ready = this.all().map(({ name, versions }) => ({
      name,
      version: versions[0] ?? "",
      state: "READY" as const,
      reason: "",
    }));
    if (readyOnly) return ready;
    const live = new Set(ready.map(({ name }) => name));
    const others = new Map<string, RepositoryEntry>();
    const add = (name: string, version: string, reason: string) => {
      if (!live.has(name)) others.set(name, { name, version, state: "UNAVAILABLE", reason });
    };
    const routed = new Set([...this.#document.routes.values()].flatMap(revisionsOf));
    for (const { title, revision, role } of await this.#parts.store.models())
      if (role !== "backbone" && role !== "adapter" && !routed.has(revision))
        add(nameOf(title), revision, "kept in the store, without a route");
    for (const { routes } of this.#document.history)
      for (const { name, from } of routes) add(name, from?.targets[0]?.revision ?? "", "unloaded");
    for (const [name, reason] of this.#unavailable)
      add(name, this.#document.routes.get(name)?.targets[0]?.revision ?? "", reason);
    return [...ready, ...others.values()];
  }

  /** Earlier changes, the newest first. @throws PolyheadError NOT_FOUND for a route that never was */
  history(name?: string): readonly HistoryEntry[] {
    const all = this.#document.history.toReversed().flatMap(historyOf);
    const own = name === undefined ? all : all.filter(({ route }) => route === name);
    if (name !== undefined && own.length === 0 && !this.#parts.engine.routes.has(name))
      throw this.noRoute(name);
    return own;
  }

  /** What a route was before it moved last; undefined when it was nothing else. */
  before(name: string): Route | null | undefined {
    const changes = this.#document.history.toReversed().flatMap(({ routes }) => routes);
    return changes.find((each) => each.name === name && isRetargeting(each))?.from;
  }

  /** What a route was when it was there last, though it may be gone. */
  past(name: string): Route | null | undefined {
    const changes = this.#document.history.toReversed().flatMap(({ routes }) => routes);
    return changes.find((each) => each.name === name && each.from)?.from;
  }

  /** Whether the store's routes or their history know a revision under a route. */
  knows(name: string, revision: string): boolean {
    const past = this.#document.history.flatMap(({ routes }) => routes.filter((each) => each.name === name));
    const targets = [this.#document.routes.get(name), ...past.flatMap(({ from, to }) => [from, to])];
    return targets.some((each) => each?.targets.some((target) => target.revision === revision));
  }

  /** Takes over what others changed, and tries anew what did not run; changes from here have been applied before. */
  async follow(): Promise<void> {
    const document = await this.#parts.store.routes();
    const isOwn = document.generation === this.#document.generation;
    await this.#parts.models.refresh();
    const isMore = await this.#parts.models.loadBackbones();
    if (isOwn && this.#unavailable.size === 0 && !isMore) return;
    await this.apply(document);
  }

  /**
   * Makes the engine what a document of the store says; all routes change at once.
   * @returns the generation from which on it holds
   */
  async apply(document = this.#document): Promise<number> {
    const { engine, models, report, applied } = this.#parts;
    const changes: Record<string, ReturnType<typeof toEngine> | null> = {};
    const differing = this.#differing(document);
    this.#unavailable.clear();
    for (const name of differing) {
      const route = document.routes.get(name);
      if (!route) continue;
      try {
        await models.load(route);
        changes[name] = toEngine(route);
        await models.loadReady(route.candidates ?? []);
      } catch (thrown) {
        const { message } = asPolyheadError(thrown, "LOAD_FAILED", "The model could not be loaded");
        this.#unavailable.set(name, message);
        report("load", thrown, { route: name });
      }
    }
    for (const name of engine.routes.keys()) if (!document.routes.has(name)) changes[name] = null;
    for (const [name, revision] of models.backbones())
      if (!document.routes.has(name)) changes[name] = { revisions: [{ revision, weight: 1 }] };
    const generation = await engine.assign(changes);
    const before = this.#document.routes;
    const moved = differing.filter((name) =>
      isRetargeting({ from: before.get(name) ?? null, to: document.routes.get(name) ?? null }),
    );
    this.#document = document;
    this.#forget(differing);
    applied(document.routes, moved);
    // What was asked for holds; a model too many is tried again with the next change.
    await models.unloadBut(this.#wanted()).catch((thrown) => report("unload", thrown));
    this.#forget(differing);
    return generation;
  }

  /** Loads what the last changes led away from, so that going back is quick. */
  async loadPast(): Promise<void> {
    await this.#parts.models.loadReady(this.#pastRevisions());
    this.#forget([]);
  }

  /** The error for a name that leads nowhere. */
  noRoute(name: string): PolyheadError {
    const reason = this.#unavailable.get(name);
    const known = [...this.#parts.engine.routes.keys()];
    return new PolyheadError(
      "NOT_FOUND",
      reason
        ? `The route ${JSON.stringify(name)} does not run: ${reason}`
        : `No route is called ${JSON.stringify(name)}; expected one of ${known.join(", ") || "none, as none was added"}.`,
      { route: name, expected: known },
    );
  }

  /** Some routes are described anew; all of them when other models are loaded than before. */
  #forget(names: readonly string[]): void {
    const { moves } = this.#parts.models;
    if (moves === this.#moves) for (const name of names) this.#served.delete(name);
    else this.#served.clear();
    this.#moves = moves;
  }

  /** Routes that a document has and that are not run as it says, and those that it has no more. */
  #differing(document: RoutesDocument): string[] {
    const { engine } = this.#parts;
    const running = engine.routes;
    const before = this.#document.routes;
    const names = new Set([...before.keys(), ...document.routes.keys()]);
    return [...names].filter((name) => {
      const route = document.routes.get(name);
      const isRunning = running.has(name) && !this.#unavailable.has(name);
      return !route || !isRunning || !isDeepStrictEqual(before.get(name), route);
    });
  }

  /** Revisions that stay loaded though no route uses them. */
  #wanted(): ReadonlySet<string> {
    const candidates = [...this.#document.routes.values()].flatMap((route) => route.candidates ?? []);
    return new Set([...candidates, ...this.#pastRevisions()]);
  }

  /** What the last changes led away from. */
  #pastRevisions(): readonly string[] {
    const last: RouteChange[] = [];
    for (let at = this.#document.history.length - 1; at >= 0 && last.length < REMEMBERED; at--)
      last.push(...(this.#document.history[at]?.routes ?? []).filter(hasRetargeted).toReversed());
    return last
      .slice(0, REMEMBERED)
      .flatMap(({ from }) => from?.targets.map(({ revision }) => revision) ?? []);
  }

  /** The revisions of a route that can be asked for, the one that answers by default first. */
  #describe(name: string): readonly ServedModel[] {
    const target = this.#parts.engine.targets.get(name);
    if (!target) throw this.noRoute(name);
    const past = this.#document.history
      .toReversed()
      .flatMap(({ routes }) => routes.filter((each) => each.name === name))
      .flatMap(({ from }) => from?.targets ?? []);
    const revisions = new Set([
      ...target.revisions.map(({ revision }) => revision),
      ...(target.shadows ?? []),
      ...(this.#document.routes.get(name)?.candidates ?? []),
      ...past.map(({ revision }) => revision),
    ]);
    const loaded = this.#parts.models.loaded();
    return [...revisions].flatMap((revision) => {
      const model = loaded.get(revision);
      return model ? [{ name, versions: [revision], ...model.signature, metadata: model.metadata }] : [];
    });
  }
}

/** What was found of changes of the history, which stay the same from one document to the next. */
const retargetings = new WeakMap<RouteChange, boolean>();

function hasRetargeted(change: RouteChange): boolean {
  const found = retargetings.get(change) ?? isRetargeting(change);
  retargetings.set(change, found);
  return found;
}
