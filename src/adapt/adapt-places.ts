/**
 * A head that reads maps place by place, tokens one by one or several taps at once, as detectors do, on features that it
 * was not made for. A place is an example of the fit: a 1x1 convolution is the same affine map everywhere. Judged is what
 * the head makes of whole images, through the adapter as it will be written. Taps with open sizes do not do.
 */
import { PolyheadError } from "../base/errors.js";
import { stratifiedFolds } from "../data/folds.js";
import { GraphIndex } from "../onnx/graph.js";
import { readMetadata, withMetadata } from "../onnx/metadata.js";
import { type Model, opsetVersion } from "../onnx/model.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Size } from "../vision/placement.js";
import type { AdaptedHead, TapOffer } from "./adapt-head.js";
import { adapterModel } from "./adapter-model.js";
import { type Agreement, agreementOf, answersOfEach, type HeadAnswers } from "./agreement.js";
import type { FeatureMap } from "./feature-map.js";
import type { FitOptions } from "./fit-options.js";
import type { HeadReading } from "./head-reading.js";
import {
  type AdaptReport,
  agreementOnly,
  bestOf,
  descriptionOf,
  enoughOf,
  reportOf,
  requireEnough,
  type TapReport,
  tooLow,
} from "./judgement.js";
import { climb, type FeaturePairs, RUNGS, type Rung, type RungName } from "./ladder.js";
import { canStandIn, placesIn, requireFinite, rowsAt, sizedSources } from "./places.js";
import { headThroughAdapter } from "./through-adapter.js";

/** A tap that a head might read through an adapter, with all of what it gives for each example, [1, ...]. */
export interface PlacesOffer extends Omit<TapOffer, "features"> {
  readonly read: () => Promise<readonly Tensor[]>;
}

/** What to adapt. */
export interface AdaptPlacesOptions extends FitOptions {
  readonly head: Model;
  readonly readings: readonly HeadReading[];
  /** What each of the head's own taps gives for each example, [1, ...]. */
  readonly targets: readonly (readonly Tensor[])[];
  readonly offers: readonly PlacesOffer[];
  /** Class of each example in the head's order, where it is known; it is used for judging only. */
  readonly truth?: readonly number[] | undefined;
  /** Examples from here on are kept aside to judge on; none by default. */
  readonly testFrom?: number | undefined;
  /** Of the picture that the head's backbone takes, for detectors. */
  readonly input: Size;
  readonly provenance?: Readonly<Record<string, unknown>>;
  readonly progress?: (done: number, total: number) => void;
}

/** What each input of the head is to read. */
type Choice = readonly { readonly reading: HeadReading; readonly offer: PlacesOffer }[];

/** A rung for every input of the head. */
interface RungSet {
  readonly name: RungName;
  readonly rungs: readonly Rung[];
}

/**
 * Adapts a head that reads places or several taps. A head of one tap is tried on every tap that is offered. Of several,
 * each is given the tap that explains it best, and the rungs are judged on all of them together.
 * @throws PolyheadError DATA_MALFORMED for features that are not finite, or too few examples; MODEL_UNSUPPORTED when no tap
 *   can stand in for one that the head reads
 * @throws PolyheadError QUALITY_TOO_LOW with the whole report when too little of the head survives
 */
