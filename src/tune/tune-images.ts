/**
 * From a backbone and images of some classes to a head, a branch or a new backbone: everything that `polyhead tune --data`
 * does but reading and writing models.
 */
import { PolyheadError } from "../base/errors.js";
import { classDataSet } from "../data/data-set.js";
import type { ClassListing, Problem } from "../data/listing.js";
import { Checkpoints } from "../files/checkpoint.js";
import type { Model } from "../onnx/model.js";
import { revisionOf } from "../onnx/revision.js";
import { openModelOn } from "../runtime/open-model.js";
import type { Runtime } from "../runtime/runtime.js";
import { TrainingModel } from "../train/training-model.js";
import type { ClassificationQuality } from "../vision/classification-quality.js";
import { type Choice, describeChoice } from "./choice.js";
import { type Cost, chosenDepth, DEPTH_RULE, type Depth, depthsToTry, millisecondsOf } from "./depths.js";
import { Examples } from "./examples.js";
import type { FitStep } from "./fit.js";
import { type JudgedLearning, type Judging, learnAndJudge } from "./judge.js";
import { Learner, type TuningSettings } from "./learner.js";
import { lossOfOther, type OtherHead, type OtherHeadLoss } from "./other-heads.js";
import {
  aboutData,
  backboneModel,
  headModel,
  keptOutputs,
  oldBackbone,
  type SharedStem,
  sharedStem,
  splitTrained,
  staticCost,
  tapAt,
} from "./result.js";
import { leavingPoint, openSite, partOf, type Site, type SiteOptions } from "./site.js";
import type { HeadSettings } from "./train-head.js";

/** The ways to train on classes of images. */
export const IMAGE_WAYS = ["head", "branch", "full"] as const;

/** What to train, on what, and how. */
export interface TuneImagesOptions extends SiteOptions {
  readonly way: (typeof IMAGE_WAYS)[number];
  readonly backbone: Model;
  readonly listing: ClassListing;
  /** Names for the provenance. */
  readonly names: { readonly backbone: string; readonly data: string };
  /**
   * For a branch: the value up to which the backbone is frozen, or `auto` to measure so many depths.
   * @default auto with 3 depths
   */
  readonly freeze?: string | { readonly depths: number } | undefined;
  readonly head: HeadSettings;
  readonly tuning: TuningSettings;
  readonly judging: Judging;
  /** For full training: heads of the backbone, to be measured on the new one. */
  readonly others?: readonly OtherHead[] | undefined;
  /** Most images that may be left out. */
  readonly mostProblems?: number | undefined;
  /** Of one worker. */
  readonly runtime: Runtime;
  readonly threads: number;
  /** See {@link LearnerOptions}. */
  readonly recompute?: boolean | undefined;
  /** Folder for features; nothing is kept on disk without it. */
  readonly cache?: string | undefined;
  /** Folder in which the training is kept while it goes on; it is gone on from what is there. */
  readonly checkpoints?: string | undefined;
  readonly checkpointSteps?: number | undefined;
  /** Versions of what makes the result, for its metadata. */
  readonly versions: Readonly<Record<string, string>>;
  readonly onImage?: ((done: number, total: number) => void) | undefined;
  readonly onFeature?: ((done: number, total: number) => void) | undefined;
  readonly onStep?: ((step: FitStep) => void) | undefined;
}

/** What came out, in numbers. */
export interface TuneReport {
  readonly way: TuneImagesOptions["way"];
  readonly labels: readonly string[];
  readonly examples: number;
  /** Examples of each class. */
  readonly counts: readonly number[];
  /** Examples that the result learned from. */
  readonly training: number;
  readonly digest: string;
  readonly problems: readonly Problem[];
  /**
   * The value that the head reads of the backbone, and the one from which on the network was trained; both are the same
   * where the head alone was trained, or kept.
   */
  readonly tap: string;
  readonly from: string;
  /** Names of the trained parameters. */
  readonly parameters: readonly string[];
  /** Regularisation of the head, chosen by cross-validation. */
  readonly decay: number;
  readonly accuracy: {
    readonly mean: number;
    readonly deviation: number | undefined;
    readonly folds: readonly number[];
  };
  readonly how: string;
  readonly quality: ClassificationQuality;
  /** Whether the head alone was kept, and by what; absent where nothing else was trained. */
  readonly choice?: Choice;
  /** Of the training whose result was kept; where the head was kept, of what did not become better than it. */
  readonly losses: readonly number[];
  readonly qualities: readonly number[];
  readonly epoch: number;
  readonly perEpoch: number;
  readonly seconds: number;
  /** What comes on top of the frozen stem. */
  readonly cost: Cost;
  /** Computed once for this head and all others; absent where the result is another backbone. */
  readonly stem?: SharedStem;
  readonly depths?: readonly TriedDepth[];
  readonly others?: readonly OtherHeadLoss[];
  readonly settings: Readonly<Record<string, unknown>>;
  readonly notes: readonly string[];
}

