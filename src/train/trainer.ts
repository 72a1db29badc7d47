/**
 * Training on a runtime of one worker. Parameters, running statistics and the optimiser's state are variables of the
 * worker, changed in place after each run; only batches go in and losses come out, until the parameters are asked for. For each
 * size of batch there is a session of its own.
 */
import { PolyheadError } from "../base/errors.js";
import { weightShape } from "../onnx/weight.js";
import { modelBytes } from "../onnx/write.js";
import type { Change } from "../runtime/backend.js";
import { openModelOn } from "../runtime/open-model.js";
import type { Handle, Runtime } from "../runtime/runtime.js";
import { elementCount, formatShape, type Shape, sameShape } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import { differentiate } from "./autodiff/differentiate.js";
import { blockWidth } from "./block-width.js";
import { blockedLayout } from "./blocked-layout.js";
import { type TargetTerm, targetName } from "./gradients.js";
import { withLoss } from "./losses.js";
import { answerModel, clipModel, lastNodesFirst, type StepModel, stepModel } from "./step-model.js";
import { requireClasses } from "./targets.js";
import type { TrainingModel } from "./training-model.js";
import { withTurnedWeights } from "./turned-weights.js";
import { arenasOf, averageName, namesKept, sumName, type UpdateOptions, Updates } from "./updates.js";

/** What is trained and how. */
export interface TrainerOptions extends UpdateOptions {
  /** Parameters; all of the model by default. */
  readonly parameters?: readonly string[];
  /** Threads of the runtime inside one operator; 1 by default. */
  readonly threads?: number;
  /** Computes activations again in the backward part rather than keep them, where that saves memory; it takes longer. */
  readonly recompute?: boolean;
  /** State of an earlier training, as {@link Trainer.state} gives it. */
  readonly state?: ReadonlyMap<string, Tensor>;
  /** Steps that led to that state; 0 by default. */
  readonly steps?: number;
}

/** Inputs by name, and the terms of the loss with their targets. */
export interface Batch {
  readonly inputs: ReadonlyMap<string, Tensor>;
  readonly terms: readonly TargetTerm[];
}

/** A step, and how many classes the targets of its terms name one of. */
interface Step extends StepModel {
  readonly classes?: readonly (number | undefined)[];
}

interface Session extends Step {
  readonly handle: Handle;
}

/** Of something kept: the initializer that it belongs to, and where it is. */
interface Place {
  readonly initializer: string;
  readonly shape: Shape;
  readonly arena: string;
}

let trainers = 0;

/** A training under way. Steps are done one after the other; {@link close} gives everything back. */
export class Trainer {
  readonly #runtime: Runtime;
  readonly #model: TrainingModel;
  readonly #options: TrainerOptions;
  readonly #parameters: readonly string[];
  /** Running statistics that follow the batches. */
  readonly #statistics: readonly string[];
  /** Both. */
  readonly #renewed: readonly string[];
  readonly #key = `trainer ${++trainers}`;
  readonly #sessions = new Map<string, Promise<Session>>();
  readonly #updates: Updates;
  /** What can be kept, by name. */
  readonly #places: ReadonlyMap<string, Place>;
  readonly #kept = new Map<string, Handle>();
  #blockWidth: Promise<number | undefined> | undefined;
  #steps: number;

