/**
 * What learns from examples: the head first, on frozen features, then, where more than the head is trained, everything
 * from the place where it begins, at a low rate (LP-FT: Kumar et al., "Fine-Tuning can Distort Pretrained Features and
 * Underperform Out-of-Distribution", 2022). Head, branch and full differ in that place alone.
 */
import type { Augmentation } from "../data/augmentation.js";
import type { RowSource } from "../data/rows.js";
import type { Checkpoints } from "../files/checkpoint.js";
import type { Model } from "../onnx/model.js";
import { openModelOn } from "../runtime/open-model.js";
import type { Runtime } from "../runtime/runtime.js";
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
}

/** How one training goes. */
export interface LearnOptions {
  /** Examples to learn from. */
  readonly training: readonly number[];
  /** Examples that say after each epoch how good it is; with patience they say when to stop. */
  readonly validation?: readonly number[] | undefined;
  readonly checkpoints?: Checkpoints | undefined;
  readonly checkpointSteps?: number | undefined;
  readonly onStep?: ((step: FitStep) => void) | undefined;
}

/** What was learned. */
export interface Learned {
  /** From the place where training begins to logits and probabilities, without metadata. */
  readonly model: Model;
  readonly head: TrainedHead;
  /** Undefined where the head alone was trained. */
  readonly fitted: Fitted | undefined;
  /** Parameters that were trained. */
  readonly parameters: readonly string[];
}

/** Learns from examples, as often as it is asked to. */
export class Learner {
  readonly #options: LearnerOptions;

  constructor(options: LearnerOptions) {
    this.#options = options;
  }

  /** Trains. @throws PolyheadError as `trainHead`, `networkFrom` and `fitModel` do */
  async learn({ training, validation, ...options }: LearnOptions): Promise<Learned> {
    const { examples, from, head: settings, tuning, runtime, threads } = this.#options;
    const { site } = examples;
    const isAlone = from === site.tap.name;
    const head = await this.#trainHead(training, isAlone ? options.onStep : undefined);
    const network = await this.#network(head);
    if (isAlone) {
      return { model: network.training.model, head, fitted: undefined, parameters: network.head };
    }
    const { augmentation, ...fitting } = tuning;
    const rows = await examples.values(from, augmentation);
    const held = validation && new SelectedRows(await examples.values(from), validation);
    const targets = training.map((place) => examples.targets[place] ?? 0);
    const shared = { ...settings, classes: examples.data.labels.length, outputs: site.outputs };
    const parameters = [...network.trunk, ...network.head];
    const [input = ""] = network.training.inputs;
    const fitted = await fitModel<number>({
      ...fitting,
      ...{ runtime, threads, parameters, model: network.training, seed: settings.seed },
      rows: new SelectedRows(rows, training),
      collate: classTerms(shared, targets),
      ...(held && {
        judge: async (trainer) => {
          const scores = await scoresBy(held, tuning.batch, async (x) =>
            (await trainer.answers(new Map([[input, x]]))).get(site.outputs.logits),
          );
          return qualityOf(scores).accuracy;
        },
      }),
      ...options,
    });
    return { model: network.training.withValues(fitted.parameters), head, fitted, parameters };
  }

  /** What was learned says of examples. @throws PolyheadError as `scoresOf` does */
  async scores({ model, head }: Learned, places: readonly number[]): Promise<Scores> {
    const { examples, from, runtime, tuning } = this.#options;
    const isAlone = from === examples.site.tap.name;
    const rows = isAlone ? await this.#headRows() : await examples.values(from);
    const whole = isAlone ? this.#headOn(this.#headInput(), head) : model;
    const output = examples.site.outputs.logits;
    return scoresOf(new SelectedRows(rows, places), tuning.batch, openModelOn(runtime), whole, output);
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

  async #network(head: TrainedHead): Promise<Network> {
    const { examples, from, outputs } = this.#options;
    const { tap, pooling } = examples.site;
    const shape = await examples.shapeOf(from);
    return networkFrom(examples.site, from, shape, this.#headOn({ ...tap, pooling }, head), outputs);
  }

  #headOn(input: HeadInput, { values, standardisation }: TrainedHead): Model {
    const { examples, head, from } = this.#options;
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
