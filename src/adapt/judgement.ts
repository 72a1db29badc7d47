/**
 * What is told of an adapter, and the choice between rungs and taps: the smallest that is within the noise of the best.
 */
import { PolyheadError } from "../base/errors.js";
import type { Metadata, Tap } from "../onnx/metadata.js";
import type { Agreement } from "./agreement.js";
import { RUNGS, type Rung, type RungName } from "./ladder.js";

/** What makes one rung better than another: agreement, or accuracy where something learned from the classes. */
export type Measure = "agreement" | "accuracy";

/** A rung as the report has it. */
export interface RungReport
  extends Agreement,
    Pick<Rung, "name" | "rank" | "strength" | "steps" | "parameters"> {
  readonly explained: number;
  readonly milliseconds: number;
}

/** What became of the ladder on one tap. */
export interface TapReport {
  readonly tap: string;
  readonly shape: Tap["shape"];
  readonly flops: number;
  readonly rungs: readonly RungReport[];
  /** The rung that is enough here. */
  readonly enough: RungName;
}

/** How much survives, and of what. */
export interface AdaptReport {
  readonly examples: number;
  readonly folds: number;
  readonly seed: number;
  readonly floor: number;
  readonly taps: readonly TapReport[];
  readonly chosen: { readonly tap: string; readonly rung: RungName };
  /** By what rungs and taps were chosen. */
  readonly chosenBy: Measure;
  /** On the test examples, or by cross-validation where there are none. */
  readonly quality: Agreement;
  readonly judgedOn: "test examples" | "cross-validation";
  /** Whether adapter and head are also one head that costs nothing more, and how far that is from the pair. */
  readonly folded: { readonly difference: number } | undefined;
}

/** The report with what became of the images. */
export interface AdaptImagesReport extends AdaptReport {
  readonly images: number;
  /** Images whose features were all in the cache. */
  readonly cached: number;
  /** Whether the images' classes are known. */
  readonly labelled: boolean;
  readonly notes: readonly string[];
}

/** Fewer examples than these say nothing of a share. */
const FEWEST_EXAMPLES = 30;

/** A rung with how it was judged. */
export function reportOf(
  { name, rank, strength, steps, parameters, explained, milliseconds }: Rung,
  judged: Agreement,
): RungReport {
  return {
    name,
    ...(rank !== undefined && { rank }),
    ...(strength !== undefined && { strength }),
    ...(steps !== undefined && { steps }),
    parameters,
    explained,
    ...judged,
    milliseconds,
  };
}

/** The judgement without the rung. */
export function agreementOnly(judged: RungReport): Agreement {
  const { agreement, interval, accuracy, nativeAccuracy, kept } = judged;
  return {
    agreement,
    ...(interval && { interval }),
    ...(accuracy && { accuracy }),
    ...(nativeAccuracy && { nativeAccuracy }),
    kept,
  };
}

/** How the choice between rungs and taps is made. */
export interface Choosing {
  readonly examples: number;
  readonly by: Measure;
  /** Standard errors that count as noise; 1 by default. */
  readonly slack?: number | undefined;
}

/** What a rung is chosen by. */
export function scoreOf({ agreement, accuracy }: RungReport, by: Measure): number {
  return by === "accuracy" && accuracy ? accuracy.value : agreement;
}

/** Whether a score is so near to 1 that nothing which is better could be told from it. */
export function isWithinNoiseOfAll(score: number, { examples, slack = 1 }: Choosing): boolean {
  return score >= 1 - slack * errorOf(score, examples);
}

/** The lowest rung that is within the noise of the best. */
export function enoughOf(rungs: readonly RungReport[], { examples, by, slack = 1 }: Choosing): RungReport {
  const best = Math.max(...rungs.map((each) => scoreOf(each, by)));
  const found = rungs.find((each) => scoreOf(each, by) >= best - slack * errorOf(best, examples));
  if (found) return found;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `No rung fits these widths; expected some of ${RUNGS.join(", ")}.`,
    {
      expected: RUNGS,
    },
  );
}

/** Of the taps within the noise of the best the one that costs least. */
export function bestOf<Climbed extends { readonly report: TapReport }>(
  climbed: readonly Climbed[],
  { examples, by, slack = 1 }: Choosing,
): Climbed {
  const scoreAt = ({ report }: Climbed) => {
    const rung = report.rungs.find(({ name }) => name === report.enough);
    return rung ? scoreOf(rung, by) : Number.NEGATIVE_INFINITY;
  };
  const best = Math.max(...climbed.map(scoreAt));
  const [cheapest] = climbed
    .filter((each) => scoreAt(each) >= best - slack * errorOf(best, examples))
    .sort((a, b) => a.report.flops - b.report.flops);
  if (cheapest) return cheapest;
  throw new PolyheadError("INVALID_ARGUMENT", "No tap was offered for the head to read.", {});
}

function errorOf(share: number, examples: number): number {
  return Math.sqrt(Math.max(0, share * (1 - share)) / examples);
}

/**
 * @throws PolyheadError DATA_MALFORMED for fewer examples than can show that a share is above a floor
 */
export function requireEnough(examples: number, floor: number): void {
  if (examples >= FEWEST_EXAMPLES || (floor <= 0 && examples >= 2)) return;
  throw new PolyheadError(
    "DATA_MALFORMED",
    `Got ${examples} different examples; expected at least ${FEWEST_EXAMPLES}, because fewer cannot show that ${(100 * floor).toFixed(0)} % of a head survive. Add images, or use --floor 0 to see what comes out.`,
    { got: examples, expected: FEWEST_EXAMPLES },
  );
}

/** What the metadata of an adapter say of it. */
export function descriptionOf(
  report: AdaptReport,
  provenance: Readonly<Record<string, unknown>> | undefined,
): Pick<Metadata, "provenance" | "quality"> {
  const { chosen, quality, judgedOn, examples, folds, seed, floor } = report;
  return {
    provenance: { by: "polyhead adapt", ...chosen, examples, folds, seed, ...provenance },
    quality: {
      measure: quality.nativeAccuracy ? "kept accuracy" : "agreement",
      how: judgedOn === "cross-validation" ? `cross-validation with ${folds} folds, seed ${seed}` : judgedOn,
      kept: quality.kept,
      agreement: quality.agreement,
      ...(quality.interval && { agreementInterval: [quality.interval.low, quality.interval.high] }),
      ...(quality.accuracy && { accuracy: quality.accuracy.value }),
      ...(quality.nativeAccuracy && { nativeAccuracy: quality.nativeAccuracy.value }),
      floor,
      examples,
    },
  };
}

/** The refusal of an adapter that keeps too little. */
export function tooLow(report: AdaptReport): PolyheadError {
  const { quality, floor, chosen } = report;
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const truth =
    quality.accuracy && quality.nativeAccuracy
      ? ` (${percent(quality.accuracy.value)} right instead of ${percent(quality.nativeAccuracy.value)})`
      : "";
  return new PolyheadError(
    "QUALITY_TOO_LOW",
    `The best adapter (${chosen.rung} on ${JSON.stringify(chosen.tap)}) keeps ${percent(quality.kept)} of the head's quality${truth}; expected at least ${percent(floor)}. More images may help; else train a head on this backbone, or lower --floor.`,
    { report },
  );
}