export async function adaptPlaces(options: AdaptPlacesOptions): Promise<AdaptedHead> {
  const { head, targets, truth, folds = 5, seed = 0, floor = 0.9 } = options;
  if (options.learn !== undefined) throw notThroughMaps(options.readings);
  const examples = targets[0]?.length ?? 0;
  const fitted = options.testFrom ?? examples;
  requireEnough(fitted, floor);
  for (const target of targets) requireFinite(target);
  const classes = truth ?? Array<number>(examples).fill(0);
  const assigned = stratifiedFolds(classes.slice(0, fitted), folds, seed);
  const native = await nativeOutputs(options);
  const compared = (adapted: readonly Outputs[], start: number) => {
    const metadata = readMetadata(head);
    const end = start + adapted.length;
    const [own, other] = [native.slice(start, end), adapted].map(
      (outputs): HeadAnswers => answersOfEach(outputs, metadata, options.input),
    );
    if (!own || !other) throw new PolyheadError("INTERNAL", "Nothing was compared.", {});
    return agreementOf(own, other, truth?.slice(start, end));
  };
  const choosing = { examples: fitted, by: "agreement" as const, slack: options.slack };
  const climbed: { choice: Choice; sources: Sources; sets: RungSet[]; report: TapReport }[] = [];
  const choices = await choicesOf(options, assigned);
  for (const [at, choice] of choices.entries()) {
    const sources = await sourcesOf(choice);
    const sets = await climbAll(choice, sources, assigned, options);
    const judged = [];
    for (const set of sets) {
      const answers = await heldOut(choice, set, sources, assigned, options);
      judged.push(reportOf(together(set), compared(answers, 0)));
    }
    const report = {
      tap: choice.map(({ offer }) => offer.tap.name).join(" + "),
      shape: choice[0]?.offer.tap.shape ?? [],
      flops: Math.max(...choice.map(({ offer }) => offer.flops)),
      rungs: judged,
      enough: enoughOf(judged, choosing).name,
    };
    // The features of other taps are computed again should one of them be chosen after all.
    climbed.push({ choice, sources: choices.length > 1 ? [] : sources, sets, report });
    options.progress?.(at + 1, choices.length);
  }
  const best = bestOf(climbed, choosing);
  const set = best.sets.find(({ name }) => name === best.report.enough);
  const judged = best.report.rungs.find(({ name }) => name === best.report.enough);
  if (!set || !judged) throw new PolyheadError("INTERNAL", "No rung was climbed.", {});
  const maps = set.rungs.map(({ map }) => map);
  let quality: Agreement = agreementOnly(judged);
  if (fitted < examples) {
    const sources = best.sources.length > 0 ? best.sources : await sourcesOf(best.choice);
    const rest = [...Array(examples).keys()].slice(fitted);
    quality = compared(await throughMaps(best.choice, maps, sources, rest, options), fitted);
  }
  const report: AdaptReport = {
    examples: fitted,
    folds,
    seed,
    floor,
    taps: climbed.map((each) => each.report),
    chosen: { tap: best.report.tap, rung: set.name },
    chosenBy: choosing.by,
    quality,
    judgedOn: fitted < examples ? "test examples" : "cross-validation",
    folded: undefined,
  };
  if (!(quality.kept >= floor)) throw tooLow(report);
  const described = descriptionOf(report, options.provenance);
  return {
    adapter: withMetadata(adapterOf(best.choice, maps, head), described),
    folded: undefined,
    report,
  };
}

type Outputs = ReadonlyMap<string, Tensor>;
/** Of each input, of each example. */
type Sources = readonly (readonly Tensor[])[];

async function nativeOutputs({ head, targets, open }: AdaptPlacesOptions): Promise<Outputs[]> {
  const inputs = new GraphIndex(head.graph).inputs.map(({ name }) => name);
  const opened = await open(head, "all");
  try {
    const outputs: Outputs[] = [];
    for (const example of targets[0]?.keys() ?? []) {
      const given = inputs.flatMap((name, place) => {
        const value = targets[place]?.[example];
        return value ? [[name, value] as const] : [];
      });
      outputs.push(await opened.run(new Map(given)));
    }
    return outputs;
  } finally {
    await opened.close();
  }
}

/** What the head makes of examples through the maps. */
async function throughMaps(
  choice: Choice,
  maps: readonly FeatureMap[],
  sources: Sources,
  examples: readonly number[],
  { head, open }: AdaptPlacesOptions,
): Promise<Outputs[]> {
  const pair = headThroughAdapter(head, adapterOf(choice, maps, head));
  const inputs = new GraphIndex(pair.graph).inputs.map(({ name }) => name);
  const names = [...new Set(choice.map(({ offer }) => offer.tap.name))];
  const places = names.map((name) => choice.findIndex(({ offer }) => offer.tap.name === name));
  const opened = await open(pair, "all");
  try {
    const outputs: Outputs[] = [];
    for (const example of examples) {
      const given = inputs.flatMap((name, at) => {
        const value = sources[places[at] ?? 0]?.[example];
        return value ? [[name, value] as const] : [];
      });
      outputs.push(await opened.run(new Map(given)));
    }
    return outputs;
  } finally {
    await opened.close();
  }
}

/** What the head makes of each example through maps that have not seen it, in the order of the examples. */
async function heldOut(
  choice: Choice,
  { rungs }: RungSet,
  sources: Sources,
  folds: readonly number[],
  options: AdaptPlacesOptions,
): Promise<Outputs[]> {
  const made = new Map<number, Outputs>();
  for (const fold of new Set(folds)) {
    const examples = [...folds.keys()].filter((example) => folds[example] === fold);
    const maps = rungs.flatMap((rung) => rung.maps[fold] ?? []);
    const outputs = await throughMaps(choice, maps, sources, examples, options);
    examples.forEach((example, at) => {
      made.set(example, outputs[at] ?? new Map());
    });
  }
  return [...folds.keys()].map((example) => made.get(example) ?? new Map());
}

function adapterOf(choice: Choice, maps: readonly FeatureMap[], head: Model): Model {
  const parts = choice.flatMap(({ reading, offer: { tap, pooling } }, place) => {
    const map = maps[place];
    return map ? [{ source: tap, pooling, reading, map }] : [];
  });
  return adapterModel(parts, opsetVersion(head));
}

