/**
 * The engine: models in, routes published, requests answered. Whatever changes it, loading, switching,
 * unloading, happens one after the other and beside the requests; a request takes the current generation when it
 * comes and keeps it to its end.
 */
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import type { Identity } from "../onnx/identity.js";
import type { Metadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { revisionOf } from "../onnx/revision.js";
import type { Runtime } from "../runtime/runtime.js";
import type { NumericArray, Tensor } from "../tensor/tensor.js";
import { FeatureCache } from "./feature-cache.js";
import { type Binding, type Member, makeMember } from "./member.js";
import { Plan, type PlannedProgram } from "./plan.js";
import { bindRequest, digestOf, type Inputs } from "./request.js";

/** Settings of an engine. */
export interface EngineOptions {
  /** Bytes of features to keep; 256 MiB by default, 0 for none. */
  readonly cacheBytes?: number;
  /** Threads inside the operators of backbones; heads take one. 1 by default. */
  readonly threads?: number;
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
}

/** What a route answers. */
export interface RouteAnswer {
  /** The revision that made it. */
  readonly revision: string;
  /** The revisions of the backbones and adapters that it read, each after what it reads itself. */
  readonly through: readonly string[];
  readonly outputs: Readonly<Record<string, Tensor>>;
}

/** What a request gets. */
export interface Answer<Route extends string = string> {
  /** Number of the generation that answered all of it. */
  readonly generation: number;
  /** Whether features came from the cache. */
  readonly cached: boolean;
  /** Segments that ran: the revisions that share each, and how long it took in milliseconds. */
  readonly ran: readonly { readonly usedBy: readonly string[]; readonly milliseconds: number }[];
  readonly routes: Readonly<Record<Route, RouteAnswer>>;
}

/** A loaded model as people see it. */
export interface LoadedModel {
  readonly revision: string;
  /** Routes that point to it. */
  readonly routes: readonly string[];
  /** Names of the inputs that its requests give; of a head those of the backbones that it reads. */
  readonly inputs: readonly string[];
  readonly metadata: Metadata;
}

/** All routes and the sessions behind them, at one time; never changed. */
interface Generation {
  readonly number: number;
  readonly plan: Plan;
  readonly members: ReadonlyMap<string, Member>;
  readonly routes: ReadonlyMap<string, Member>;
}

/** One backbone or several, many heads, switched live. */
export class Engine {
  readonly #runtime: Runtime;
  readonly #cache: FeatureCache;
  readonly #threads: number;
  readonly #history = new Map<string, string[]>();
  #current: Generation;
  /** Changes, one after the other. */
  #changes: Promise<unknown> = Promise.resolve();
  /** Requests under way. */
  readonly #requests = new Set<Promise<unknown>>();
  #closed: Promise<void> | undefined;

  private constructor(runtime: Runtime, plan: Plan, options: EngineOptions) {
    this.#runtime = runtime;
    this.#cache = new FeatureCache(options.cacheBytes ?? 2 ** 28);
    this.#threads = options.threads ?? 1;
    this.#current = { number: 0, plan, members: new Map(), routes: new Map() };
  }

  /** An engine over a runtime, which it closes when it is closed. */
  static async open(runtime: Runtime, options: EngineOptions = {}): Promise<Engine> {
    return new Engine(runtime, await Plan.build([], runtime, 1), options);
  }

  /** The number of the current generation. */
  get generation(): number {
    return this.#current.number;
  }

  /** The revision of every route. */
  get routes(): ReadonlyMap<string, string> {
    return new Map([...this.#current.routes].map(([route, { revision }]) => [route, revision]));
  }

  /** All loaded models, live or not. */
  get models(): LoadedModel[] {
    const { members, routes } = this.#current;
    return [...members.values()].map(({ revision, metadata, inputs }) => ({
      revision,
      metadata,
      inputs: [...inputs.keys()],
      routes: [...routes].flatMap(([route, member]) => (member.revision === revision ? [route] : [])),
    }));
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
      await this.#publish(this.#withMember(member), new Map([...this.#current.routes, [route, member]]));
      return member.revision;
    });
  }

  /**
   * Points routes to other loaded revisions, all at once: a request sees all of the change or nothing.
   * @returns the number of the generation from which on it holds
   * @throws PolyheadError NOT_FOUND for a route or revision that is not there
   */
  async switch(changes: Readonly<Record<string, string>>): Promise<number> {
    return this.#change(async () => {
      const routes = new Map(this.#current.routes);
      for (const [route, revision] of Object.entries(changes)) {
        const before = this.#route(this.#current, route);
        const member = this.#current.members.get(revision);
        if (!member) throw notLoaded(revision);
        routes.set(route, member);
        if (before !== member) this.#remember(route, before.revision);
      }
      return this.#publish(this.#current.members, routes);
    });
  }

  /**
   * Points a route back to the revision it had before its last switch.
   * @returns that revision
   * @throws PolyheadError NOT_FOUND when there is none, or it is not loaded any more
   */
  async rollback(route: string): Promise<string> {
    return this.#change(async () => {
      this.#route(this.#current, route);
      const revision = this.#history.get(route)?.at(-1);
      if (revision === undefined) {
        throw new PolyheadError(
          "NOT_FOUND",
          `The route ${JSON.stringify(route)} has no earlier revision that is still loaded.`,
          { route },
        );
      }
      const member = this.#current.members.get(revision);
      if (!member) throw notLoaded(revision);
      await this.#publish(this.#current.members, new Map([...this.#current.routes, [route, member]]));
      this.#history.get(route)?.pop();
      return revision;
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
      const user = [...routes].find(([, member]) => member.revision === revision);
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
          past.filter((each) => each !== revision),
        );
    });
  }

  /**
   * Answers one or several routes from one pass over the backbone. The inputs must not change until the promise
   * settles.
   * @throws PolyheadError NOT_FOUND for an unknown route, INPUT_MISMATCH, RUN_FAILED, ABORTED, OVERLOADED,
   *   WORKER_LOST, CLOSED
   */
  async run<const Route extends string>(
    routes: readonly Route[],
    inputs: Inputs,
    options: RunOptions = {},
  ): Promise<Answer<Route>> {
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

  async #answer<Route extends string>(
    generation: Generation,
    routes: readonly Route[],
    inputs: Inputs,
    options: RunOptions,
  ): Promise<Answer<Route>> {
    const plan = generation.plan.hold();
    try {
      const named = new Map(routes.map((route) => [route, this.#route(generation, route)]));
      const members = [...new Set(named.values())];
      const values = bindRequest(members, inputs);
      const digest = await this.#digest(values, options);
      const recalled = new Set<Identity>();
      const given = (identity: Identity) => {
        if (values.has(identity)) return true;
        const found = digest === undefined ? undefined : this.#cache.get(identity, digest);
        if (!found) return false;
        // What callers get is theirs to change; what the cache has is not.
        values.set(identity, wanted.has(identity) ? copyOf(found) : found);
        recalled.add(identity);
        return true;
      };
      const wanted = new Set(members.flatMap(({ outputs }) => [...outputs.values()]));
      const program = plan.program(wanted, given);
      const times = await this.#perform(program, wanted, values, digest, options.signal, generation);
      return {
        generation: generation.number,
        cached: recalled.size > 0,
        ran: program.usedBy.map((usedBy, at) => ({ usedBy, milliseconds: times[at] ?? 0 })),
        routes: Object.fromEntries(
          [...named].map(([route, member]) => [route, answerOf(member, values)]),
        ) as Record<Route, RouteAnswer>,
      };
    } finally {
      await plan.drop();
    }
  }

  /** Runs the program; what it makes is added to `values`. */
  async #perform(
    program: PlannedProgram,
    wanted: ReadonlySet<Identity>,
    values: Map<Identity, Tensor>,
    digest: string | undefined,
    signal: AbortSignal | undefined,
    { routes }: Generation,
  ): Promise<readonly number[]> {
    if (program.steps.length === 0) return [];
    const keep = (each: Identity) => wanted.has(each) || (digest !== undefined && program.passing.has(each));
    const results = [...program.made].filter(keep);
    const read = new Set(program.steps.flatMap(({ feeds }) => feeds.map(([, value]) => value)));
    const feeds = new Map([...values].filter(([identity]) => read.has(identity)));
    try {
      const result = await this.#runtime.run({ steps: program.steps, results }, feeds, signal);
      for (const [identity, value] of result.values) {
        values.set(identity, value);
        if (digest === undefined || !program.passing.has(identity)) continue;
        this.#cache.set(identity, digest, wanted.has(identity) ? copyOf(value) : value);
      }
      return result.stepTimes;
    } catch (thrown) {
      throw naming(asPolyheadError(thrown, "RUN_FAILED", "The run failed"), program, routes);
    }
  }

  async #digest(
    values: ReadonlyMap<Identity, Tensor>,
    { digest, cache = true }: RunOptions,
  ): Promise<string | undefined> {
    if (!this.#cache.enabled || !cache) return undefined;
    return digest === undefined ? digestOf(values) : `given ${digest}`;
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
  async #publish(members: ReadonlyMap<string, Member>, routes: ReadonlyMap<string, Member>): Promise<number> {
    const before = this.#current;
    const same =
      members.size === before.members.size &&
      [...members].every(([key, each]) => before.members.get(key) === each);
    const plan = same
      ? before.plan.hold()
      : await Plan.build([...members.values()], this.#runtime, this.#threads, before.plan);
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

  #route(generation: Generation, route: string): Member {
    const member = generation.routes.get(route);
    if (member) return member;
    const known = [...generation.routes.keys()];
    throw new PolyheadError(
      "NOT_FOUND",
      `No route is called ${JSON.stringify(route)}; expected one of ${known.join(", ") || "none, as none was added"}.`,
      { route, expected: known },
    );
  }

  #remember(route: string, revision: string): void {
    const past = this.#history.get(route) ?? [];
    this.#history.set(route, [...past, revision].slice(-HISTORY));
  }

  #refuseClosed(): void {
    if (this.#closed) throw new PolyheadError("CLOSED", "The engine is closed.", {});
  }
}

/** Earlier revisions that a route remembers. */
const HISTORY = 32;

function answerOf(
  { revision, outputs, providers }: Member,
  values: ReadonlyMap<Identity, Tensor>,
): RouteAnswer {
  const made = [...outputs].map(([name, identity]) => {
    const value = values.get(identity);
    if (!value) throw new PolyheadError("INTERNAL", `Nothing made the output ${JSON.stringify(name)}.`, {});
    return [name, value] as const;
  });
  const through = providers.map((each) => each.revision);
  return { revision, through, outputs: Object.fromEntries(made) };
}

function notLoaded(revision: string): PolyheadError {
  return new PolyheadError("NOT_FOUND", `The revision ${revision} is not loaded; load its model first.`, {
    revision,
  });
}

/** The error, with the routes that need the step that failed. */
function naming(
  error: PolyheadError,
  program: PlannedProgram,
  routes: ReadonlyMap<string, Member>,
): PolyheadError {
  const step = error.details.step;
  const usedBy = typeof step === "number" ? program.usedBy[step] : undefined;
  if (!usedBy) return error;
  const names = [...routes].flatMap(([route, { revision }]) => (usedBy.includes(revision) ? [route] : []));
  return new PolyheadError(
    error.code,
    `${error.message} (in what ${names.join(", ") || "no route"} needs)`,
    { ...error.details, routes: names },
    { cause: error },
  );
}

function copyOf(value: Tensor): Tensor {
  if (!ArrayBuffer.isView(value.data)) return value;
  const copy: NumericArray = value.data.slice();
  return { ...value, data: copy };
}
