/**
 * A deployment over a real store and engine, for tests of the protocols, that tells what it was asked and can be told to
 * do what a real one does only when it fails or is full: to turn requests away, to fail them, to keep them waiting, to be
 * not ready. All else, answers, revisions, generations, history, counts, is the deployment's own.
 */
import type { PolyheadError } from "../../src/base/errors.js";
import type { Model } from "../../src/onnx/model.js";
import type { Deployment } from "../../src/server/deployment.js";
import type {
  Author,
  ImageRequest,
  InferenceRequest,
  RouteTarget,
  Service,
} from "../../src/server/service.js";
import { routeTo, Store } from "../../src/store/index.js";
import { deploy, newFolder } from "./small-deployment.js";

/** A change that was asked for. */
export interface AskedChange {
  readonly what: string;
  readonly name?: string | undefined;
  readonly author: Author;
  readonly data?: unknown;
}

/** The route whose requests wait until they are let go or aborted. */
export const GATE = "gate";

/** A deployment under observation. */
export class ObservedService implements Service {
  readonly deployment: Deployment;
  readonly store: Store;
  /** The revision of each model by the name that it was made under. */
  readonly revisions: Readonly<Record<string, string>>;
  ready = true;
  /** Why requests are turned away at the door, if they are. */
  refusal: PolyheadError | undefined;
  /** Thrown by the next requests and loads when set. */
  failure: unknown;
  /** Runs before an inference. */
  before: ((request: InferenceRequest) => Promise<void> | void) | undefined;
  readonly requests: (InferenceRequest | ImageRequest)[] = [];
  readonly changes: AskedChange[] = [];
  /** Lets requests to the gate go on. */
  readonly waiting = new Set<() => void>();
  aborted = 0;

  constructor(deployment: Deployment, store: Store, revisions: Readonly<Record<string, string>>) {
    this.deployment = deployment;
    this.store = store;
    this.revisions = revisions;
  }

  /** A deployment with a route for each model, under its name, and models that are kept without one. */
  static async of(
    routes: Readonly<Record<string, Model>>,
    kept: Readonly<Record<string, Model>> = {},
  ): Promise<ObservedService> {
    const folder = await newFolder();
    const store = await Store.open(folder);
    const revisions: Record<string, string> = {};
    for (const [name, model] of Object.entries({ ...routes, ...kept }))
      revisions[name] = await store.put(model, { title: `${name}.onnx` });
    await store.change(
      (now) => {
        for (const name of Object.keys(routes)) now.set(name, routeTo(revisions[name] ?? ""));
      },
      { by: "test", reason: "the models of the test" },
    );
    return new ObservedService(await deploy(folder, { version: "1.2.3" }), store, revisions);
  }

  get name() {
    return this.deployment.name;
  }

  get version() {
    return this.deployment.version;
  }

  /** The engine's, which answers name. */
  get generation(): number {
    return Number(/^polyhead_generation (\d+)$/m.exec(this.metrics())?.[1]);
  }

  /** Where a route points. */
  target(name: string): RouteTarget {
    const { revisions, shadows, limits } = this.deployment.route(name);
    return { revisions, shadows, ...(limits && { limits }) };
  }

  isLive() {
    return this.deployment.isLive();
  }

  isReady() {
    return this.ready && this.deployment.isReady();
  }

  admit(): void {
    if (this.refusal) throw this.refusal;
    this.deployment.admit();
  }

  models() {
    return this.deployment.models();
  }

  model(name: string, version?: string) {
    return this.deployment.model(name, version);
  }

  async infer(request: InferenceRequest) {
    this.requests.push(request);
    await this.before?.(request);
    if (this.failure) throw this.failure;
    if (request.routes.includes(GATE)) await this.#wait(request.signal);
    return this.deployment.infer(request);
  }

  async inferImage(request: ImageRequest) {
    this.requests.push(request);
    if (this.failure) throw this.failure;
    return this.deployment.inferImage(request);
  }

  statistics(name?: string, version?: string) {
    return this.deployment.statistics(name, version);
  }

  repositoryIndex(readyOnly: boolean) {
    return this.deployment.repositoryIndex(readyOnly);
  }

  async repositoryLoad(name: string, file: Uint8Array | undefined, author: Author) {
    if (this.failure) throw this.failure;
    this.changes.push({ what: "load", name, author, data: file });
    return this.deployment.repositoryLoad(name, file, author);
  }

  repositoryUnload(name: string, author: Author) {
    this.changes.push({ what: "unload", name, author });
    return this.deployment.repositoryUnload(name, author);
  }

  routes() {
    return this.deployment.routes();
  }

  route(name: string) {
    return this.deployment.route(name);
  }

  history(name?: string) {
    return this.deployment.history(name);
  }

  modelFile(revision: string) {
    return this.deployment.modelFile(revision);
  }

  addModel(file: Uint8Array, route: string | undefined, author: Author, title?: string) {
    this.changes.push({ what: "add", name: route, author });
    return this.deployment.addModel(file, route, author, title);
  }

  addKept(revision: string, route: string, author: Author) {
    this.changes.push({ what: "add", name: route, author });
    return this.deployment.addKept(revision, route, author);
  }

  setTargets(changes: Readonly<Record<string, RouteTarget>>, author: Author) {
    for (const [name, data] of Object.entries(changes))
      this.changes.push({ what: "switch", name, author, data });
    return this.deployment.setTargets(changes, author);
  }

  promote(route: string, author: Author) {
    this.changes.push({ what: "promote", name: route, author });
    return this.deployment.promote(route, author);
  }

  rollback(route: string, author: Author) {
    this.changes.push({ what: "rollback", name: route, author });
    return this.deployment.rollback(route, author);
  }

  removeRoute(route: string, author: Author) {
    this.changes.push({ what: "remove", name: route, author });
    return this.deployment.removeRoute(route, author);
  }

  metrics() {
    return this.deployment.metrics();
  }

  /** Lets all requests to the gate go on. */
  open(): void {
    for (const release of this.waiting) release();
    this.waiting.clear();
  }

  #wait(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.add(resolve);
      signal?.addEventListener("abort", () => {
        this.waiting.delete(resolve);
        this.aborted++;
        reject(signal.reason);
      });
    });
  }
}