async function sourcesOf(choice: Choice): Promise<Sources> {
  const read: (readonly Tensor[])[] = [];
  for (const { offer } of choice) {
    const tensors = await offer.read();
    requireFinite(tensors);
    read.push(tensors);
  }
  return read;
}

/** The rungs that every input has. */
async function climbAll(
  choice: Choice,
  sources: Sources,
  folds: readonly number[],
  options: AdaptPlacesOptions,
  names: readonly RungName[] = options.rungs ?? RUNGS,
): Promise<RungSet[]> {
  const climbed: Rung[][] = [];
  for (const place of choice.keys())
    climbed.push(climb(await pairsOf(choice, place, sources, folds, options), names));
  return RUNGS.flatMap((name) => {
    const rungs = climbed.flatMap((own) => own.filter((rung) => rung.name === name));
    return rungs.length === choice.length ? [{ name, rungs }] : [];
  });
}

/** Places of both sides of one input, as rows. */
async function pairsOf(
  choice: Choice,
  place: number,
  sources: Sources,
  folds: readonly number[],
  { readings, targets, open, seed = 0 }: AdaptPlacesOptions,
): Promise<FeaturePairs> {
  const slot = choice[place];
  const own = slot ? readings.indexOf(slot.reading) : -1;
  const [target, source] = [targets[own], sources[place]];
  if (!slot || !target || !source)
    throw new PolyheadError("INTERNAL", "An input of the head has no tap.", {});
  const { reading, offer } = slot;
  const examples = folds.length;
  const places = placesIn(reading, examples, seed);
  const sized = await sizedSources(source.slice(0, examples), offer, reading, open);
  return {
    source: rowsAt(sized, places, reading.kind, offer.pooling),
    target: rowsAt(target.slice(0, examples), places, reading.kind, {
      axes: [...reading.tap.shape.keys()].filter((axis) => axis > 0 && axis !== reading.channelAxis),
      channels: reading.width,
    }),
    folds: places.flatMap((of, example) => of.map(() => folds[example] ?? 0)),
  };
}

/**
 * The taps to try: for a head of one input each that can stand in, for others the one that explains each input best.
 * @throws PolyheadError MODEL_UNSUPPORTED
 */
async function choicesOf(options: AdaptPlacesOptions, folds: readonly number[]): Promise<Choice[]> {
  const slots: Choice[] = [];
  const { readings, offers } = options;
  for (const reading of readings) {
    const usable = offers.filter((offer) => canStandIn(reading, offer));
    if (usable.length === 0) throw nothingStandsIn(reading, offers);
    if (readings.length === 1) return usable.map((offer) => [{ reading, offer }]);
    let best: { readonly slot: Choice; readonly explained: number } | undefined;
    for (const offer of usable) {
      const slot = [{ reading, offer }];
      const [set] = await climbAll(slot, await sourcesOf(slot), folds, options, ["least-squares"]);
      const explained = set?.rungs[0]?.explained ?? Number.NEGATIVE_INFINITY;
      if (!best || explained > best.explained) best = { slot, explained };
    }
    if (best) slots.push(best.slot);
  }
  return [slots.flat()];
}

/** What is told of the rungs of several inputs. */
function together({ name, rungs }: RungSet): Rung {
  const [first, ...others] = rungs;
  if (!first) throw new PolyheadError("INTERNAL", "No rung was climbed.", {});
  if (others.length === 0) return first;
  const sum = (of: (rung: Rung) => number) => rungs.reduce((total, rung) => total + of(rung), 0);
  return {
    name,
    map: first.map,
    maps: first.maps,
    heldOut: first.heldOut,
    parameters: sum(({ parameters }) => parameters),
    explained: sum(({ explained }) => explained) / rungs.length,
    milliseconds: sum(({ milliseconds }) => milliseconds),
  };
}

function notThroughMaps(readings: readonly HeadReading[]): PolyheadError {
  const read = readings.map(({ tap, kind }) => `${JSON.stringify(tap.name)} as ${kind}`).join(", ");
  return new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The head reads ${read}; adapters are trained through heads that read one vector, or the mean of one map. Leave out --learn, or train a head on the new backbone with polyhead tune.`,
    { readings: readings.map(({ input, kind }) => ({ input, kind })) },
  );
}

function nothingStandsIn({ tap, kind }: HeadReading, offers: readonly PlacesOffer[]): PolyheadError {
  const shown = offers.map((offer) => `${JSON.stringify(offer.tap.name)} [${offer.tap.shape.join(", ")}]`);
  return new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The head reads ${JSON.stringify(tap.name)} [${tap.shape.join(", ")}] as ${kind}; no tap of the new backbone can be mapped to that: ${shown.join(", ") || "none was offered"}. Maps take maps of known height and width, tokens take as many tokens. Train a head on the new backbone instead.`,
    { expected: tap, offers: offers.map((offer) => offer.tap) },
  );
}
