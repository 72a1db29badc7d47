/**
 * Requests against a generation: who answers, what of it the cache has, one run for the rest, and the answers out of
 * what the run made. Which generation is current is the engine's business.
 */
import { PolyheadError } from "../base/errors.js";
import type { Identity } from "../onnx/identity.js";
import type { Runtime } from "../runtime/runtime.js";
import type { Tensor } from "../tensor/tensor.js";
import { type Answer, answerOf, type Made, type RouteAnswer, shadowAnswer } from "./answer.js";
import { FeatureCache } from "./feature-cache.js";
import type { ChoiceOptions, Generation } from "./generation.js";
import type { Member } from "./member.js";
import { bindRequest, digestOf, type Inputs, rowsOf } from "./request.js";
import { Scheduler, type SchedulerOptions } from "./scheduler.js";
import { Sightings } from "./sightings.js";

/** Settings of answering. */
export interface AnsweringOptions extends SchedulerOptions {
  /** Bytes of features to keep; 256 MiB by default, 0 for none. */
  readonly cacheBytes?: number;
  /**
   * Shares of the rows that routes get while requests wait, by route; 1 for those that are not named. Routes that
   * are not there yet may be named.
   */
  readonly weights?: Readonly<Record<string, number>>;
}

/** How a request is run. */
export interface RunOptions extends ChoiceOptions {
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
}

/** Answers requests through one runtime. */
export class Answering {
  readonly cache: FeatureCache;
  readonly scheduler: Scheduler;
  readonly #sightings = new Sightings();
  readonly #weights: ReadonlyMap<string, number>;

  /** @throws PolyheadError INVALID_ARGUMENT for a weight that is not positive */
  constructor(runtime: Runtime, options: AnsweringOptions) {
    this.#weights = weightsOf(options.weights ?? {});
    this.cache = new FeatureCache(options.cacheBytes ?? 2 ** 28);
    this.scheduler = new Scheduler(runtime, this.cache, options);
  }

  /**
   * Answers routes of a generation, whose plan is held meanwhile.
   * @throws PolyheadError see {@link Engine.run}
   */
  async answer<Name extends string>(
    generation: Generation,
    names: readonly Name[],
    inputs: Inputs,
    options: RunOptions,
  ): Promise<Answer<Name>> {
    const plan = generation.plan.hold();
    try {
      const asked = [...new Set(names)].map((name) => ({ name, ...generation.choose(name, options) }));
      const members = [...new Set(asked.map(({ member }) => member))];
      const given = bindRequest(members, inputs);
      this.scheduler.admit(); // before the inputs are hashed
      const beside = asked.flatMap((each) => [...each.shadows, ...(each.reference ? [each.reference] : [])]);
      const shadows = beside.filter((each) => isFedBy(each, given));
      const running = [...members, ...shadows];
      const done = await this.scheduler.run({
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
        composing: done.composing,
        splitting: done.splitting,
        batchRows: done.batchRows,
        batch: done.batch,
        routes: Object.fromEntries(routes) as Record<Name, RouteAnswer>,
      };
    } finally {
      await plan.drop();
    }
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
    if (!this.cache.enabled || !cache) return undefined;
    if (digest !== undefined) return `given ${digest}`;
    const isKnown = this.#sightings.see(values.values());
    return isKnown || !this.scheduler.isBusy ? digestOf(values) : undefined;
  }
}

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
