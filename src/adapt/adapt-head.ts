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
import { type Agreement, agreementOf, answersOf } from "./agreement.js";
import type { FitOptions } from "./fit-options.js";
import { foldAdapter, proveFold, runOn } from "./fold.js";
import { type HeadReading, headFromVector } from "./head-reading.js";
import {
  type AdaptReport,
  agreementOnly,
  bestOf,
  type Choosing,
  descriptionOf,
  enoughOf,
  isWithinNoiseOfAll,
  type Measure,
  type RungReport,
  reportOf,
  requireEnough,
  scoreOf,
  type TapReport,
  tooLow,
} from "./judgement.js";
import { CLOSED_RUNGS, climb, RUNGS, type RungName } from "./ladder.js";
import { headThroughAdapter } from "./through-adapter.js";
import { withHeadValues } from "./trained-map.js";
import {
  answersBy,
  climbTrained,
  type HeadedRung,
  heldOutAnswers,
  isTrained,
  type TrainedRungsOptions,
} from "./trained-rungs.js";

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
  /** Class of each example in the head's order, where it is known; for judging, and where `learn` says so for learning. */
  readonly truth?: readonly number[] | undefined;
  /** Other examples to judge on; without them each example is judged by maps that have not seen it. */
  readonly test?: TestExamples | undefined;
  readonly provenance?: Readonly<Record<string, unknown>>;
  readonly progress?: (done: number, total: number) => void;
}

/** An adapter, the head with it folded in where that can be, and how good they are. */
export interface AdaptedHead {
  /** Undefined where the head was trained as well, so that it fits no other adapter and no other backbone. */
  readonly adapter: Model | undefined;
  /** The head that reads the new tap by itself: with the adapter folded in, or trained together with it. */
  readonly folded: Model | undefined;
  readonly report: AdaptReport;
}

/** What was climbed on one tap. */
interface Climbed {
  readonly offer: TapOffer;
  readonly place: number;
  readonly rungs: readonly HeadedRung[];
  readonly judged: readonly RungReport[];
}

/**
 * Adapts a head.
 * @throws PolyheadError DATA_MALFORMED for features that are not finite, or too few examples; INVALID_ARGUMENT for
 *   examples that do not fit each other, or whose classes are to be learned from and are not known
 * @throws PolyheadError QUALITY_TOO_LOW with the whole report when too little of the head survives
 */
export async function adaptHead(options: AdaptOptions): Promise<AdaptedHead> {
  const { head, reading, target, truth, test, open, folds = 5, seed = 0, floor = 0.9 } = options;
  requireExamples(options);
  const metadata = readMetadata(head);
  const rest = headFromVector(head, reading);
  const assigned = stratifiedFolds(truth ?? Array<number>(target.rows).fill(0), folds, seed);
  const by: Measure = options.learn === undefined ? "agreement" : "accuracy";
  const choosing = { examples: target.rows, by, slack: options.slack };
  const climbed = (await climbTaps(options, rest, assigned, choosing)).map((each) => {
    const { name: tap, shape } = each.offer.tap;
    const { flops } = each.offer;
    const enough = enoughOf(each.judged, choosing).name;
    return { ...each, report: { tap, shape, flops, rungs: each.judged, enough } satisfies TapReport };
  });
  const { offer, place, rungs, report: own } = bestOf(climbed, choosing);
  const rung = rungs.find(({ name }) => name === own.enough);
  const judged = own.rungs.find(({ name }) => name === own.enough);
  if (!rung || !judged) throw new PolyheadError("INTERNAL", "No rung was climbed.", {});
  const quality = test ? await judgeOn(test, place, rung, options, rest) : agreementOnly(judged);
  const whole = rung.values ? withHeadValues(head, rung.values) : head;
  const part = { source: offer.tap, pooling: offer.pooling, reading, map: rung.map };
  const { folded, difference } = await tryFold({ ...part, head: whole }, offer.features, open);
  const report: AdaptReport = {
    examples: target.rows,
    folds,
    seed,
    floor,
    taps: climbed.map((each) => each.report),
    chosen: { tap: offer.tap.name, rung: rung.name },
    chosenBy: by,
    quality,
    judgedOn: test ? "test examples" : "cross-validation",
    folded: difference === undefined ? undefined : { difference },
  };
  if (!(quality.kept >= floor)) throw tooLow(report);
  const described = descriptionOf(report, options.provenance);
  const adapter = withMetadata(adapterModel([part]), described);
  const provenance = { ...metadata.provenance, ...described.provenance };
  const asOne = folded && withMetadata(folded, { ...described, provenance });
  return rung.values
    ? { adapter: undefined, folded: asOne ?? headThroughAdapter(whole, adapter), report }
    : { adapter, folded: asOne, report };
}