  /**
   * @throws PolyheadError INVALID_ARGUMENT for a runtime of several workers, NOT_FOUND for unknown parameters,
   *   MODEL_UNSUPPORTED as {@link TrainingModel.statistics}, and for a parameter that is too large
   */
  constructor(runtime: Runtime, model: TrainingModel, options: TrainerOptions) {
    if (runtime.size !== 1) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `A training has its state in one worker; the runtime has ${runtime.size}.`,
        { got: runtime.size, expected: 1 },
      );
    }
    this.#runtime = runtime;
    this.#model = model;
    this.#options = options;
    this.#parameters = options.parameters ?? model.parameters;
    this.#steps = options.steps ?? 0;
    model.values(this.#parameters);
    this.#statistics = model.statistics(this.#parameters);
    this.#renewed = [...this.#parameters, ...this.#statistics];
    this.#places = this.#placed();
    this.#updates = new Updates(options, (name) => this.#keep(name).number);
  }

  /** Steps done, those of the state it began with included. */
  get steps(): number {
    return this.#steps;
  }

  /**
   * One step on a batch, or on several of equal weight whose gradients are added first.
   * @param rate the learning rate
   * @returns the loss before the step, the mean over the batches
   * @throws PolyheadError DIVERGED when the loss is no finite number; the parameters are not to be used then
   * @throws PolyheadError MODEL_UNSUPPORTED, INPUT_MISMATCH, LOAD_FAILED, RUN_FAILED, WORKER_LOST
   */
  async step(batches: Batch | readonly Batch[], rate: number): Promise<number> {
    const list = "inputs" in batches ? [batches] : batches;
    const [only, ...others] = list;
    if (!only) throw new PolyheadError("INVALID_ARGUMENT", "A step needs at least one batch; got none.", {});
    const losses =
      others.length === 0 ? [await this.#wholeStep(only, rate)] : await this.#addedStep(list, rate);
    this.#steps++;
    const loss = losses.reduce((sum, each) => sum + each, 0) / losses.length;
    if (Number.isFinite(loss)) return loss;
    throw new PolyheadError(
      "DIVERGED",
      `The loss of step ${this.#steps} is ${loss}. Take a lower rate, clip gradients, or look for values that are no numbers in the data.`,
      { step: this.#steps, loss: String(loss) },
    );
  }

  /** The loss of a batch, without a step, in evaluation mode, of what {@link parameters} gives. */
  async loss(batch: Batch): Promise<number> {
    const session = await this.#batchSession(batch, "loss");
    return lossOf(session, await this.#run(session, batch, { asResult: true }));
  }

  /**
   * All outputs of the model for inputs, in evaluation mode, with what {@link parameters} gives.
   * @throws PolyheadError INPUT_MISMATCH, LOAD_FAILED, RUN_FAILED, WORKER_LOST
   */
  async answers(inputs: ReadonlyMap<string, Tensor>): Promise<ReadonlyMap<string, Tensor>> {
    const shapes = shapesOf(inputs);
    const session = await this.#session(JSON.stringify(["answers", [...shapes]]), () =>
      answerModel(this.#model.bound(shapes), this.#renewed),
    );
    return this.#run(session, { inputs, terms: [] }, { asResult: true });
  }

  /**
   * What training has come to, by initializer: parameters, and in batch mode the running statistics of batch norms; of
   * each the moving average where one is kept.
   */
  async parameters(): Promise<Map<string, Tensor>> {
    return this.resultOf(await this.state());
  }

  /** The parameters out of a {@link state}, as {@link parameters} has them. */
  resultOf(state: ReadonlyMap<string, Tensor>): Map<string, Tensor> {
    return new Map(
      this.#renewed.flatMap((name) => {
        const value = state.get(this.#options.average === undefined ? name : averageName(name));
        return value ? [[name, value] as const] : [];
      }),
    );
  }

  /** Everything that the next step depends on, by name. */
  async state(): Promise<ReadonlyMap<string, Tensor>> {
    const sums = new Set(this.#renewed.map(sumName));
    const kept = [...this.#kept].filter(([name]) => !sums.has(name));
    const reads = kept.map(([name, { number }]) => [number, name] as const);
    const results = reads.map(([, name]) => name);
    const { values, failures } = await this.#runtime.run({ steps: [], results, reads }, new Map());
    for (const failure of failures.values()) throw failure;
    return values;
  }

  /** Gives back sessions and tensors. */
  async close(): Promise<void> {
    for (const session of this.#sessions.values()) await (await session).handle.release();
    for (const handle of this.#kept.values()) await handle.release();
    this.#sessions.clear();
    this.#kept.clear();
  }

  async #wholeStep(batch: Batch, rate: number): Promise<number> {
    const session = await this.#batchSession(batch, "step");
    const { gradients, statistics, scale } = session;
    const changes = [
      ...this.#updates.ofStatistics(statistics),
      ...this.#updates.ofAverages(statistics.keys()),
      ...this.#updates.ofParameters(gradients, rate, this.#steps + 1, scale),
    ];
    return lossOf(session, await this.#run(session, batch, { changes }));
  }

  async #addedStep(batches: readonly Batch[], rate: number): Promise<number[]> {
    const losses: number[] = [];
    const sums = new Map<string, number>();
    const followed = new Set<string>();
    for (const batch of batches) {
      const session = await this.#batchSession(batch, "part");
      const { gradients, statistics } = session;
      const changes = [
        ...this.#updates.ofStatistics(statistics),
        ...this.#updates.ofSums(gradients, 1 / batches.length, losses.length === 0),
      ];
      losses.push(lossOf(session, await this.#run(session, batch, { changes })));
      for (const name of gradients.keys()) sums.set(name, this.#keep(sumName(name)).number);
      for (const name of statistics.keys()) followed.add(name);
    }
    const clip = this.#options.clipNorm === undefined ? undefined : await this.#clipSession(sums.keys());
    const changes = [
      ...this.#updates.ofAverages(followed),
      ...this.#updates.ofParameters(sums, rate, this.#steps + 1, clip?.scale),
    ];
    await this.#run(clip, undefined, { changes });
    return losses;
  }

  /**
   * Runs a session, if any, and makes changes of what came out.
   * @param how with `asResult` averages are read in place of what they are of, where some are kept
   * @returns what comes out for the caller
   */
  async #run(
    session: Session | undefined,
    batch: Batch | undefined,
    { changes = [], asResult = false }: { changes?: readonly Change[]; asResult?: boolean },
  ): Promise<ReadonlyMap<string, Tensor>> {
    const given = new Map<string, Tensor>(batch?.inputs);
    batch?.terms.forEach(({ target }, place) => {
      given.set(targetName(place), target);
    });
    const nameOf = (name: string) =>
      asResult && this.#options.average !== undefined ? averageName(name) : name;
    const steps = session
      ? [
          {
            session: session.handle.number,
            feeds: [...given.keys()].map((name) => [name, name] as const),
            fetches: outputsOf(session).map((name) => [name, name] as const),
            kept: [...session.reads.keys()].map((name) => [name, this.#keep(nameOf(name)).number] as const),
          },
        ]
      : [];
    const results = session?.results ?? [];
    const { values, failures } = await this.#runtime.run({ steps, changes, results }, given);
    for (const failure of failures.values()) throw failure;
    return values;
  }

  /** @param kind a whole step, a part of one that several batches make, or the loss alone */
  async #batchSession({ inputs, terms }: Batch, kind: "step" | "part" | "loss"): Promise<Session> {
    const shapes = shapesOf(inputs);
    const named = terms.map((term, place) => ({
      ...term,
      target: targetName(place),
      dtype: term.target.dtype,
      shape: term.target.shape,
    }));
    const session = await this.#session(JSON.stringify([[...shapes], named, kind]), () => {
      if (kind === "loss") {
        const { model, loss, classes } = withLoss(this.#model.bound(shapes), named);
        const alone = differentiate(model, { of: loss, withRespectTo: [] }).model;
        return { ...answerModel(alone, this.#renewed), classes };
      }
      const { model: bound, norms } = this.#model.boundForStep(shapes, this.#parameters);
      const { model, loss, classes } = withLoss(bound, named);
      const clipNorm = kind === "step" ? this.#options.clipNorm : undefined;
      const how = { norms, clipNorm, recompute: this.#options.recompute };
      return { ...stepModel(model, loss, this.#parameters, how), classes };
    });
    terms.forEach(({ target }, place) => {
      requireClasses(target, session.classes?.[place]);
    });
    return session;
  }

  #clipSession(parameters: Iterable<string>): Promise<Session> {
    const sums = [...parameters].map(sumName);
    const shapes = new Map(sums.map((name) => [name, this.#place(name).shape] as const));
    return this.#session(JSON.stringify(["clip", sums]), () =>
      clipModel(shapes, this.#options.clipNorm ?? Number.POSITIVE_INFINITY),
    );
  }

  #session(key: string, build: () => Step): Promise<Session> {
    const known = this.#sessions.get(key);
    if (known) return known;
    const open = async (): Promise<Session> => {
      const built = build();
      const { threads = 1 } = this.#options;
      this.#blockWidth ??= blockWidth(openModelOn(this.#runtime));
      const width = await this.#blockWidth;
      const model = withTurnedWeights(width === undefined ? built.model : blockedLayout(built.model, width));
      const bytes = () => modelBytes(lastNodesFirst(model));
      const settings = { threads, spinning: true, memoryPattern: false };
      return { ...built, handle: await this.#runtime.acquire(`${this.#key} ${key}`, bytes, settings) };
    };
    const session = open();
    this.#sessions.set(key, session);
    session.catch(() => this.#sessions.delete(key));
    return session;
  }

  /** All that can be kept, and where: what is changed together lies in one arena. */
  #placed(): Map<string, Place> {
    const shapes = new Map(this.#model.model.graph.initializer.map((each) => [each.name, weightShape(each)]));
    const shapeOf = (name: string) => shapes.get(name) ?? [];
    const sizes = new Map(this.#renewed.map((name) => [name, elementCount(shapeOf(name))]));
    const arenas = arenasOf(sizes, namesKept("", this.#options).length);
    return new Map(
      this.#renewed.flatMap((initializer) => {
        const shape = shapeOf(initializer);
        const arena = `${this.#key} arena ${arenas.get(initializer)}`;
        const place = { initializer, shape, arena };
        return [
          ...namesKept(initializer, this.#options).map((name) => [name, place] as const),
          [sumName(initializer), { ...place, arena: `${arena} of sums` }] as const,
        ];
      }),
    );
  }

  #place(name: string): Place {
    const place = this.#places.get(name);
    if (place) return place;
    throw new PolyheadError("INTERNAL", `The training keeps nothing that is called ${name}.`, { name });
  }

  /** The variable of a name; made when the first step needs it. */
  #keep(name: string): Handle {
    const known = this.#kept.get(name);
    if (known) return known;
    const { initializer, shape, arena } = this.#place(name);
    const before = this.#options.state?.get(name);
    if (before && !sameShape(before.shape, shape)) {
      throw new PolyheadError(
        "INPUT_MISMATCH",
        `The state ${JSON.stringify(name)} has the shape ${formatShape(before.shape)}; expected ${formatShape(shape)}.`,
        { state: name, got: before.shape, expected: shape },
      );
    }
    const isAsInModel = name === initializer || name === averageName(initializer);
    const start = before ?? (isAsInModel ? this.#model.values([initializer]).get(initializer) : undefined);
    const handle = this.#runtime.variable(`${this.#key} state ${name}`, { shape, start, arena });
    this.#kept.set(name, handle);
    return handle;
  }
}

function outputsOf({ results, gradients, statistics, scale }: StepModel): string[] {
  const own = scale === undefined ? [] : [scale];
  return [...new Set([...results, ...gradients.values(), ...statistics.values(), ...own])];
}

/** The first result, which is the loss. */
function lossOf({ results }: StepModel, values: ReadonlyMap<string, Tensor>): number {
  return Number(values.get(results[0] ?? "")?.data[0]);
}

function shapesOf(inputs: ReadonlyMap<string, Tensor>): Map<string, Shape> {
  return new Map([...inputs].map(([name, { shape }]) => [name, shape]));
}
