/**
 * What learns from examples: the head first, on frozen features, then, where more than the head is trained, everything
 * from the place where it begins, at a low rate (LP-FT: Kumar et al., "Fine-Tuning can Distort Pretrained Features and
 * Underperform Out-of-Distribution", 2022). Head, branch and full differ in that place alone. What the second part
 * does not make more accurate stays as it was after the first: then the head alone is what was learned.
 */
import type { Augmentation } from "../data/augmentation.js";
import { stratifiedSplit } from "../data/folds.js";
import type { RowSource } from "../data/rows.js";
import type { Checkpoints } from "../files/checkpoint.js";
import type { Model } from "../onnx/model.js";
import { openModelOn } from "../runtime/open-model.js";
import type { Runtime } from "../runtime/runtime.js";
import type { NormMode } from "../train/batch-norms.js";
import { type Choice, choose } from "./choice.js";
import type { Examples } from "./examples.js";
import { type FitSettings, type FitStep, type Fitted, fitModel } from "./fit.js";
import { type HeadInput, headNetwork } from "./head-network.js";
import { headOpset, type Network, networkFrom } from "./network.js";
import { SelectedRows } from "./rows.js";
import { qualityOf, type Scores, scoresBy, scoresOf } from "./scores.js";
import { classTerms, type HeadSettings, type TrainedHead, trainHead } from "./train-head.js";

/** How everything that is not the head is trained. */
export interface TuningSettings extends Omit<FitSettings, "seed"> {
  readonly augmentation?: Augmentation | undefined;
  /** What batch norms do; the head before sees the backbone as it was. Frozen by default. */
  readonly norms?: NormMode | undefined;
}

/** What a learner works with. */
export interface LearnerOptions {
  readonly examples: Examples;
  readonly runtime: Runtime;
  /** The image's input, a leaving point, or the tap. */
  readonly from: string;
  /** Outputs of the backbone that the trained network keeps. */
  readonly outputs?: readonly string[];
  readonly head: HeadSettings;
  readonly tuning: TuningSettings;
  readonly threads: number;
  /** See {@link FitOptions}; for everything that is not the head. */
  readonly recompute?: boolean | undefined;
}

/** A training of everything: without the examples that choose, or the one whose result is taken. */
export type Stage = "choosing" | "whole";

/** How one training goes. */
export interface LearnOptions {
  /** Examples to learn from. */
  readonly training: readonly number[];
  /**
   * Examples that say after each epoch how good it is, when to stop, and whether the head alone is as good. Without
   * them a fifth of the training examples, set aside for a while, says the last.
   */
  readonly validation?: readonly number[] | undefined;
  /** Checkpoints of one stage of the training. */
  readonly checkpointsOf?: ((stage: Stage) => Checkpoints | undefined) | undefined;
  readonly checkpointSteps?: number | undefined;
  readonly onStep?: ((step: FitStep) => void) | undefined;
}

/** What was learned. */
export interface Learned {
  /** From `from` to logits and probabilities, without metadata. */
  readonly model: Model;
  /** The place where training began; the tap where the head alone was trained, or kept. */
  readonly from: string;
  readonly head: TrainedHead;
  /** The training behind the head; of epoch 0 where the head alone was kept, undefined where nothing else was tried. */
  readonly fitted: Fitted | undefined;
  /** Undefined where nothing but the head was trained. */
  readonly choice: Choice | undefined;
  /** Parameters that were trained. */
  readonly parameters: readonly string[];
}

/** Share of the training examples that chooses between the head and all that was trained, where nothing is held back. */
const SET_ASIDE = 0.2;

/** Learns from examples, as often as it is asked to. */
export class Learner {
  readonly #options: LearnerOptions;

  constructor(options: LearnerOptions) {
    this.#options = options;
  }

