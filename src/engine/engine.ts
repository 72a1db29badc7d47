/**
 * The engine: models in, routes published, requests answered. Whatever changes it, loading, switching,
 * unloading, happens one after the other and beside the requests; a request takes the current generation when it
 * comes and keeps it to its end.
 */
import { PolyheadError } from "../base/errors.js";
import type { Identity } from "../onnx/identity.js";
import type { Metadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { revisionOf } from "../onnx/revision.js";
import type { SessionOptions } from "../runtime/backend.js";
import type { Runtime } from "../runtime/runtime.js";
import type { Tensor } from "../tensor/tensor.js";
import { type Answer, answerOf, type Made, type RouteAnswer, shadowAnswer } from "./answer.js";
import { FeatureCache } from "./feature-cache.js";
import { type Binding, type Member, makeMember, type Signature } from "./member.js";
import { Plan } from "./plan.js";
import { bindRequest, digestOf, type Inputs, rowsOf } from "./request.js";
import { Route, type RouteTarget } from "./route.js";
import { Scheduler, type SchedulerOptions } from "./scheduler.js";
import { Sightings } from "./sightings.js";

/** Settings of an engine. */
export interface EngineOptions extends SchedulerOptions {
  /** Bytes of features to keep; 256 MiB by default, 0 for none. */
  readonly cacheBytes?: number;
  /** Threads inside the operators of backbones; heads take one. 1 by default. */
  readonly threads?: number;
  /**
   * Whether these threads keep the processor while they wait for work. An engine that is alone with its caller
   * answers sooner then; one that shares the processor, with what reads requests for example, later. False by default.
   */
  readonly spinning?: boolean;
  /**
   * Shares of the rows that routes get while requests wait, by route; 1 for those that are not named. Routes that
   * are not there yet may be named.
   */
  readonly weights?: Readonly<Record<string, number>>;
}

/** How a model is loaded. */
export interface LoadOptions {
  /**
   * Taps to read, by the head's inputs, whatever the head was made for: for heads of unknown origin, and for
   * those who know better than the identities.
   */
  readonly bind?: Binding;
}

/** How a request is run. */
export interface RunOptions {
  /** Gives up waiting; a run that has begun goes on unheard. */
  readonly signal?: AbortSignal;
  /** Names the inputs' content, so that the engine need not hash it; equal digests must mean equal inputs. */
  readonly digest?: string;
  /** Whether features may come from the cache and go there; true by default. */
  readonly cache?: boolean;
  /**
   * Lets the engine take the memory of the inputs rather than copy it: their arrays, and all others over the same
   * memory, are empty afterwards.
   */
  readonly owned?: boolean;
  /** Milliseconds that the answer may take. */
  readonly timeout?: number;
  /** Requests of one key get the same revision of a route that has several. */
  readonly key?: string;
  /** Revisions that shall answer, by route, where it is not to be decided by the route. */
  readonly revisions?: Readonly<Record<string, string>>;
}

/** A loaded model as people see it. */
export interface LoadedModel {
  readonly revision: string;
  /** Routes that point to it, as their shadow too. */
  readonly routes: readonly string[];
  /** The revisions of the backbones and adapters that it reads. */
  readonly through: readonly string[];
  /** Names of the inputs that its requests give; of a head those of the backbones that it reads. */
  readonly inputs: readonly string[];
  /** What its requests give and get, as far as the file says it. */
  readonly signature: { readonly inputs: readonly Signature[]; readonly outputs: readonly Signature[] };
  readonly metadata: Metadata;
}

/** All routes and the sessions behind them, at one time; never changed. */
interface Generation {
  readonly number: number;
  readonly plan: Plan;
  readonly members: ReadonlyMap<string, Member>;
  readonly routes: ReadonlyMap<string, Route>;
}

/** One backbone or several, many heads, switched live. */
export class Engine {
  readonly #runtime: Runtime;
  readonly #cache: FeatureCache;
  readonly #sightings = new Sightings();
  readonly #scheduler: Scheduler;
  readonly #heavy: SessionOptions;
  readonly #weights: ReadonlyMap<string, number>;
  readonly #history = new Map<string, RouteTarget[]>();
  #current: Generation;
  /** Changes, one after the other. */
  #changes: Promise<unknown> = Promise.resolve();
  /** Requests under way. */
  readonly #requests = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;

  private constructor(runtime: Runtime, plan: Plan, options: EngineOptions) {
    this.#runtime = runtime;
    this.#cache = new FeatureCache(options.cacheBytes ?? 2 ** 28);
    this.#scheduler = new Scheduler(runtime, this.#cache, options);
    this.#heavy = { threads: options.threads ?? 1, spinning: options.spinning ?? false };
    this.#weights = weightsOf(options.weights ?? {});
    this.#current = { number: 0, plan, members: new Map(), routes: new Map() };
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
    return this.#scheduler.stats;
  }

  /** All loaded models, live or not. */
  get models(): LoadedModel[] {
    const { members, routes } = this.#current;
    const users = new Map<string, string[]>([...members.keys()].map((revision) => [revision, []]));
    for (const [name, route] of routes)
      for (const { revision } of route.members) users.get(revision)?.push(name);
    return [...members.values()].map((member) => ({
      revision: member.revision,
      metadata: member.metadata,
      through: member.providers.map(({ revision }) => revision),
      inputs: [...member.inputs.keys()],
      signature: member.signature,
      routes: users.get(member.revision) ?? [],
    }));
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
    return this.#cache.stats;
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
      for (const name of Object.keys(changes)) this.#route(this.#current, name);
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
      const after = new Route(wanted, (revision) => this.#loaded(revision));
      if (before && JSON.stringify(before.target) === JSON.stringify(after.target)) continue;
      routes.set(name, after);
      if (before) changed.push([name, before.target]);
    }
    const generation = await this.#publish(this.#current.members, routes);
    for (const [name, before] of changed) this.#remember(name, before);
    for (const [name, target] of Object.entries(changes)) if (target === null) this.#history.delete(name);
    return generation;
  }

  /**
   * Points a route back to where it pointed before its last switch.
   * @returns the revision that it is for then
   * @throws PolyheadError NOT_FOUND when there is none, or it is not loaded any more
   */
  async rollback(route: string): Promise<string> {
    return this.#change(async () => {
      this.#route(this.#current, route);
      const target = this.#history.get(route)?.at(-1);
      if (target === undefined) {
        throw new PolyheadError(
          "NOT_FOUND",
          `The route ${JSON.stringify(route)} has no earlier revision that is still loaded.`,
          { route },
        );
      }
      const before = new Route(target, (revision) => this.#loaded(revision));
      await this.#publish(this.#current.members, new Map([...this.#current.routes, [route, before]]));
      this.#history.get(route)?.pop();
      return before.main.revision;
    });
  }

  /**
   * Removes a route; its model stays loaded.
   * @throws PolyheadError NOT_FOUND
   */
  async remove(route: string): Promise<void> {
    return this.#change(async () => {
      this.#route(this.#current, route);
      const routes = new Map(this.#current.routes);
      routes.delete(route);
      await this.#publish(this.#current.members, routes);
      this.#history.delete(route);
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
      if (!members.has(revision)) throw notLoaded(revision);
      const user = [...routes].find(([, route]) => route.uses(revision));
      if (user) {
        throw new PolyheadError(
          "ALREADY_EXISTS",
          `The route ${JSON.stringify(user[0])} points to ${revision}; switch or remove it first.`,
          { route: user[0], revision },
        );
      }
      const rest = new Map(members);
      rest.delete(revision);
      await this.#publish(rest, routes);
      for (const [route, past] of this.#history)
        this.#history.set(
          route,
          past.filter((target) => !usesRevision(target, revision)),
        );
    });
  }

  /**
   * Says at once, and at no cost, whether a request would be refused now: for servers, before they read one.
   * @throws PolyheadError OVERLOADED, CLOSED
   */
  admit(): void {
    this.#refuseClosed();
    this.#scheduler.admit();
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
    const answer = this.#answer(this.#current, routes, inputs, options);
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
      this.#cache.clear();
    });
    return this.#closed;
  }

  async #answer<Name extends string>(
    generation: Generation,
    names: readonly Name[],
    inputs: Inputs,
    options: RunOptions,
  ): Promise<Answer<Name>> {
    const plan = generation.plan.hold();
    try {
      const asked = [...new Set(names)].map((name) => ({ name, ...this.#choose(generation, name, options) }));
      const members = [...new Set(asked.map(({ member }) => member))];
      const given = bindRequest(members, inputs);
      this.#scheduler.admit(); // before the inputs are hashed
      const beside = asked.flatMap((each) => [...each.shadows, ...(each.reference ? [each.reference] : [])]);
      const shadows = beside.filter((each) => isFedBy(each, given));
      const running = [...members, ...shadows];
      const done = await this.#scheduler.run({
        plan,
        wanted: new Set(running.flatMap(({ outputs }) => [...outputs.values()])),
        inputs: given,
        rows: rowsOf(running, given),
        digest: await this.#digest(given, options),
        lanes: new Map(asked.map(({ name }) => [name, this.#weights.get(name) ?? 1])),
        owned: options.owned,
        timeout: options.timeout,
        signal: options.signal,
      });
      const made: Made = { ...done, constants: plan.constants };
      const routes = asked.map(({ name, member, shadows: own, reference }): [Name, RouteAnswer] => {
        const [compared] = reference && shadows.includes(reference) ? [shadowAnswer(reference, made)] : [];
        return [
          name,
          {
            ...answerOf(name, member, made),
            shadows: own.filter((each) => shadows.includes(each)).map((each) => shadowAnswer(each, made)),
            ...(compared && { reference: compared }),
          },
        ];
      });
      return {
        generation: generation.number,
        cached: done.cached,
        ran: done.ran,
        queued: done.queued,
        running: done.running,
        batchRows: done.batchRows,
        batch: done.batch,
        routes: Object.fromEntries(routes) as Record<Name, RouteAnswer>,
      };
    } finally {
      await plan.drop();
    }
  }

  /** The member that answers for a route, and those that run beside it. */
  #choose(generation: Generation, name: string, { key, revisions }: RunOptions): Choice {
    const route = this.#route(generation, name);
    const asked = revisions && Object.hasOwn(revisions, name) ? revisions[name] : undefined;
    if (asked === undefined) {
      const member = route.pick(key === undefined ? undefined : `${name} ${key}`);
      const isCompared = route.compared && member !== route.main;
      return { member, shadows: route.shadows, ...(isCompared && { reference: route.main }) };
    }
    const member = generation.members.get(asked);
    if (!member) throw notLoaded(asked);
    return { member, shadows: [] };
  }

  /**
   * What the inputs are called in the cache; undefined for what does not go there. To hash an input takes processor
   * time that others wait for when all workers are busy. Then an input that is new is not hashed: it is not in the
   * cache, and that it comes again is no more than a possibility.
   */
  async #digest(
    values: ReadonlyMap<Identity, Tensor>,
    { digest, cache = true }: RunOptions,
  ): Promise<string | undefined> {
    if (!this.#cache.enabled || !cache) return undefined;
    if (digest !== undefined) return `given ${digest}`;
    const isKnown = this.#sightings.see(values.values());
    return isKnown || !this.#scheduler.isBusy ? digestOf(values) : undefined;
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
    this.#current = { number: before.number + 1, plan, members, routes };
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

  #loaded(revision: string): Member {
    const member = this.#current.members.get(revision);
    if (member) return member;
    throw notLoaded(revision);
  }

  #route(generation: Generation, route: string): Route {
    const found = generation.routes.get(route);
    if (found) return found;
    const known = [...generation.routes.keys()];
    throw new PolyheadError(
      "NOT_FOUND",
      `No route is called ${JSON.stringify(route)}; expected one of ${known.join(", ") || "none, as none was added"}.`,
      { route, expected: known },
    );
  }

  #remember(route: string, target: RouteTarget): void {
    const past = this.#history.get(route) ?? [];
    this.#history.set(route, [...past, target].slice(-HISTORY));
  }

  #refuseClosed(): void {
    if (this.#closed) throw new PolyheadError("CLOSED", "The engine is closed.", {});
  }
}

