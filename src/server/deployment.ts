/**
 * The service itself: a store and an engine that runs what its routes say. Every change goes to the store first, durably,
 * and then to the engine, so that whoever was told of a change finds it again after a crash; models are loaded and
 * tried out before either. Changes of the store by other processes are followed. What runs is the business of
 * `live-models.ts` and `live-routes.ts`; here stands what may be asked, one change after the other.
 */
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import type { Engine } from "../engine/index.js";
import { toEvaluation } from "../onnx/evaluation.js";
import type { Model } from "../onnx/model.js";
import { readModel } from "../onnx/read.js";
import { modelBytes } from "../onnx/write.js";
import type { Route, Store } from "../store/index.js";
import { requireRouteName, retargeted, routeTo, withCandidate } from "../store/index.js";
import { Answering } from "./answering.js";
import { agreementMeasure, Comparisons } from "./comparisons.js";
import { giveWay } from "./give-way.js";
import { LiveModels, nameOf, type Report } from "./live-models.js";
import { LiveRoutes, type LiveRoutesParts } from "./live-routes.js";
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
import { fromStored, toStored } from "./targets.js";
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

/** What a deployment is made of. */
interface DeploymentParts {
  readonly store: Store;
  readonly engine: Engine;
  readonly models: LiveModels;
  readonly routes: LiveRoutes;
  readonly statistics: Statistics;
  readonly trials: Trials;
  readonly report: Report;
}

/** A store's routes, running. */
export class Deployment implements Service {
  readonly name = "polyhead";
  readonly version: string;
  readonly #store: Store;
  readonly #engine: Engine;
  readonly #log: (event: Readonly<Record<string, unknown>>) => void;
  readonly #report: Report;
  readonly #statistics: Statistics;
  readonly #comparisons = new Comparisons();
  readonly #trials: Trials;
  readonly #answering: Answering;
  readonly #models: LiveModels;
  readonly #routes: LiveRoutes;
  #changes: Promise<unknown> = Promise.resolve();
  #isDraining = false;
  #stopFollowing: () => void = () => {};