  /** Trains. @throws PolyheadError as `trainHead`, `networkFrom` and `fitModel` do */
  async learn(options: LearnOptions): Promise<Learned> {
    const { examples, from } = this.#options;
    const { training, validation } = options;
    const isAlone = from === examples.site.tap.name;
    if (isAlone) return this.#alone(await this.#trainHead(training, options.onStep));
    if (validation) return this.#trained(training, validation, "whole", options);
    const tried = await this.#try(training, options);
    // What was chosen is learned anew, with the examples that chose.
    if (tried?.choice.kept === "head") {
      return { ...(await this.#alone(await this.#trainHead(training))), ...tried };
    }
    const all = await this.#trained(training, undefined, "whole", options);
    return { ...all, choice: tried?.choice };
  }

  /** What was learned says of examples. @throws PolyheadError as `scoresOf` does */
  async scores({ model, head, from }: Learned, places: readonly number[]): Promise<Scores> {
    const { examples, runtime, tuning } = this.#options;
    const isAlone = from === examples.site.tap.name;
    const rows = isAlone ? await this.#headRows() : await examples.values(from);
    const whole = isAlone ? this.#headOn(this.#headInput(), head, from) : model;
    const output = examples.site.outputs.logits;
    return scoresOf(new SelectedRows(rows, places), tuning.batch, openModelOn(runtime), whole, output);
  }

  /**
   * Tries both without a fifth of the examples, and compares them on that.
   * @returns undefined where there are too few examples to set any aside
   */
  async #try(
    training: readonly number[],
    options: LearnOptions,
  ): Promise<{ readonly choice: Choice; readonly fitted: Fitted | undefined } | undefined> {
    const { examples, head } = this.#options;
    const of = <Value>(values: readonly Value[], places: readonly number[]) =>
      places.flatMap((place) => values[place] ?? []);
    const split = stratifiedSplit(
      of(examples.targets, training),
      SET_ASIDE,
      head.seed,
      of(
        examples.data.examples.map(({ digest }) => digest),
        training,
      ),
    );
    if (split.validation.length === 0) return undefined;
    const [first, aside] = [of(training, split.training), of(training, split.validation)];
    const learned = await this.#trained(first, undefined, "choosing", options);
    const accuracyOf = async (each: Learned) => qualityOf(await this.scores(each, aside)).accuracy;
    const alone = await accuracyOf(await this.#alone(learned.head));
    const { fitted } = learned;
    return {
      choice: choose({
        head: alone,
        trained: await accuracyOf(learned),
        examples: aside.length,
        by: "set-aside",
      }),
      fitted: fitted && { ...fitted, epoch: 0 },
    };
  }

  /** The head, then everything; with validation examples the best epoch, or the head alone. */
  async #trained(
    training: readonly number[],
    validation: readonly number[] | undefined,
    stage: Stage,
    { checkpointsOf, checkpointSteps, onStep }: LearnOptions,
  ): Promise<Learned> {
    const { examples, from, head: settings, tuning, runtime, threads, recompute } = this.#options;
    const { site } = examples;
    const head = await this.#trainHead(training);
    const { augmentation, norms, ...fitting } = tuning;
    const network = await this.#network(head, from, norms);
    const rows = await examples.values(from, augmentation);
    const held = validation && new SelectedRows(await examples.values(from), validation);
    const targets = training.map((place) => examples.targets[place] ?? 0);
    const shared = { ...settings, classes: examples.data.labels.length, outputs: site.outputs };
    const parameters = [...network.trunk, ...network.head];
    const [input = ""] = network.training.inputs;
    const fitted = await fitModel<number>({
      ...fitting,
      ...{ runtime, threads, recompute, parameters, model: network.training, seed: settings.seed },
      rows: new SelectedRows(rows, training),
      collate: classTerms(shared, targets),
      ...(held && {
        mayKeepStart: true,
        judge: async (trainer) => {
          const scores = await scoresBy(held, tuning.batch, async (x) =>
            (await trainer.answers(new Map([[input, x]]))).get(site.outputs.logits),
          );
          return qualityOf(scores).accuracy;
        },
      }),
      ...{ checkpoints: checkpointsOf?.(stage), checkpointSteps },
      onStep: this.#counted(stage, validation !== undefined, onStep),
    });
    const choice =
      held && fitted.start !== undefined
        ? choose({
            head: fitted.start,
            trained: Math.max(...fitted.qualities),
            examples: held.count,
            by: "held-back",
          })
        : undefined;
    if (fitted.epoch === 0) return { ...(await this.#alone(head)), fitted, choice };
    return { model: network.training.withValues(fitted.parameters), from, head, fitted, choice, parameters };
  }

  /** Steps of one stage among those of both. */
  #counted(
    stage: Stage,
    isOnly: boolean,
    onStep: LearnOptions["onStep"],
  ): ((step: FitStep) => void) | undefined {
    if (isOnly || !onStep) return onStep;
    return ({ step, steps, ...rest }) =>
      onStep({ ...rest, step: stage === "choosing" ? step : steps + step, steps: 2 * steps });
  }

  async #alone(head: TrainedHead): Promise<Learned> {
    const { site } = this.#options.examples;
    const { training, head: parameters } = await this.#network(head, site.tap.name);
    return {
      ...{ model: training.model, from: site.tap.name, head, parameters },
      ...{ fitted: undefined, choice: undefined },
    };
  }

  async #trainHead(training: readonly number[], onStep?: (step: FitStep) => void): Promise<TrainedHead> {
    const { examples, head, runtime, threads } = this.#options;
    return trainHead({
      ...head,
      ...{ runtime, threads, onStep, input: this.#headInput(), outputs: examples.site.outputs },
      classes: examples.data.labels.length,
      rows: new SelectedRows(await this.#headRows(), training),
      targets: training.map((place) => examples.targets[place] ?? 0),
    });
  }

  async #network(head: TrainedHead, from: string, norms?: NormMode): Promise<Network> {
    const { examples, outputs } = this.#options;
    const { tap, pooling } = examples.site;
    const shape = await examples.shapeOf(from);
    const whole = this.#headOn({ ...tap, pooling }, head, from);
    return networkFrom(examples.site, from, shape, whole, outputs, { norms });
  }

  /** The head behind what is trained from a place on. */
  #headOn(input: HeadInput, { values, standardisation }: TrainedHead, from: string): Model {
    const { examples, head } = this.#options;
    const { site, data } = examples;
    return headNetwork({
      ...{ input, values, standardisation, shape: head.shape, seed: head.seed, outputs: site.outputs },
      classes: data.labels.length,
      ...(from !== site.tap.name && { opset: headOpset(site) }),
    });
  }

  /** What the head is trained on: the tap's mean, computed once, where that is all that it looks at. */
  #headInput(): HeadInput {
    const { examples, head } = this.#options;
    const { tap, pooling } = examples.site;
    if (head.shape.kind === "conv") return { ...tap, pooling };
    const { channels } = pooling;
    return { name: tap.name, dtype: "float32", shape: ["batch", channels], pooling: { axes: [], channels } };
  }

  #headRows(): Promise<RowSource<number>> {
    const { examples, head } = this.#options;
    return head.shape.kind === "conv" ? examples.values(examples.site.tap.name) : examples.vectors();
  }
}