/** A depth, and what became of it. */
export interface TriedDepth extends Depth {
  /** Whether the head alone was kept there; then the cost is the head's. */
  readonly keptHead: boolean;
  readonly isTaken: boolean;
}

/** The trained models, and what is to be said of them. */
export interface TunedImages {
  readonly head: Model;
  /** After full training; the head reads this one and no other, unless it computes what the old one does. */
  readonly backbone: Model | undefined;
  readonly report: TuneReport;
  /** The files of the surest mistakes. */
  readonly mistakes: readonly {
    readonly id: string;
    readonly path: string;
    readonly expected: string;
    readonly predicted: string;
    readonly confidence: number;
  }[];
}

/** What a training at one depth gave. */
interface Attempt extends JudgedLearning {
  readonly from: string;
}

const MOST_MISTAKES = 24;
const AUTO = { depths: 3 } as const;

/**
 * Trains and judges.
 * @throws PolyheadError as `openSite`, `classDataSet`, `learnAndJudge` and `Checkpoints` do; nothing is written but
 *   features and checkpoints
 */
export async function tuneImages(options: TuneImagesOptions): Promise<TunedImages> {
  const { runtime, cache, onFeature, mostProblems, onImage } = options;
  const site = await openSite(options.backbone, options);
  const data = await classDataSet(options.listing, {
    ...(mostProblems !== undefined && { mostProblems }),
    ...(onImage && { progress: onImage }),
  });
  const open = openModelOn(runtime);
  const examples = new Examples(site, data, { open, cache, onFeature });
  try {
    const attempts = await attempt(site, examples, options);
    const [first] = attempts;
    if (!first) throw new PolyheadError("INTERNAL", "Nothing was trained.", {});
    const costs = attempts.map(({ learned }) => staticCost(learned.model));
    const times = await millisecondsOf(
      attempts.map(({ learned }) => learned.model),
      open,
    );
    const depths = attempts.map((each, at): Depth & { attempt: Attempt } => {
      const { accuracy, examples: judgedOn } = each.judged.quality;
      const error = Math.sqrt((accuracy * (1 - accuracy)) / judgedOn);
      const { flops = 0, bytes = 0 } = costs[at] ?? {};
      const cost = { flops, bytes, milliseconds: times[at] ?? 0 };
      return { from: each.from, ...cost, accuracy, error, seconds: each.seconds, attempt: each };
    });
    const {
      attempt: best,
      flops,
      bytes,
      milliseconds,
    } = chosenDepth(depths as [(typeof depths)[number], ...typeof depths]);
    return await finish(
      best,
      { flops, bytes, milliseconds },
      depths.map(({ attempt: of, ...each }) => ({
        ...each,
        keptHead: of.learned.choice?.kept === "head",
        isTaken: of === best,
      })),
      examples,
      options,
    );
  } finally {
    await examples.close();
  }
}

/** All trainings that the way asks for, the cheapest first. */
async function attempt(site: Site, examples: Examples, options: TuneImagesOptions): Promise<Attempt[]> {
  const { way, freeze = AUTO, judging, head, tuning, runtime, threads, recompute } = options;
  const places =
    way === "head"
      ? [site.tap.name]
      : way === "full"
        ? [site.input]
        : typeof freeze === "string"
          ? [leavingPoint(site, freeze).value]
          : [site.tap.name, ...depthsToTry(site, freeze.depths).map(({ value }) => value)];
  const { norms } = tuning;
  if (norms === "batch" && way !== "head") {
    const deepest = partOf(site, places.at(-1) ?? site.tap.name, [site.tap.name]);
    new TrainingModel(deepest, { norms }).requireNorms();
  }
  const identity = options.checkpoints === undefined ? undefined : await identityOf(examples, options);
  const attempts: Attempt[] = [];
  for (const [at, from] of places.entries()) {
    const outputs = way === "full" ? keptOutputs(site) : [];
    const learner = new Learner({
      ...{ examples, runtime, from, outputs, head, tuning, threads, recompute },
    });
    const learning = await learnAndJudge({
      ...{ examples, learner, judging, seed: head.seed, stopsEarly: tuning.patience !== undefined },
      checkpointSteps: options.checkpointSteps,
      checkpointsOf: (training, stage) =>
        identity && new Checkpoints(`${options.checkpoints}/${at}-${training}-${stage}`, identity),
      onStep: (step, training, trainings) => {
        const [done, all] = [at * trainings + training, places.length * trainings];
        options.onStep?.({ ...step, step: done * step.steps + step.step, steps: all * step.steps });
      },
    });
    attempts.push({ ...learning, from });
  }
  return attempts;
}