/** The rungs in closed form on all taps, and those that are trained on the tap where they do best. */
async function climbTaps(
  { head, target, offers, truth, open, progress, ...options }: AdaptOptions,
  rest: Model,
  folds: readonly number[],
  choosing: Choosing,
): Promise<Climbed[]> {
  const metadata = readMetadata(head);
  const native = answersOf(await runOn(rest, target, open), metadata);
  const judge = async (rungs: readonly HeadedRung[]) => {
    const reports: RungReport[] = [];
    for (const rung of rungs) {
      const answers = await heldOutAnswers(rung, folds, rest, metadata, open);
      reports.push(reportOf(rung, agreementOf(native, answers, truth)));
    }
    return reports;
  };
  const names = options.rungs ?? RUNGS;
  const closed = names.every(isTrained) ? CLOSED_RUNGS : names;
  const climbed: Climbed[] = [];
  for (const [place, offer] of offers.entries()) {
    const rungs = climb({ source: offer.features, target, folds }, closed);
    climbed.push({ offer, place, rungs, judged: await judge(rungs) });
    progress?.(place + 1, offers.length);
  }
  const [best] = climbed
    .flatMap((own) =>
      own.judged.map((report) => ({ own, name: report.name, score: scoreOf(report, choosing.by) })),
    )
    .toSorted((a, b) => b.score - a.score);
  const start = best?.own.rungs.find(({ name }) => name === best.name);
  if (!best || !start) return climbed;
  const isDone = options.rungs === undefined && isWithinNoiseOfAll(best.score, choosing);
  const trained = await climbTrainedOn(isDone ? names.filter((name) => name !== "residual") : names, {
    ...options,
    start,
    truth,
    head: rest,
    pairs: { source: best.own.offer.features, target, folds },
  });
  const judged = await judge(trained);
  return climbed.flatMap((own): Climbed[] => {
    const [rungs, reports] = names.every(isTrained) ? [[], []] : [own.rungs, own.judged];
    if (own === best.own) return [{ ...own, rungs: [...rungs, ...trained], judged: [...reports, ...judged] }];
    return rungs.length > 0 ? [own] : [];
  });
}

/** Opens what trains, where something is to be trained. */
async function climbTrainedOn(
  names: readonly RungName[],
  { openTrainer, ...options }: Omit<TrainedRungsOptions, "runtime"> & Pick<AdaptOptions, "openTrainer">,
): Promise<HeadedRung[]> {
  if (!openTrainer && options.learn !== undefined)
    throw new PolyheadError("INVALID_ARGUMENT", "Nothing was given to train with.", {});
  if (!openTrainer || !names.some(isTrained)) return [];
  const runtime = await openTrainer();
  try {
    return await climbTrained(names, { ...options, runtime });
  } finally {
    await runtime.close();
  }
}

async function judgeOn(
  test: TestExamples,
  place: number,
  rung: HeadedRung,
  { head, open }: AdaptOptions,
  rest: Model,
): Promise<Agreement> {
  const features = test.features[place];
  if (!features) throw new PolyheadError("INVALID_ARGUMENT", "The test examples lack a tap's features.", {});
  const metadata = readMetadata(head);
  const native = answersOf(await runOn(rest, test.target, open), metadata);
  return agreementOf(native, await answersBy(rung, features, rest, metadata, open), test.truth);
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
