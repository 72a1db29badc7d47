/**
 * The service itself: an engine that runs what a store's routes say. Every change goes to the store first, durably,
 * and then to the engine, so that whoever was told of a change finds it again after a crash; models are loaded and
 * tried out before either. Changes of the store by other processes are followed.
 */
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import type { Engine, LoadedModel } from "../engine/index.js";
import { toEvaluation } from "../onnx/evaluation.js";
import type { Metadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { readModel } from "../onnx/read.js";
import { modelBytes } from "../onnx/write.js";
import type { Route, RouteChange, RoutesDocument, Store } from "../store/index.js";
import { isRetargeting, retargeted, routeTo, withCandidate } from "../store/index.js";
import { Answering } from "./answering.js";
import { Comparisons } from "./comparisons.js";
import { type NamedBackbone, withPlan } from "./head-plan.js";
import { prometheusText } from "./metrics.js";
import { DEFAULT_LIMITS } from "./protocol/limits.js";
import type {
  Author,
  HistoryEntry,
  ImageRequest,
  ImageResult,
  InferenceRequest,
  InferenceResult,
  ModelStatistics,
  RepositoryEntry,
  RouteStatus,
  RouteTarget,
  ServedModel,
  Service,
} from "./service.js";
import { Statistics } from "./statistics.js";
import { fromStored, historyOf, toEngine, toStored } from "./targets.js";
import { type Observation, Trials } from "./trials.js";

/** Settings of a deployment. */
export interface DeploymentOptions {
  /** Of the program, for clients that ask. */
  readonly version?: string;
  /** Pixels that an image may have; 50 million by default. */
  readonly imagePixels?: number | undefined;
  /** Told what happens that nobody asked for. */
  readonly log?: (event: Readonly<Record<string, unknown>>) => void;
}

/** A store's routes, running. */
export class Deployment implements Service {
  readonly name = "polyhead";
  readonly version: string;
  readonly #store: Store;
  readonly #engine: Engine;
  readonly #log: (event: Readonly<Record<string, unknown>>) => void;
  readonly #statistics = new Statistics();
  readonly #comparisons = new Comparisons();
  readonly #trials = new Trials();
  readonly #answering: Answering;
  /** Why routes of the store do not run. */
  readonly #unavailable = new Map<string, string>();
  /** Routes as clients see them, one entry a revision, until something changes. */
  readonly #served = new Map<string, readonly ServedModel[]>();
  #document: RoutesDocument;
  #changes: Promise<unknown> = Promise.resolve();
  #isDraining = false;
  #stopFollowing: () => void = () => {};

  private constructor(store: Store, engine: Engine, document: RoutesDocument, options: DeploymentOptions) {
    this.#store = store;
    this.#engine = engine;
    this.#document = document;
    this.version = options.version ?? "";
    this.#log = options.log ?? (() => {});
    this.#answering = new Answering({
      engine,
      statistics: this.#statistics,
      comparisons: this.#comparisons,
      imagePixels: options.imagePixels ?? DEFAULT_LIMITS.imagePixels,
      model: (name, version) => this.model(name, version),
      observed: (route, revision, observation) => this.#observe(route, revision, observation),
    });
  }

  /**
   * Loads what the store's routes need. A route whose model does not load is left out, and said to be unavailable.
   * @throws PolyheadError STORE_DAMAGED when the routes cannot be read
   */
  static async open(store: Store, engine: Engine, options: DeploymentOptions = {}): Promise<Deployment> {
    const made = new Deployment(store, engine, await store.routes(), options);
    await made.#apply(made.#document);
    void made.#change(() => made.#loadReady(made.#pastRevisions()));
    made.#stopFollowing = await store.watch(() => {
      made.#change(() => made.#follow()).catch((thrown) => made.#report("follow", thrown));
    });
    return made;
  }

  /** From here on it is not ready, so that balancers send no more; requests are answered all the same. */
  drain(): void {
    this.#isDraining = true;
  }

  /** Waits for what is under way, and ends the engine. */
  async close(): Promise<void> {
    this.drain();
    this.#stopFollowing();
    await this.#changes;
    await this.#engine.close();
  }

  isLive(): boolean {
    return true;
  }

  isReady(): boolean {
    return !this.#isDraining;
  }

  admit(): void {
    this.#answering.admit();
  }

  models(): readonly ServedModel[] {
    return [...this.#engine.routes.keys()].map((name) => this.model(name));
  }

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

  infer(request: InferenceRequest): Promise<InferenceResult> {
    return this.#answering.infer(request);
  }

  inferImage(request: ImageRequest): Promise<ImageResult> {
    return this.#answering.inferImage(request);
  }

  statistics(name?: string, version?: string): readonly ModelStatistics[] {
    if (name !== undefined) this.model(name, version);
    return this.#statistics.report(name, version);
  }

  async repositoryIndex(readyOnly: boolean): Promise<readonly RepositoryEntry[]> {
    const ready = this.models().map(({ name, versions }) => ({
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
    for (const { title, revision, role } of await this.#store.models())
      if (role !== "backbone" && role !== "adapter")
        add(nameOf(title), revision, "kept in the store, without a route");
    for (const { routes } of this.#document.history)
      for (const { name, from } of routes) add(name, from?.targets[0]?.revision ?? "", "unloaded");
    for (const [name, reason] of this.#unavailable)
      add(name, this.#document.routes.get(name)?.targets[0]?.revision ?? "", reason);
    return [...ready, ...others.values()];
  }

  async repositoryLoad(name: string, file: Uint8Array | undefined, author: Author): Promise<void> {
    if (file) {
      const isNew = !this.#document.routes.has(name);
      const revision = await this.addModel(file, name, author);
      if (!isNew) await this.setTargets({ [name]: plainTarget(revision) }, author);
      return;
    }
    if (this.#engine.routes.has(name)) return;
    const past = this.#document.history.toReversed().flatMap(({ routes }) => routes);
    const target = past.find((each) => each.name === name && each.from)?.from;
    const titled = (await this.#store.models()).find(({ title }) => nameOf(title) === name);
    const route = target ?? (titled && routeTo(titled.revision));
    if (!route) throw this.#noRoute(name);
    await this.#change(() => this.#put({ [name]: route }, author, "load"));
  }

  async repositoryUnload(name: string, author: Author): Promise<void> {
    if (this.#engine.routes.has(name) && !this.#document.routes.has(name)) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `${JSON.stringify(name)} is a backbone that other models read; it cannot be unloaded.`,
        { model: name },
      );
    }
    await this.removeRoute(name, author);
  }

  routes(): readonly RouteStatus[] {
    const names = [...this.#engine.routes.keys()].filter((name) => this.#document.routes.has(name));
    return names.map((name) => this.route(name));
  }

  route(name: string): RouteStatus {
    const stored = this.#document.routes.get(name);
    if (!stored) throw this.#noRoute(name);
    const { metadata } = this.model(name);
    const target = fromStored(stored);
    const canaries = target.revisions.slice(1).map(({ revision }) => revision);
    const compared = target.limits?.agreement === undefined ? [] : canaries;
    return {
      name,
      ...target,
      task: metadata.task,
      labels: metadata.labels?.length,
      quality: this.#adapterOf(target.revisions[0]?.revision ?? "")?.quality ?? metadata.quality,
      ...this.#statistics.totals(name),
      comparisons: this.#comparisons.report(name, [...compared, ...target.shadows]),
    };
  }

  history(name?: string): readonly HistoryEntry[] {
    const all = this.#document.history.toReversed().flatMap(historyOf);
    const own = name === undefined ? all : all.filter(({ route }) => route === name);
    if (name !== undefined && own.length === 0 && !this.#engine.routes.has(name)) throw this.#noRoute(name);
    return own;
  }

  async addModel(file: Uint8Array, route: string | undefined, author: Author): Promise<string> {
    const { model } = toEvaluation(await readModel(file));
    return this.#change(() => this.#add(model, route, author)).catch(async (thrown) => {
      throw await withPlan(thrown, model, route, () => this.#backboneModels());
    });
  }

  async modelFile(revision: string): Promise<Uint8Array> {
    return modelBytes(await this.#store.model(revision));
  }

  /**
   * Makes a model in evaluation mode answer for a route at once, a new one or one that is there, whose shadows stay.
   * @returns its revision
   * @throws PolyheadError what loading throws; then the route is what it was
   */
  async putLive(model: Model, route: string, author: Author): Promise<string> {
    return this.#change(async () => {
      const revision = await this.#engine.load(model);
      await this.#store.put(model, { title: `${route}.onnx` });
      const shadows = (this.#document.routes.get(route)?.shadows ?? []).filter((each) => each !== revision);
      const target = { ...routeTo(revision), ...(shadows.length > 0 && { shadows }) };
      await this.#put({ [route]: target }, author, "switch");
      return revision;
    });
  }

  /**
   * Keeps a model in evaluation mode for others to read.
   * @returns its revision
   * @throws PolyheadError what loading throws
   */
  async keep(model: Model, title: string): Promise<string> {
    return this.#change(async () => {
      const revision = await this.#engine.load(model);
      await this.#store.put(model, { title });
      await this.#apply(this.#document);
      return revision;
    });
  }

  /** Whether the store's routes or their history know a revision under a route. */
  knows(route: string, revision: string): boolean {
    const past = this.#document.history.flatMap(({ routes }) => routes.filter(({ name }) => name === route));
    const targets = [this.#document.routes.get(route), ...past.flatMap(({ from, to }) => [from, to])];
    return targets.some((each) => each?.targets.some((target) => target.revision === revision));
  }

  async #add(model: Model, route: string | undefined, author: Author): Promise<string> {
    const revision = await this.#engine.load(model);
    await this.#store.put(model, { title: `${route ?? revision.slice(0, 12)}.onnx` });
    if (route === undefined) {
      await this.#apply(this.#document);
      return revision;
    }
    if (!this.#document.routes.has(route)) {
      await this.#put({ [route]: routeTo(revision) }, author, "add");
      return revision;
    }
    const { by, reason = `added ${revision.slice(0, 12)}, to be switched to` } = author;
    const document = await this.#store.change(
      (routes) => routes.set(route, withCandidate(routes.get(route) ?? routeTo(revision), revision)),
      { by, reason, action: "add" },
    );
    await this.#apply(document);
    return revision;
  }

  setTargets(changes: Readonly<Record<string, RouteTarget>>, author: Author): Promise<number> {
    return this.#change(async () => {
      for (const [name, { limits }] of Object.entries(changes)) {
        if (!this.#document.routes.has(name)) throw this.#noRoute(name);
        if (limits?.agreement === undefined) continue;
        const { task } = this.model(name).metadata;
        if (task !== undefined && task !== "classification") throw noAgreement(name, task);
      }
      const wanted = Object.entries(changes).map(([name, target]) => [name, toStored(target)] as const);
      return this.#put(Object.fromEntries(wanted), author, "switch");
    });
  }

  promote(route: string, author: Author): Promise<number> {
    return this.#change(async () => {
      const { revisions } = this.route(route);
      const canary = revisions[1];
      if (!canary) {
        throw new PolyheadError(
          "INVALID_ARGUMENT",
          `The route ${JSON.stringify(route)} has no canary to promote.`,
          {
            route,
          },
        );
      }
      return this.#put({ [route]: routeTo(canary.revision) }, author, "promote");
    });
  }

  rollback(route: string, author: Author): Promise<number> {
    return this.#change(async () => {
      this.model(route);
      const before = this.#retargetings().findLast(({ name }) => name === route)?.from;
      if (!before) {
        throw new PolyheadError("NOT_FOUND", `The route ${JSON.stringify(route)} was nothing else before.`, {
          route,
        });
      }
      return this.#put({ [route]: before }, author, "rollback");
    });
  }

  async removeRoute(route: string, author: Author): Promise<void> {
    await this.#change(async () => {
      if (!this.#document.routes.has(route)) throw this.#noRoute(route);
      await this.#put({ [route]: null }, author, "remove");
    });
  }

  metrics(): string {
    const { queued, running } = this.#engine.work;
    const { bytes, entries } = this.#engine.cache;
    return prometheusText({
      statistics: this.#statistics,
      comparisons: this.#comparisons,
      gauges: {
        polyhead_queued_requests: ["Requests that wait.", queued],
        polyhead_running_batches: ["Batches that run.", running],
        polyhead_cache_bytes: ["Features in the cache.", bytes],
        polyhead_cache_entries: ["Inputs in the cache.", entries],
        polyhead_generation: ["The engine's generation.", this.#engine.generation],
        polyhead_routes: ["Routes that answer.", this.routes().length],
      },
    });
  }

  /** Loads what routes need, keeps them in the store, and then lets them run. */
  async #put(
    changes: Readonly<Record<string, Route | null>>,
    { by, reason }: Author,
    action: string,
  ): Promise<number> {
    for (const route of Object.values(changes)) if (route) await this.#load(route);
    const document = await this.#store.change(
      (routes) => {
        for (const [name, route] of Object.entries(changes)) {
          if (route) routes.set(name, retargeted(routes.get(name), route));
          else routes.delete(name);
        }
      },
      { by, reason: reason ?? action, action },
    );
    return this.#apply(document);
  }

  /** Takes over what others changed, and tries anew what did not run; its own changes have been applied before. */
  async #follow(): Promise<void> {
    const document = await this.#store.routes();
    const isOwn = document.generation === this.#document.generation;
    if (!isOwn || this.#unavailable.size > 0) await this.#apply(document);
  }

  /**
   * Makes the engine what the document says; all routes change at once.
   * @returns the generation from which on it holds
   */
  async #apply(document: RoutesDocument): Promise<number> {
    const changes: Record<string, ReturnType<typeof toEngine> | null> = {};
    this.#unavailable.clear();
    for (const [name, route] of document.routes) {
      try {
        await this.#load(route);
        changes[name] = toEngine(route);
        await this.#loadReady(route.candidates ?? []);
      } catch (thrown) {
        this.#unavailable.set(
          name,
          asPolyheadError(thrown, "LOAD_FAILED", "The model could not be loaded").message,
        );
        this.#report("load", thrown, { route: name });
      }
    }
    for (const name of this.#engine.routes.keys()) if (!document.routes.has(name)) changes[name] = null;
    for (const [name, revision] of await this.#backbones())
      if (!document.routes.has(name)) changes[name] = { revisions: [{ revision, weight: 1 }] };
    const generation = await this.#engine.assign(changes);
    this.#served.clear();
    for (const name of changedRoutes(this.#document, document)) this.#statistics.switched(name);
    this.#document = document;
    this.#trials.follow(document.routes);
    // What was asked for holds; a model too many is tried again with the next change.
    await this.#unloadRest().catch((thrown) => this.#report("unload", thrown));
    this.#served.clear();
    return generation;
  }

  async #backboneModels(): Promise<NamedBackbone[]> {
    const names = [...(await this.#backbones())];
    return Promise.all(
      names.map(async ([name, revision]) => ({ name, model: await this.#store.model(revision) })),
    );
  }

  /** Loaded backbones by the names that they were kept under; they are models without being routes. */
  async #backbones(): Promise<ReadonlyMap<string, string>> {
    const loaded = this.#loadedModels();
    const kept = (await this.#store.models()).filter(
      ({ role, revision }) => role === "backbone" && loaded.has(revision),
    );
    return new Map(kept.map(({ title, revision }) => [nameOf(title), revision]));
  }

  async #load({ targets, shadows = [] }: Route): Promise<void> {
    for (const revision of [...targets.map((each) => each.revision), ...shadows])
      await this.#loadRevision(revision);
  }

  /** Loads what nothing leads to yet or any more, so that a switch to it is quick; what fails is left out. */
  async #loadReady(revisions: Iterable<string>): Promise<void> {
    for (const revision of revisions)
      await this.#loadRevision(revision).catch((thrown) => this.#report("load", thrown, { revision }));
    this.#served.clear();
  }

  async #loadRevision(revision: string): Promise<void> {
    if (this.#engine.has(revision)) return;
    const model = await this.#store.model(revision);
    try {
      await this.#engine.load(model);
    } catch (thrown) {
      const isMismatch = thrown instanceof PolyheadError && thrown.code === "HEAD_MISMATCH";
      if (!isMismatch || !(await this.#loadProviders())) throw thrown;
      await this.#engine.load(model);
    }
  }

  /** Loads the store's backbones and adapters that are not loaded yet. @returns whether there were any */
  async #loadProviders(): Promise<boolean> {
    const loaded = this.#loadedModels();
    const missing = (await this.#store.models()).filter(
      ({ role, revision }) => (role === "backbone" || role === "adapter") && !loaded.has(revision),
    );
    const backbonesFirst = missing.sort(
      (a, b) => Number(a.role === "adapter") - Number(b.role === "adapter"),
    );
    let found = false;
    for (const { revision } of backbonesFirst) {
      const isLoaded = await this.#engine.load(await this.#store.model(revision)).catch(() => undefined);
      found ||= isLoaded !== undefined;
    }
    return found;
  }

  /** Heads that no route, candidate or last change names are given up; backbones stay for heads to come. */
  async #unloadRest(): Promise<void> {
    const candidates = [...this.#document.routes.values()].flatMap((route) => route.candidates ?? []);
    const kept = new Set([...candidates, ...this.#pastRevisions()]);
    for (const { revision, routes, metadata } of this.#engine.models) {
      const isProvider = metadata.role === "backbone" || metadata.role === "adapter";
      if (routes.length === 0 && !isProvider && !kept.has(revision)) await this.#engine.unload(revision);
    }
  }

  /** The revisions of a route that can be asked for, the one that answers by default first. */
  #describe(name: string): readonly ServedModel[] {
    const target = this.#engine.targets.get(name);
    if (!target) throw this.#noRoute(name);
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
    const loaded = this.#loadedModels();
    return [...revisions].flatMap((revision) => {
      const model = loaded.get(revision);
      return model ? [{ name, versions: [revision], ...model.signature, metadata: model.metadata }] : [];
    });
  }

  /** What is known of the adapter that a revision reads through; undefined where there is none. */
  #adapterOf(revision: string): Metadata | undefined {
    const loaded = this.#loadedModels();
    const through = (loaded.get(revision)?.through ?? []).flatMap((each) => loaded.get(each)?.metadata ?? []);
    return through.find(({ role }) => role === "adapter");
  }

  /** Counts for a canary on trial what it did, and takes it away when it has crossed its limits. */
  #observe(name: string, revision: string, observation: Observation): void {
    this.#trials.observe(name, revision, observation);
    const reason = this.#trials.verdict(name, revision);
    if (reason === undefined) return;
    this.#trials.end(name);
    this.#change(() => this.#removeCanary(name, revision, reason)).catch((thrown) => {
      this.#trials.restart(name);
      this.#report("rollback", thrown, { route: name });
    });
  }

  async #removeCanary(name: string, canary: string, reason: string): Promise<void> {
    const route = this.#document.routes.get(name);
    const [main, ...canaries] = route?.targets ?? [];
    // Somebody may have changed the route meanwhile; then it is no concern of this trial any more.
    if (!route || !main || !canaries.some(({ revision }) => revision === canary)) return;
    const others = canaries.filter(({ revision }) => revision !== canary);
    const { limits: _, ...rest } = route;
    const after = others.length > 0 ? { ...route, targets: [main, ...others] } : { ...rest, targets: [main] };
    await this.#put({ [name]: after }, { by: "polyhead", reason }, "rollback");
    this.#log({ level: "warn", what: "rollback", route: name, message: reason });
  }

  /** What the last changes led away from. */
  #pastRevisions(): Set<string> {
    const last = this.#retargetings().slice(-REMEMBERED);
    return new Set(last.flatMap(({ from }) => from?.targets.map(({ revision }) => revision) ?? []));
  }

  /** Changes that moved routes, oldest first. */
  #retargetings(): readonly RouteChange[] {
    return this.#document.history.flatMap(({ routes }) => routes).filter(isRetargeting);
  }

  #loadedModels(): ReadonlyMap<string, LoadedModel> {
    return new Map(this.#engine.models.map((each) => [each.revision, each]));
  }

  /** One change after the other. */
  #change<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#changes.then(change);
    this.#changes = done.catch(() => {});
    return done;
  }

  #report(what: string, thrown: unknown, more: Readonly<Record<string, unknown>> = {}): void {
    const { code, message } = asPolyheadError(thrown, "INTERNAL", "A change failed");
    this.#log({ level: "error", what, code, message, ...more });
  }

  #noRoute(name: string): PolyheadError {
    const reason = this.#unavailable.get(name);
    const known = [...this.#engine.routes.keys()];
    return new PolyheadError(
      "NOT_FOUND",
      reason
        ? `The route ${JSON.stringify(name)} does not run: ${reason}`
        : `No route is called ${JSON.stringify(name)}; expected one of ${known.join(", ") || "none, as none was added"}.`,
      { route: name, expected: known },
    );
  }
}

/** Changes whose earlier revisions stay loaded, so that going back is as quick as a switch. */
const REMEMBERED = 16;

/** Routes that answer otherwise in one document than in the other. */
function changedRoutes(before: RoutesDocument, after: RoutesDocument): string[] {
  const names = new Set([...before.routes.keys(), ...after.routes.keys()]);
  const routeOf = ({ routes }: RoutesDocument, name: string) => routes.get(name) ?? null;
  return [...names].filter((name) =>
    isRetargeting({ from: routeOf(before, name), to: routeOf(after, name) }),
  );
}

function noAgreement(route: string, task: string): PolyheadError {
  return new PolyheadError(
    "INVALID_ARGUMENT",
    `The route ${JSON.stringify(route)} has the task ${JSON.stringify(task)}; agreement is about the first class of classifiers, so limit errors and latency only.`,
    { route, task },
  );
}

function plainTarget(revision: string): RouteTarget {
  return { revisions: [{ revision, weight: 1 }], shadows: [] };
}

function nameOf(title: string): string {
  return title.replace(/\.onnx$/, "");
}
