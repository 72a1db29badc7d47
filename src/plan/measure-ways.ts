/**
 * The ways to a head measured side by side on images: as it is where the shapes fit, through an adapter, and trained: a new
 * head on the same backbone, a branch of it, all of it. A way that cannot be measured is listed with the reason, and one for
 * which there is no time with how long it would take.
 */
import { basename } from "node:path";
import { adaptImages, judgeUnadapted } from "../adapt/adapt-images.js";
import { type Agreement, shareOf } from "../adapt/agreement.js";
import { picturesIn } from "../adapt/examples.js";
import { asOneHead } from "../adapt/through-adapter.js";
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import { readMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { modelBytes } from "../onnx/write.js";
import { teachImages } from "../teach/teach-images.js";
import { millisecondsOf } from "../tune/depths.js";
import type { MadeWay, Skipped } from "./measured.js";
import { requestCost } from "./request-cost.js";
import { branched, trainedFully } from "./trained-ways.js";
import {
  accuracyOn,
  type Known,
  type MeasureOptions,
  noClasses,
  option,
  tapNames,
  UNTOUCHED,
  type WayToTry,
} from "./way-to-try.js";

/** All that was measured, and all that was not. */
export interface Measurements {
  readonly ways: readonly MadeWay[];
  readonly skipped: readonly Skipped[];
}

/** Measures each way in turn. */
export async function measureWays(options: MeasureOptions): Promise<Measurements> {
  const end = performance.now() + 1000 * options.budgetSeconds;
  const [forward = 0] = await millisecondsOf([options.to], options.open);
  const { paths } = await picturesIn(options.data);
  const heads = options.others.map(({ head }) => head);
  let known: Known = { forward, images: paths.length, tap: undefined, end };
  const ways: MadeWay[] = [];
  const skipped: Skipped[] = [];
  const tried = [asItIs, adapted, adaptedByClasses, taughtAnew, branched, trainedFully].map((each) =>
    each(options),
  );
  for (const { way, name, how, estimate, isLong = false, make } of tried) {
    try {
      const left = (end - performance.now()) / 1000;
      const expected = estimate(known);
      if (left <= 0 || (isLong && expected > left)) {
        const why = `it takes about ${Math.ceil(expected)} s, and ${Math.max(0, Math.floor(left))} s of the time budget were left; raise --seconds`;
        skipped.push({ way, how, why, estimatedSeconds: expected });
        continue;
      }
      options.onWay?.(how);
      const start = performance.now();
      const { candidate, tap, ...made } = await make(known);
      known = { ...known, tap: tap ?? known.tap };
      const seconds = (performance.now() - start) / 1000;
      const milliseconds = await requestCost(options.openEngine, options.to, candidate, heads);
      ways.push({
        way,
        name,
        how,
        others: UNTOUCHED,
        seconds,
        milliseconds,
        bytes: bytesOf(made.files),
        ...made,
      });
    } catch (thrown) {
      const { message, details } = asPolyheadError(thrown, "INTERNAL", "it failed");
      const { estimatedSeconds } = details as { estimatedSeconds?: number };
      skipped.push({ way, how, why: message, ...(estimatedSeconds !== undefined && { estimatedSeconds }) });
    }
  }
  return { ways, skipped };
}

/** Features of all images from both backbones, and a little for the fitting. */
const featuresOfBoth = ({ images, forward }: Known) => (2 * images * forward) / 1000 + 1;

function asItIs(options: MeasureOptions): WayToTry {
  const { finding, files, head } = options;
  return {
    way: "swap",
    name: "as it is",
    how: "the head as it is, forced",
    estimate: featuresOfBoth,
    make: async () => {
      const [first, ...more] = Object.entries(finding.sameShape ?? {});
      if (!first || more.length > 0)
        throw new PolyheadError(
          "HEAD_MISMATCH",
          "no tap of the backbone has the shape that the head reads",
          {},
        );
      const [input, tap] = first;
      const judged = await judgeUnadapted({ ...options, taps: [tap] });
      return {
        ...qualityOf(judged),
        judgedOn: options.test === undefined ? "all images" : "the test images",
        data: "nothing",
        files: new Map([[files.head, head]]),
        candidate: { head, bind: { [input]: tap } },
        command: `polyhead run ${files.backbone} ${files.head} --bind ${input}=${tap}`,
      };
    },
  };
}

function adapted(options: MeasureOptions): WayToTry {
  return {
    way: "adapt",
    name: "adapter",
    how: "the head through an adapter",
    estimate: (known) => featuresOfBoth(known) + FITTING * tapNames(options).length,
    make: ({ images }) => throughAdapter(options, `${images} images, no classes`),
  };
}

function adaptedByClasses(options: MeasureOptions): WayToTry {
  return {
    way: "adapt",
    name: "learned adapter",
    how: "the head through an adapter that learned from classes",
    estimate: (known) => featuresOfBoth(known) + FITTING * (1 + tapNames(options).length),
    make: async ({ images }) => {
      const { truth } = await picturesIn(options.data, readMetadata(options.head).labels);
      if (!truth) throw noClasses();
      return throughAdapter({ ...options, learn: "adapter" }, `${images} images with classes`);
    },
  };
}

async function throughAdapter(options: MeasureOptions, made: string) {
  const { head, files, learn } = options;
  const adaptation = await adaptImages({ ...options, floor: 0, names: { head: basename(files.head) } });
  const { adapter, folded, report } = adaptation;
  const { chosen, quality } = report;
  const given = [
    option("from", files.from),
    option("from-preprocess", options.fromPreprocess),
    option("to-preprocess", options.toPreprocess),
  ].join("");
  const name = `${basename(files.head, ".onnx")}-${learn === undefined ? "adapted" : "learned"}`;
  const out = `${name}.onnx`;
  const settings = [
    `--tap ${chosen.tap.split(" + ").join(",")}`,
    ...(learn === undefined ? [] : [`--learn ${learn}`]),
    // What the adapter would be refused for otherwise.
    ...(quality.kept < FLOOR ? [`--floor ${Math.max(0, Math.floor(100 * quality.kept) / 100)}`] : []),
  ].join(" ");
  return {
    ...qualityOf(quality),
    judgedOn: options.test === undefined ? "cross-validation" : "the test images",
    data: made,
    files: new Map([[out, asOneHead(head, adaptation)]]),
    candidate: folded ? { head: folded } : { head, adapter },
    command: `polyhead adapt --head ${files.head} --to ${files.backbone}${given} --data ${files.data} ${settings} -o ${name}-adapter.onnx --folded ${out}`,
  };
}

/** What `polyhead adapt` asks for by default. */
const FLOOR = 0.9;

/** Seconds that the maps of a tap take, about. */
const FITTING = 5;

function taughtAnew(options: MeasureOptions): WayToTry {
  const { head, files, to, data, test } = options;
  return {
    way: "tune",
    name: "new head",
    how: "a new head on the frozen backbone",
    estimate: ({ images, forward }) => (tapNames(options).length * images * forward) / 1000 + 1,
    make: async ({ images }) => {
      const { labels = [] } = readMetadata(head);
      const { truth } = await picturesIn(data, labels);
      if (!truth) throw noClasses();
      const taught = [];
      for (const tap of tapNames(options)) {
        taught.push(
          await teachImages({
            ...{ backbone: to, tap, data, open: options.open, preprocess: options.toPreprocess },
            ...{ cache: options.cache, backboneName: basename(files.backbone) },
            ...(options.seed !== undefined && { seed: options.seed }),
            ...(options.inFlight !== undefined && { inFlight: options.inFlight }),
          }),
        );
      }
      const [best] = taught.toSorted((a, b) => b.report.accuracy.mean - a.report.accuracy.mean);
      if (!best) throw new PolyheadError("INVALID_ARGUMENT", "the backbone has no tap", {});
      const { model, report } = best;
      const out = `${basename(files.head, ".onnx")}-new.onnx`;
      return {
        quality:
          test === undefined
            ? shareOf(report.accuracy.mean, report.examples)
            : await accuracyOn(model, to, test, options),
        measure: "accuracy",
        judgedOn: test === undefined ? "cross-validation" : "the test images",
        data: `${images} images with classes`,
        files: new Map([[out, model]]),
        candidate: { head: model },
        tap: report.tap,
        command: `polyhead teach --backbone ${files.backbone} --tap ${report.tap} --data ${files.data}${option("preprocess", options.toPreprocess)} -o ${out}`,
      };
    },
  };
}

function qualityOf({
  accuracy: known,
  interval,
  agreement,
}: Agreement): Pick<MadeWay, "quality" | "measure"> {
  if (known) return { quality: known, measure: "accuracy" };
  return { quality: interval ?? { value: agreement, low: agreement, high: agreement }, measure: "agreement" };
}

function bytesOf(files: ReadonlyMap<string, Model>): number {
  return [...files.values()].reduce((sum, model) => sum + modelBytes(model).length, 0);
}
