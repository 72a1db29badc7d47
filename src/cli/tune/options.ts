/** The options of `tune`, as the verb reads them; what each way makes of them stands in a file of its own. */

import type { ChannelPlace } from "../../teach/pooling.js";
import type { Optimizer } from "../../train/optimizers.js";
import type { Schedule } from "../../train/schedules.js";
import type { HeadShape } from "../../tune/head-network.js";
import { IMAGE_WAYS } from "../../tune/tune-images.js";
import type { ControlOptions } from "../control/open-control.js";
import type { LossOptions } from "../loss-option.js";

/** Every way to train. */
export const WAYS = [...IMAGE_WAYS, "detect"] as const;

/** The options of a way that learns from images with one class each. */
export type ClassTuneOptions = TuneOptions & { readonly way: (typeof IMAGE_WAYS)[number] };

/** What the verb is given. Options without a default are undefined where a way has a default of its own. */
export interface TuneOptions extends LossOptions, ControlOptions {
  readonly way: (typeof WAYS)[number];
  readonly npz?: string;
  readonly data?: string;
  readonly tap?: string;
  readonly preprocess?: string;
  readonly channels?: ChannelPlace;
  readonly cache: string;
  readonly head: HeadShape["kind"];
  readonly hidden?: number;
  readonly freeze: string;
  readonly depths: number;
  readonly folds?: number;
  readonly validation?: number;
  readonly epochs?: number;
  readonly batch?: number;
  readonly augment?: string;
  readonly patience?: number;
  readonly balance?: boolean;
  readonly bad?: number;
  readonly other?: readonly string[];
  readonly backboneOut?: string;
  readonly checkpoint?: string;
  readonly checkpointSteps?: number;
  readonly resume?: boolean;
  readonly report?: string;
  readonly publish?: string;
  readonly order: "given" | "shuffled";
  readonly optimizer: Optimizer["kind"];
  readonly lr?: number;
  readonly momentum?: number;
  readonly nesterov?: boolean;
  readonly weightDecay?: number;
  readonly schedule?: NonNullable<Schedule["kind"]>;
  readonly warmup?: number;
  readonly milestones?: readonly number[];
  readonly clip?: number;
  readonly accumulate: number;
  readonly steps: number;
  readonly seed: number;
  readonly threads: number;
  readonly out: string;
}

/** The schedule that the options say, or else the way's own. */
export function scheduleOf(
  { schedule, warmup, milestones }: TuneOptions,
  own: { readonly kind: NonNullable<Schedule["kind"]>; readonly warmup: number },
): Schedule {
  return {
    kind: schedule ?? (milestones ? "step" : own.kind),
    warmup: warmup ?? own.warmup,
    ...(milestones && { milestones }),
  };
}

/** The optimiser that the options say. */
export function optimizerOf({ optimizer, momentum, nesterov, weightDecay }: TuneOptions): Optimizer {
  const decay = weightDecay === undefined ? {} : { weightDecay };
  if (optimizer !== "sgd") return { kind: optimizer, ...decay };
  return {
    kind: optimizer,
    ...decay,
    ...(momentum !== undefined && { momentum }),
    ...(nesterov && { nesterov }),
  };
}
