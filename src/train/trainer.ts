/**
 * Training on a runtime of one worker. Parameters, running statistics and the optimiser's state are tensors that stay in the
 * worker from step to step; only batches go in and losses come out, until the parameters are asked for. For each size of
 * batch there is a session of its own.
 */
import { PolyheadError } from "../base/errors.js";
import { modelBytes } from "../onnx/write.js";
import { openModelOn } from "../runtime/open-model.js";
import type { Handle, Runtime } from "../runtime/runtime.js";
import { elementCount, formatShape, type Shape, sameShape } from "../tensor/shape.js";
import { float32, type Tensor } from "../tensor/tensor.js";
import { differentiate } from "./autodiff/differentiate.js";
import { blockWidth } from "./block-width.js";
import { blockedLayout } from "./blocked-layout.js";
import { type TargetTerm, targetName } from "./gradients.js";
import { withLoss } from "./losses.js";
import { stepScalars } from "./optimizers.js";
import {
  answerModel,
  averageName,
  type StateValue,
  type StepModel,
  stepModel,
  type UpdateOptions,
  updateModel,
} from "./step-model.js";
import { requireClasses } from "./targets.js";
import type { TrainingModel } from "./training-model.js";
import { withTurnedWeights } from "./turned-weights.js";

/** What is trained and how. */
export interface TrainerOptions extends UpdateOptions {
  /** Parameters; all of the model by default. */
  readonly parameters?: readonly string[];
  /** Threads of the runtime inside one operator; 1 by default. */
  readonly threads?: number;
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
  readonly #kept = new Map<string, Handle>();
  #blockWidth: Promise<number | undefined> | undefined;
  #steps: number;

  /**
   * @throws PolyheadError INVALID_ARGUMENT for a runtime of several workers, NOT_FOUND for unknown parameters,
   *   MODEL_UNSUPPORTED as {@link TrainingModel.statistics}
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
    const losses: number[] = [];
    if (others.length === 0) {
      losses.push(await this.#run(await this.#batchSession(only, "step"), only, rate));
    } else {
      for (const batch of list)
        losses.push(await this.#run(await this.#batchSession(batch, list.length), batch, rate));
      await this.#run(
        await this.#updateSession(await this.#batchSession(only, list.length)),
        undefined,
        rate,
      );
    }
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
    return this.#run({ ...session, state: this.#asResult(session.state) }, batch, 0);
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
    return this.#results({ ...session, state: this.#asResult(session.state) }, { inputs, terms: [] }, 0);
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
    const reads = [...this.#kept].map(([name, { number }]) => [number, name] as const);
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

  /** The first result, which is the loss; 0 where there is none. */
  async #run(session: Session, batch: Batch | undefined, rate: number): Promise<number> {
    const values = await this.#results(session, batch, rate);
    return Number(values.get(session.results[0] ?? "")?.data[0] ?? 0);
  }

  async #results(
    { handle, state, scalars, results }: Session,
    batch: Batch | undefined,
    rate: number,
  ): Promise<ReadonlyMap<string, Tensor>> {
    const numbers = new Map([["rate", rate], ...stepScalars(this.#options.optimizer, this.#steps + 1)]);
    const given = new Map<string, Tensor>(batch?.inputs);
    batch?.terms.forEach(({ target }, place) => {
      given.set(targetName(place), target);
    });
    for (const [name, input] of scalars) given.set(input, float32([], [numbers.get(name) ?? 0]));
    const step = {
      session: handle.number,
      feeds: [...given.keys()].map((name) => [name, name] as const),
      fetches: results.map((name) => [name, `result ${name}`] as const),
      kept: state.map((each) => [each.input, this.#keep(each).number] as const),
      replaces: state.flatMap((each) =>
        each.output === undefined ? [] : [[each.output, this.#keep(each).number] as const],
      ),
    };
    const wanted = step.fetches.map(([, value]) => value);
    const { values, failures } = await this.#runtime.run({ steps: [step], results: wanted }, given);
    for (const failure of failures.values()) throw failure;
    return new Map(
      results.flatMap((name) => {
        const value = values.get(`result ${name}`);
        return value ? [[name, value] as const] : [];
      }),
    );
  }

  /** @param kind a whole step, the part of one that so many batches make, or the loss alone */
  async #batchSession({ inputs, terms }: Batch, kind: "step" | number | "loss"): Promise<Session> {
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
      const how = { norms, ...(kind !== "step" && { accumulate: kind }) };
      return { ...stepModel(model, loss, this.#parameters, this.#options, how), classes };
    });
    terms.forEach(({ target }, place) => {
      requireClasses(target, session.classes?.[place]);
    });
    return session;
  }

  #updateSession({ state }: StepModel): Promise<Session> {
    const isStatistic = new Set(this.#statistics);
    const shapesBy = (wanted: boolean) =>
      new Map<string, Shape>(
        state.flatMap(({ parameter, shape }) =>
          isStatistic.has(parameter) === wanted ? [[parameter, shape] as const] : [],
        ),
      );
    return this.#session("update", () => updateModel(shapesBy(false), shapesBy(true), this.#options));
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
      const bytes = () => modelBytes(model);
      const settings = { threads, spinning: true, memoryPattern: false };
      return { ...built, handle: await this.#runtime.acquire(`${this.#key} ${key}`, bytes, settings) };
    };
    const session = open();
    this.#sessions.set(key, session);
    session.catch(() => this.#sessions.delete(key));
    return session;
  }

  /** State that is only read, with the average in place of each parameter where one is kept. */
  #asResult(state: readonly StateValue[]): StateValue[] {
    return state.map((each) => ({
      ...each,
      ...(this.#options.average !== undefined &&
        each.name === each.parameter && { name: averageName(each.name) }),
      output: undefined,
    }));
  }

  /** The tensor of a state value; made when the first step needs it. */
  #keep({ name, parameter, start, shape }: StateValue): Handle {
    const known = this.#kept.get(name);
    if (known) return known;
    const before = this.#options.state?.get(name);
    if (before && !sameShape(before.shape, shape)) {
      throw new PolyheadError(
        "INPUT_MISMATCH",
        `The state ${JSON.stringify(name)} has the shape ${formatShape(before.shape)}; expected ${formatShape(shape)}.`,
        { state: name, got: before.shape, expected: shape },
      );
    }
    const fresh = () =>
      start === "zeros"
        ? float32(shape, new Float32Array(elementCount(shape)))
        : (this.#model.values([parameter]).get(parameter) ?? float32(shape, []));
    const handle = this.#runtime.keep(`${this.#key} state ${name}`, before ?? fresh());
    this.#kept.set(name, handle);
    return handle;
  }
}

function shapesOf(inputs: ReadonlyMap<string, Tensor>): Map<string, Shape> {
  return new Map([...inputs].map(([name, { shape }]) => [name, shape]));
}
