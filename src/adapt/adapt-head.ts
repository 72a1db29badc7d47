/**
 * A head on features that it was not made for: the ladder is climbed on every tap that is offered, what the head makes
 * of each rung's features decides, and the result is an adapter that says in its metadata what it stands in for and how
 * much of the head survives. For heads that read one vector an image; pure, features come from wherever they come from.
 */
import { PolyheadError } from "../base/errors.js";
import { stratifiedFolds } from "../data/folds.js";
import { readMetadata, type Tap, withMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import type { OpenModel } from "../onnx/runner.js";
import type { Matrix } from "../teach/linear-algebra.js";
import type { Pooling } from "../teach/pooling.js";
import { adapterModel } from "./adapter-model.js";
import { type AffineMap, applyAffine } from "./affine.js";
import { type Agreement, agreementOf, answersOf, type HeadAnswers } from "./agreement.js";
import type { FitOptions } from "./fit-options.js";
import { foldAdapter, proveFold, runOn } from "./fold.js";
import { type HeadReading, headFromVector } from "./head-reading.js";
import {
  type AdaptReport,
  agreementOnly,
  bestOf,
  descriptionOf,
  enoughOf,
  type RungReport,
  reportOf,
  requireEnough,
  type TapReport,
  tooLow,
} from "./judgement.js";
import { climb, RUNGS, type Rung } from "./ladder.js";

/** A tap that the head might read through an adapter. */
export interface TapOffer {
  readonly tap: Tap;
  readonly pooling: Pooling;
  /** What the tap gives for each example, pooled: [n, channels]. */
  readonly features: Matrix;
  /** Floating-point operations up to the tap. */
  readonly flops: number;
}

/** Examples that were kept aside to judge on. */
export interface TestExamples {
  readonly target: Matrix;
  /** For each offer, in their order. */
  readonly features: readonly Matrix[];
  readonly truth?: readonly number[] | undefined;
}

/** What to adapt. */
export interface AdaptOptions extends FitOptions {
  readonly head: Model;
  readonly reading: HeadReading;
  /** What the head's own tap gives for each example, pooled: [n, channels]. */
  readonly target: Matrix;
  readonly offers: readonly TapOffer[];
  /** Class of each example in the head's order, where it is known; it is used for judging only. */
  readonly truth?: readonly number[] | undefined;
  /** Other examples to judge on; without them each example is judged by maps that have not seen it. */
  readonly test?: TestExamples | undefined;
  readonly provenance?: Readonly<Record<string, unknown>>;
  readonly progress?: (done: number, total: number) => void;
}

/** An adapter, the head with it folded in where that can be, and how good they are. */
export interface AdaptedHead {
  readonly adapter: Model;
  readonly folded: Model | undefined;
  readonly report: AdaptReport;
}

/**
 * Adapts a head.
 * @throws PolyheadError DATA_MALFORMED for features that are not finite, or too few examples; INVALID_ARGUMENT for
 *   examples that do not fit each other
 * @throws PolyheadError QUALITY_TOO_LOW with the whole report when too little of the head survives
 */
export async function adaptHead(options: AdaptOptions): Promise<AdaptedHead> {
  const { head, reading, target, offers, truth, test, open, folds = 5, seed = 0, floor = 0.9 } = options;
  requireExamples(options);
  const metadata = readMetadata(head);
  const rest = headFromVector(head, reading);
  const answers = async (features: Matrix): Promise<HeadAnswers> =>
    answersOf(await runOn(rest, features, open), metadata);
  const native = await answers(target);
  const assigned = stratifiedFolds(truth ?? Array<number>(target.rows).fill(0), folds, seed);
  const climbed: { offer: TapOffer; place: number; rungs: Rung[]; report: TapReport }[] = [];
  for (const [place, offer] of offers.entries()) {
    const rungs = climb({ source: offer.features, target, folds: assigned }, options.rungs ?? RUNGS);
    const judged: RungReport[] = [];
    for (const rung of rungs)
      judged.push(reportOf(rung, agreementOf(native, await answers(rung.heldOut), truth)));
    const { name: tap, shape } = offer.tap;
    const enough = enoughOf(judged, target.rows, options.slack).name;
    climbed.push({ offer, place, rungs, report: { tap, shape, flops: offer.flops, rungs: judged, enough } });
    options.progress?.(place + 1, offers.length);
  }
  const taps = climbed.map(({ report }) => report);
  const { offer, place, rungs, report: own } = bestOf(climbed, target.rows, options.slack);
  const rung = rungs.find(({ name }) => name === own.enough);
  const judged = own.rungs.find(({ name }) => name === own.enough);
  if (!rung || !judged) throw new PolyheadError("INTERNAL", "No rung was climbed.", {});
  const quality = test ? await judgeOn(test, place, rung.map, answers) : agreementOnly(judged);
  const foldable = { head, reading, source: offer.tap, pooling: offer.pooling, map: rung.map };
  const { folded, difference } = await tryFold(foldable, offer.features, open);
  const report: AdaptReport = {
    examples: target.rows,
    folds,
    seed,
    floor,
    taps,
    chosen: { tap: offer.tap.name, rung: rung.name },
    quality,
    judgedOn: test ? "test examples" : "cross-validation",
    folded: difference === undefined ? undefined : { difference },
  };
  if (!(quality.kept >= floor)) throw tooLow(report);
  const described = descriptionOf(report, options.provenance);
  const part = { source: offer.tap, pooling: offer.pooling, reading, map: rung.map };
  return {
    adapter: withMetadata(adapterModel([part]), described),
    folded:
      folded &&
      withMetadata(folded, { ...described, provenance: { ...metadata.provenance, ...described.provenance } }),
    report,
  };
}

async function judgeOn(
  test: TestExamples,
  place: number,
  map: AffineMap,
  answers: (features: Matrix) => Promise<HeadAnswers>,
): Promise<Agreement> {
  const features = test.features[place];
  if (!features) throw new PolyheadError("INVALID_ARGUMENT", "The test examples lack a tap's features.", {});
  return agreementOf(await answers(test.target), await answers(applyAffine(map, features)), test.truth);
}

async function tryFold(
  foldable: Parameters<typeof foldAdapter>[0],
  vectors: Matrix,
  open: OpenModel,
): Promise<{ folded?: Model; difference?: number }> {
  const folded = foldAdapter(foldable);
  if (!folded) return {};
  try {
    return { folded, difference: await proveFold(foldable, folded, vectors, open) };
  } catch (thrown) {
    if (thrown instanceof PolyheadError && thrown.code === "PROOF_FAILED") return {};
    throw thrown;
  }
}

function requireExamples({ target, offers, truth, floor = 0.9 }: AdaptOptions): void {
  for (const { tap, features } of offers) {
    if (features.rows === target.rows && (truth?.length ?? target.rows) === target.rows) continue;
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Got ${features.rows} rows of ${JSON.stringify(tap.name)}, ${target.rows} of the head's tap and ${truth?.length ?? "no"} classes; expected one of each for every example.`,
      { source: features.rows, target: target.rows, classes: truth?.length },
    );
  }
  for (const { data, columns } of [target, ...offers.map(({ features }) => features)]) {
    const at = data.findIndex((value) => !Number.isFinite(value));
    if (at < 0) continue;
    throw new PolyheadError(
      "DATA_MALFORMED",
      `Example ${Math.floor(at / columns)} has the feature ${data[at]}; expected finite numbers. See whether the preprocessing is each backbone's own.`,
      { example: Math.floor(at / columns), feature: at % columns },
    );
  }
  requireEnough(target.rows, floor);
}
