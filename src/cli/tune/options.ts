/** The options of `tune`, as the verb reads them; what each way makes of them stands in a file of its own. */

import { InvalidArgumentError } from "commander";
import { PolyheadError } from "../../base/errors.js";
import type { ChannelPlace } from "../../teach/pooling.js";
import type { NormMode } from "../../train/batch-norms.js";
import type { Optimizer } from "../../train/optimizers.js";
import type { ParameterRule } from "../../train/parameter-rules.js";
import type { Schedule } from "../../train/schedules.js";
import type { HeadShape } from "../../tune/head-network.js";
import { IMAGE_WAYS } from "../../tune/tune-images.js";
import type { ControlOptions } from "../control/open-control.js";
import type { LossOptions } from "../loss-option.js";
import { readNumber } from "../option-numbers.js";

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
  readonly average?: number;
  readonly group?: readonly RateGroup[];
  readonly accumulate: number;
  readonly norms: NormMode;
  readonly recompute?: boolean;
  readonly steps: number;
  readonly seed: number;
  readonly threads: number;
  readonly out: string;
}

/**
 * The schedule that the options say, or else the way's own.
 * @throws PolyheadError INVALID_ARGUMENT for milestones of another schedule
 */
export function scheduleOf(
  { schedule, warmup, milestones }: Pick<TuneOptions, "schedule" | "warmup" | "milestones">,
  own: { readonly kind: NonNullable<Schedule["kind"]>; readonly warmup: number },
): Schedule {
  if (milestones && schedule !== undefined && schedule !== "step") {
    throw new PolyheadError("INVALID_ARGUMENT", `--milestones go with --schedule step; got ${schedule}.`, {
      got: schedule,
      expected: "step",
    });
  }
  return {
    kind: schedule ?? (milestones ? "step" : own.kind),
    warmup: warmup ?? own.warmup,
    ...(milestones && { milestones }),
  };
}

/** Parameters with a rate or a decay of their own, as the options say them. */
export interface RateGroup extends Pick<ParameterRule, "names" | "weightDecay"> {
  /** The learning rate itself. */
  readonly rate?: number;
}

/** `PATTERN=RATE`, `PATTERN=RATE,DECAY` or `PATTERN=,DECAY`. */
export function readGroup(text: string, before: readonly RateGroup[] = []): RateGroup[] {
  const [, names, rate, decay] = /^(.+)=([^=,]*)(?:,([^=,]*))?$/.exec(text) ?? [];
  if (names === undefined || (!rate && !decay)) {
    throw new InvalidArgumentError(
      `${JSON.stringify(text)} is not PATTERN=RATE, PATTERN=RATE,DECAY or PATTERN=,DECAY.`,
    );
  }
  const own = { ...(rate && { rate: readNumber(rate) }), ...(decay && { weightDecay: readNumber(decay) }) };
  return [...before, { names, ...own }];
}

/** The groups as parts of the rate of all others. */
export function groupsOfRate(
  groups: readonly RateGroup[] | undefined,
  rate: number,
): ParameterRule[] | undefined {
  return groups?.map(({ rate: own, ...group }) => ({
    ...group,
    ...(own !== undefined && { rate: own === 0 ? 0 : own / rate }),
  }));
}

/**
 * The optimiser that the options say.
 * @throws PolyheadError INVALID_ARGUMENT for settings of another optimiser
 */
export function optimizerOf({
  optimizer,
  momentum,
  nesterov,
  weightDecay,
}: Pick<TuneOptions, "optimizer" | "momentum" | "nesterov" | "weightDecay">): Optimizer {
  if ((momentum !== undefined || nesterov) && optimizer !== "sgd") {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `--momentum and --nesterov go with --optimizer sgd; got ${optimizer}.`,
      {
        got: optimizer,
        expected: "sgd",
      },
    );
  }
  if (nesterov && !momentum) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "--nesterov looks ahead along a momentum; give --momentum as well.",
      {},
    );
  }
  const decay = weightDecay === undefined ? {} : { weightDecay };
  if (optimizer !== "sgd") return { kind: optimizer, ...decay };
  return {
    kind: optimizer,
    ...decay,
    ...(momentum !== undefined && { momentum }),
    ...(nesterov && { nesterov }),
  };
}