/** Who runs for a route in one request. */
interface Choice {
  readonly member: Member;
  readonly shadows: readonly Member[];
  /** The main revision, to be compared with the canary that answers. */
  readonly reference?: Member;
}

/** Earlier revisions that a route remembers. */
const HISTORY = 32;

/** Whether a request for other members has all that this one reads. */
function isFedBy({ inputs }: Member, given: ReadonlyMap<Identity, Tensor>): boolean {
  return [...inputs.values()].every(({ identity }) => given.has(identity));
}

/** @throws PolyheadError INVALID_ARGUMENT for a weight that is not positive */
function weightsOf(weights: Readonly<Record<string, number>>): ReadonlyMap<string, number> {
  for (const [route, weight] of Object.entries(weights)) {
    if (weight > 0 && Number.isFinite(weight)) continue;
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The route ${JSON.stringify(route)} has the weight ${weight}; expected a positive number.`,
      { route, weight },
    );
  }
  return new Map(Object.entries(weights));
}

function usesRevision({ revisions, shadows = [] }: RouteTarget, revision: string): boolean {
  return revisions.some((each) => each.revision === revision) || shadows.includes(revision);
}

function notLoaded(revision: string): PolyheadError {
  return new PolyheadError("NOT_FOUND", `The revision ${revision} is not loaded; load its model first.`, {
    revision,
  });
}
