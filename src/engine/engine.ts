/**
 * The engine: models in, routes published, requests answered. Whatever changes it, loading, switching,
 * unloading, happens one after the other and beside the requests; a request takes the current generation when it
 * comes and keeps it to its end.
 */
import { PolyheadError } from "../base/errors.js";
import type { Model } from "../onnx/model.js";
import { revisionOf } from "../onnx/revision.js";
import type { SessionOptions } from "../runtime/backend.js";
import type { Runtime } from "../runtime/runtime.js";
import type { Answer } from "./answer.js";
import { Answering, type AnsweringOptions, type RunOptions } from "./answering.js";
import { EarlierTargets } from "./earlier-targets.js";
import { Generation, type LoadedModel } from "./generation.js";
import { type Binding, type Member, makeMember } from "./member.js";
import { Plan } from "./plan.js";
import type { Inputs } from "./request.js";
import { Route, type RouteTarget } from "./route.js";

/** Settings of an engine. */
export interface EngineOptions extends AnsweringOptions {
  /** Threads inside the operators of backbones; heads take one. 1 by default. */
  readonly threads?: number;
  /**
   * Whether these threads keep the processor while they wait for work. An engine that is alone with its caller
   * answers sooner then; one that shares the processor, with what reads requests for example, later. False by default.
   */
  readonly spinning?: boolean;
}

/** How a model is loaded. */
export interface LoadOptions {
  /**
   * Taps to read, by the head's inputs, whatever the head was made for: for heads of unknown origin, and for
   * those who know better than the identities.
   */
  readonly bind?: Binding;
}

/** One backbone or several, many heads, switched live. */
export class Engine {
  readonly #runtime: Runtime;
  readonly #answering: Answering;
  readonly #heavy: SessionOptions;
  readonly #earlier = new EarlierTargets();
  #current: Generation;
  /** Changes, one after the other. */
  #changes: Promise<unknown> = Promise.resolve();
  /** Requests under way. */
  readonly #requests = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;

  private constructor(runtime: Runtime, plan: Plan, options: EngineOptions) {
    this.#runtime = runtime;
    this.#answering = new Answering(runtime, options);
    this.#heavy = { threads: options.threads ?? 1, spinning: options.spinning ?? false };
    this.#current = new Generation(0, plan);
  }

  /** An engine over a runtime, which it closes when it is closed. */
  static async open(runtime: Runtime, options: EngineOptions = {}): Promise<Engine> {
    return new Engine(runtime, await Plan.build([], runtime, {}), options);
  }

  /** The number of the current generation. */
  get generation(): number {
    return this.#current.number;
  }

  /** The revision that every route is for. */
  get routes(): ReadonlyMap<string, string> {
    return new Map([...this.#current.routes].map(([name, { main }]) => [name, main.revision]));
  }

  /** Where every route points, canaries and shadows included. */
  get targets(): ReadonlyMap<string, RouteTarget> {
    return new Map([...this.#current.routes].map(([name, { target }]) => [name, target]));
  }

  /** Requests that wait, and batches that run. */
  get work(): { queued: number; running: number } {
    return this.#answering.scheduler.stats;
  }

  /** All loaded models, live or not. */
  get models(): LoadedModel[] {
    return this.#current.models;
  }

  /** Whether a revision is loaded. */
  has(revision: string): boolean {
    return this.#current.members.has(revision);
  }

  /** The sessions: which revisions share each. */
  get segments(): { usedBy: readonly string[]; nodes: number }[] {
    return this.#current.plan.segments;
  }

  /** What the feature cache holds. */
  get cache(): { entries: number; bytes: number; limit: number } {
    return this.#answering.cache.stats;
  }

  /**
   * Loads a model without giving it a route: ready to be switched to. A model that is loaded already is not
   * loaded again.
   * @returns its revision
   * @throws PolyheadError HEAD_MISMATCH, LOAD_FAILED, MODEL_MALFORMED, MODEL_UNSUPPORTED, CLOSED; nothing has changed then
   */
  async load(model: Model, options: LoadOptions = {}): Promise<string> {
    return this.#change(async () => {
      const member = await this.#member(model, options);
      await this.#publish(this.#withMember(member), this.#current.routes);
      return member.revision;
    });
  }

  /**
   * Loads a model, a backbone or a head, and gives it a new route.
   * @returns its revision
   * @throws PolyheadError ALREADY_EXISTS when the route is there, and what {@link load} throws
   */
  async add(route: string, model: Model, options: LoadOptions = {}): Promise<string> {
    return this.#change(async () => {
      if (this.#current.routes.has(route)) {
        throw new PolyheadError(
          "ALREADY_EXISTS",
          `The route ${JSON.stringify(route)} exists; switch it to another revision, or remove it first.`,
          { route },
        );
      }
      const member = await this.#member(model, options);
      const made = new Route({ revisions: [{ revision: member.revision, weight: 1 }] }, () => member);
      await this.#publish(this.#withMember(member), new Map([...this.#current.routes, [route, made]]));
      return member.revision;
    });
  }