  private constructor(parts: DeploymentParts, { version, log, imagePixels }: DeploymentOptions) {
    this.#store = parts.store;
    this.#engine = parts.engine;
    this.#models = parts.models;
    this.#routes = parts.routes;
    this.#statistics = parts.statistics;
    this.#trials = parts.trials;
    this.#report = parts.report;
    this.version = version ?? "";
    this.#log = log ?? (() => {});
    this.#answering = new Answering({
      engine: parts.engine,
      statistics: this.#statistics,
      comparisons: this.#comparisons,
      imagePixels: imagePixels ?? DEFAULT_LIMITS.imagePixels,
      model: (name, version) => this.model(name, version),
      observed: (route, revision, observation) => this.#observe(route, revision, observation),
    });
  }

  /**
   * Loads what the store's routes need. A route whose model does not load is left out, and said to be unavailable.
   * @throws PolyheadError STORE_DAMAGED when the routes cannot be read
   */
  static async open(store: Store, engine: Engine, options: DeploymentOptions = {}): Promise<Deployment> {
    const report: Report = (what, thrown, more = {}) => {
      const { code, message } = asPolyheadError(thrown, "INTERNAL", "A change failed");
      options.log?.({ level: "error", what, code, message, ...more });
    };
    const [statistics, trials] = [new Statistics(), new Trials()];
    const models = new LiveModels(store, engine, report);
    const applied: LiveRoutesParts["applied"] = (routes, switched) => {
      for (const name of switched) statistics.switched(name);
      trials.follow(routes);
    };
    const routes = await LiveRoutes.open({ store, engine, models, report, applied });
    const made = new Deployment({ store, engine, models, routes, statistics, trials, report }, options);
    void made.#change(() => routes.loadPast());
    made.#stopFollowing = await store.watch(() => {
      made.#change(() => routes.follow()).catch((thrown) => report("follow", thrown));
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
    return this.#routes.all();
  }

  model(name: string, version?: string): ServedModel {
    return this.#routes.model(name, version);
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

  repositoryIndex(readyOnly: boolean): Promise<readonly RepositoryEntry[]> {
    return this.#routes.repositoryIndex(readyOnly);
  }

  async repositoryLoad(name: string, file: Uint8Array | undefined, author: Author): Promise<void> {
    if (file) {
      const isNew = !this.#routes.document.routes.has(name);
      const revision = await this.addModel(file, name, author);
      if (!isNew) await this.setTargets({ [name]: plainTarget(revision) }, author);
      return;
    }
    if (this.#engine.routes.has(name)) return;
    const target = this.#routes.past(name);
    const titled = (await this.#store.models()).find(({ title }) => nameOf(title) === name);
    const route = target ?? (titled && routeTo(titled.revision));
    if (!route) throw this.#routes.noRoute(name);
    await this.#change(() => this.#put({ [name]: route }, author, "load"));
  }

  async repositoryUnload(name: string, author: Author): Promise<void> {
    if (this.#engine.routes.has(name) && !this.#routes.document.routes.has(name)) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `${JSON.stringify(name)} is a backbone that other models read; it cannot be unloaded.`,
        { model: name },
      );
    }
    await this.removeRoute(name, author);
  }

  routes(): readonly RouteStatus[] {
    return this.#routes.names.map((name) => this.route(name));
  }

  route(name: string): RouteStatus {
    const stored = this.#routes.stored(name);
    const { metadata } = this.model(name);
    const target = fromStored(stored);
    const canaries = target.revisions.slice(1).map(({ revision }) => revision);
    const compared = target.limits?.agreement === undefined ? [] : canaries;
    return {
      name,
      ...target,
      task: metadata.task,
      labels: metadata.labels?.length,
      quality: this.#models.adapterOf(target.revisions[0]?.revision ?? "")?.quality ?? metadata.quality,
      ...this.#statistics.totals(name),
      comparisons: this.#comparisons.report(name, [...compared, ...target.shadows]),
    };
  }

  history(name?: string): readonly HistoryEntry[] {
    return this.#routes.history(name);
  }

  async addModel(
    file: Uint8Array,
    route: string | undefined,
    author: Author,
    title?: string,
  ): Promise<string> {
    if (route !== undefined) requireRouteName(route);
    const { model } = toEvaluation(await readModel(file));
    await giveWay(this.#engine);
    return this.#change(() => this.#add(model, route, author, title)).catch(async (thrown) => {
      const { withPlan } = await import("./head-plan.js"); // much code, and few heads are refused
      throw await withPlan(thrown, model, route, () => this.#models.backboneModels());
    });
  }

  async addKept(revision: string, route: string, author: Author): Promise<string> {
    requireRouteName(route);
    const model = await this.#store.model(revision);
    return this.#change(() => this.#add(model, route, author));
  }

  async modelFile(revision: string): Promise<Uint8Array> {
    return modelBytes(await this.#store.model(revision));
  }

  /**
   * Makes a model in evaluation mode answer for a route at once, a new one or one that is there, whose shadows stay.
   * @returns its revision
   * @throws PolyheadError INVALID_ARGUMENT for a bad name, what loading throws; then the route is what it was
   */
  async putLive(model: Model, route: string, author: Author): Promise<string> {
    requireRouteName(route);
    return this.#change(async () => {
      const revision = await this.#models.keep(model, () => `${route}.onnx`);
      const shadows = (this.#routes.document.routes.get(route)?.shadows ?? []).filter(
        (each) => each !== revision,
      );
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
      const revision = await this.#models.keep(model, () => title);
      await this.#routes.apply();
      return revision;
    });
  }

  /** Whether the store's routes or their history know a revision under a route. */
  knows(route: string, revision: string): boolean {
    return this.#routes.knows(route, revision);
  }

  async #add(model: Model, route: string | undefined, author: Author, title?: string): Promise<string> {
    const named = (made: string) => title ?? `${route ?? made.slice(0, 12)}.onnx`;
    const revision = await this.#models.keep(model, named);
    if (route === undefined) {
      await this.#routes.apply();
      return revision;
    }
    if (!this.#routes.document.routes.has(route)) {
      await this.#put({ [route]: routeTo(revision) }, author, "add");
      return revision;
    }
    const { by, reason = `added ${revision.slice(0, 12)}, to be switched to` } = author;
    const document = await this.#store.change(
      (routes) => routes.set(route, withCandidate(routes.get(route) ?? routeTo(revision), revision)),
      { by, reason, action: "add" },
    );
    await giveWay(this.#engine);
    await this.#routes.apply(document);
    return revision;
  }

  setTargets(changes: Readonly<Record<string, RouteTarget>>, author: Author): Promise<number> {
    return this.#change(async () => {
      for (const [name, { limits }] of Object.entries(changes)) {
        this.#routes.stored(name);
        if (limits?.agreement === undefined) continue;
        const { metadata } = this.model(name);
        if (!agreementMeasure(metadata)) throw noAgreement(name, metadata.task);
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
      const before = this.#routes.before(route);
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
      this.#routes.stored(route);
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
    for (const route of Object.values(changes)) if (route) await this.#models.load(route);
    const document = await this.#store.change(
      (routes) => {
        for (const [name, route] of Object.entries(changes)) {
          if (route) routes.set(name, retargeted(routes.get(name), route));
          else routes.delete(name);
        }
      },
      { by, reason: reason ?? action, action },
    );
    return this.#routes.apply(document);
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
    const route = this.#routes.document.routes.get(name);
    const [main, ...canaries] = route?.targets ?? [];
    // Somebody may have changed the route meanwhile; then it is no concern of this trial any more.
    if (!route || !main || !canaries.some(({ revision }) => revision === canary)) return;
    const others = canaries.filter(({ revision }) => revision !== canary);
    const { limits: _, ...rest } = route;
    const after = others.length > 0 ? { ...route, targets: [main, ...others] } : { ...rest, targets: [main] };
    await this.#put({ [name]: after }, { by: "polyhead", reason }, "rollback");
    this.#log({ level: "warn", what: "rollback", route: name, message: reason });
  }

  /** One change after the other. */
  #change<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#changes.then(change);
    this.#changes = done.catch(() => {});
    return done;
  }
}

function noAgreement(route: string, task: string | undefined): PolyheadError {
  return new PolyheadError(
    "INVALID_ARGUMENT",
    `The route ${JSON.stringify(route)} has the task ${JSON.stringify(task)}; agreement is about the first class of classifiers and the cosine of embeddings, so limit errors and latency only.`,
    { route, task },
  );
}

function plainTarget(revision: string): RouteTarget {
  return { revisions: [{ revision, weight: 1 }], shadows: [] };
}