async function identityOf({ data }: Examples, options: TuneImagesOptions) {
  return { settings: settingsOf(options), data: data.digest, model: await revisionOf(options.backbone) };
}

function settingsOf(options: TuneImagesOptions) {
  const { way, tap, freeze, head, tuning, judging, threads, recompute, preprocess } = options;
  const { patience, ...rest } = tuning;
  return {
    ...{ way, tap, preprocess, head, judging, threads },
    ...(recompute && { recompute }),
    ...(way === "branch" && { freeze: freeze ?? AUTO }),
    ...(way !== "head" && {
      tuning: judging.by === "folds" ? rest : tuning,
      policy: "head first, then all (LP-FT)",
    }),
  };
}

async function finish(
  { learned, judged, training, seconds }: Attempt,
  cost: Cost,
  depths: readonly TriedDepth[],
  examples: Examples,
  options: TuneImagesOptions,
): Promise<TunedImages> {
  const { way, names, versions, runtime, others = [] } = options;
  const { site, data } = examples;
  const { from, choice } = learned;
  const fitted = learned.fitted ?? learned.head.fitted;
  const settings = settingsOf(options);
  const provenance = {
    by: "polyhead tune",
    way,
    backbone: names.backbone,
    backboneRevision: await revisionOf(options.backbone),
    tap: site.tap.name,
    from,
    data: aboutData(examples, names.data),
    settings,
    seed: options.head.seed,
    regularisation: learned.head.decay,
    epoch: fitted.epoch,
    ...(choice && { choice }),
    versions,
  };
  const report = {
    ...{
      way,
      training,
      from,
      settings,
      seconds,
      labels: data.labels,
      digest: data.digest,
      problems: data.problems,
    },
    examples: data.examples.length,
    counts: data.labels.map((_, at) => examples.targets.filter((target) => target === at).length),
    tap: site.tap.name,
    parameters: learned.parameters,
    decay: learned.head.decay,
    accuracy: { mean: judged.mean, deviation: judged.deviation, folds: judged.folds },
    how: judged.how,
    quality: judged.quality,
    ...{ losses: fitted.losses, qualities: fitted.qualities, epoch: fitted.epoch, perEpoch: fitted.perEpoch },
    cost,
    ...(choice && { choice }),
    ...(depths.length > 1 && { depths }),
  };
  const notes = [...site.notes, ...data.notes, ...(choice ? [describeChoice(choice)] : [])];
  const mistakes = judged.quality.mistakes.slice(0, MOST_MISTAKES).map((mistake) => {
    const { id = "", path = "" } = data.examples[judged.places[mistake.example] ?? -1] ?? {};
    const name = (at: number) => data.labels[at] ?? "";
    return {
      id,
      path,
      expected: name(mistake.expected),
      predicted: name(mistake.predicted),
      confidence: mistake.confidence,
    };
  });
  if (way !== "full") {
    const head = headModel(learned.model, await tapAt(examples, from), examples, judged, provenance);
    const stem = await sharedStem(site, head);
    const chosen = depths.length > 1 ? [`Taken by this rule: ${DEPTH_RULE}.`] : [];
    return { head, backbone: undefined, mistakes, report: { ...report, stem, notes: [...notes, ...chosen] } };
  }
  const keptHead = from === site.tap.name;
  const split = keptHead
    ? {
        backbone: await backboneModel(oldBackbone(site), site, provenance),
        head: learned.model,
        tap: site.tap,
      }
    : await splitTrained(learned.model, site, provenance);
  const before = oldBackbone(site);
  const losses: OtherHeadLoss[] = [];
  for (const other of others) {
    const both = {
      before,
      after: split.backbone,
      preprocessing: site.preprocessing,
      open: openModelOn(runtime),
    };
    losses.push(await lossOfOther(other, both));
  }
  const head = headModel(split.head, split.tap, examples, judged, provenance);
  return {
    head,
    backbone: split.backbone,
    mistakes,
    report: {
      ...report,
      ...(keptHead && { stem: await sharedStem(site, head) }),
      ...(losses.length > 0 && { others: losses }),
      notes: [...notes, keptHead ? KEPT_MEANS : FULL_MEANS],
    },
  };
}

const FULL_MEANS =
  "The result is another backbone: heads of the old one do not fit it and are refused. Two ways out: keep both backbones, each with its heads, or adapt the old heads to the new backbone with polyhead adapt.";
const KEPT_MEANS =
  "The backbone that is written computes what the old one does: the head and all old heads fit both.";