  /**
   * Points routes elsewhere, all at once: a request sees all of the change or nothing. A route points to a loaded
   * revision, or to several that share its requests, with shadows.
   * @returns the number of the generation from which on it holds
   * @throws PolyheadError NOT_FOUND for a route or revision that is not there, INVALID_ARGUMENT for shares that are none
   */
  async switch(changes: Readonly<Record<string, string | RouteTarget>>): Promise<number> {
    return this.#change(async () => {
      for (const name of Object.keys(changes)) this.#current.route(name);
      return this.#assign(changes);
    });
  }

  /**
   * Gives, moves and takes away routes, all at once; what is not named stays. A new name is given a route, and one
   * with `null` loses its route.
   * @returns the number of the generation from which on it holds
   * @throws PolyheadError NOT_FOUND for a revision that is not loaded, INVALID_ARGUMENT for shares that are none
   */
  async assign(changes: Readonly<Record<string, string | RouteTarget | null>>): Promise<number> {
    return this.#change(() => this.#assign(changes));
  }

  async #assign(changes: Readonly<Record<string, string | RouteTarget | null>>): Promise<number> {
    const routes = new Map(this.#current.routes);
    const changed: [string, RouteTarget][] = [];
    for (const [name, target] of Object.entries(changes)) {
      const before = routes.get(name);
      if (target === null) {
        routes.delete(name);
        continue;
      }
      const wanted = typeof target === "string" ? { revisions: [{ revision: target, weight: 1 }] } : target;
      const after = new Route(wanted, (revision) => this.#current.member(revision));
      if (before && JSON.stringify(before.target) === JSON.stringify(after.target)) continue;
      routes.set(name, after);
      if (before) changed.push([name, before.target]);
    }
    const generation = await this.#publish(this.#current.members, routes);
    for (const [name, before] of changed) this.#earlier.push(name, before);
    for (const [name, target] of Object.entries(changes)) if (target === null) this.#earlier.delete(name);
    return generation;
  }

  /**
   * Points a route back to where it pointed before its last switch.
   * @returns the revision that it is for then
   * @throws PolyheadError NOT_FOUND when there is none, or it is not loaded any more
   */
  async rollback(route: string): Promise<string> {
    return this.#change(async () => {
      this.#current.route(route);
      const target = this.#earlier.last(route);
      if (target === undefined) {
        throw new PolyheadError(
          "NOT_FOUND",
          `The route ${JSON.stringify(route)} has no earlier revision that is still loaded.`,
          { route },
        );
      }
      const before = new Route(target, (revision) => this.#current.member(revision));
      await this.#publish(this.#current.members, new Map([...this.#current.routes, [route, before]]));
      this.#earlier.pop(route);
      return before.main.revision;
    });
  }

  /**
   * Removes a route; its model stays loaded.
   * @throws PolyheadError NOT_FOUND
   */
  async remove(route: string): Promise<void> {
    return this.#change(async () => {
      this.#current.route(route);
      const routes = new Map(this.#current.routes);
      routes.delete(route);
      await this.#publish(this.#current.members, routes);
      this.#earlier.delete(route);
    });
  }

  /**
   * Unloads a model that no route points to. Requests under way keep it to their end. Heads that read a
   * backbone keep what they need of it.
   * @throws PolyheadError NOT_FOUND, or ALREADY_EXISTS when a route points to it
   */
  async unload(revision: string): Promise<void> {
    return this.#change(async () => {
      const { members, routes } = this.#current;
      this.#current.member(revision);
      const user = this.#current.userOf(revision);
      if (user !== undefined) {
        throw new PolyheadError(
          "ALREADY_EXISTS",
          `The route ${JSON.stringify(user)} points to ${revision}; switch or remove it first.`,
          { route: user, revision },
        );
      }
      const rest = new Map(members);
      rest.delete(revision);
      await this.#publish(rest, routes);
      this.#earlier.without(revision);
    });
  }

  /**
   * Says at once, and at no cost, whether a request would be refused now: for servers, before they read one.
   * @throws PolyheadError OVERLOADED, CLOSED
   */
  admit(): void {
    this.#refuseClosed();
    this.#answering.scheduler.admit();
  }

  /**
   * Answers one or several routes from one pass over the backbone. The inputs must not change until the promise
   * settles. A route that fails fails the request; a shadow does not.
   * @throws PolyheadError NOT_FOUND for an unknown route, INPUT_MISMATCH, RUN_FAILED, ABORTED, OVERLOADED,
   *   DEADLINE_EXCEEDED, WORKER_LOST, CLOSED
   */
  async run<const Name extends string>(
    routes: readonly Name[],
    inputs: Inputs,
    options: RunOptions = {},
  ): Promise<Answer<Name>> {
    this.#refuseClosed();
    const answer = this.#answering.answer(this.#current, routes, inputs, options);
    this.#requests.add(answer);
    try {
      return await answer;
    } finally {
      this.#requests.delete(answer);
    }
  }

  /** Lets requests and changes under way finish, refuses new ones, frees everything. Can be called again. */
  close(): Promise<void> {
    this.#closed ??= this.#changes.then(async () => {
      await Promise.allSettled(this.#requests);
      await this.#runtime.close();
      this.#answering.cache.clear();
    });
    return this.#closed;
  }

  async #member(model: Model, { bind }: LoadOptions): Promise<Member> {
    const revision = await revisionOf(model);
    const known = this.#current.members.get(revision);
    if (known && !bind) return known;
    return makeMember(model, revision, [...this.#current.members.values()], bind);
  }

  #withMember(member: Member): ReadonlyMap<string, Member> {
    return new Map([...this.#current.members, [member.revision, member]]);
  }

  /** Makes the next generation the current one. Only here does the current generation change. */
  async #publish(members: ReadonlyMap<string, Member>, routes: ReadonlyMap<string, Route>): Promise<number> {
    const before = this.#current;
    const same =
      members.size === before.members.size &&
      [...members].every(([key, each]) => before.members.get(key) === each);
    const plan = same
      ? before.plan.hold()
      : await Plan.build([...members.values()], this.#runtime, this.#heavy, before.plan);
    this.#current = new Generation(before.number + 1, plan, members, routes);
    await before.plan.drop();
    return this.#current.number;
  }

  #change<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#changes.then(() => {
      this.#refuseClosed();
      return change();
    });
    this.#changes = done.catch(() => {});
    return done;
  }

  #refuseClosed(): void {
    if (this.#closed) throw new PolyheadError("CLOSED", "The engine is closed.", {});
  }
}
