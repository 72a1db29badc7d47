/**
 * The ways to a head measured side by side on images: as it is where the shapes fit, through an adapter, and a new head
 * taught on the same backbone. All are judged alike; a way that cannot be measured is listed with the reason.
 */
import { basename } from "node:path";
import { adaptImages, judgeUnadapted } from "../adapt/adapt-images.js";
import { type Agreement, answersOf, type Share, shareOf } from "../adapt/agreement.js";
import { examplesOf, type Pictures, picturesIn } from "../adapt/examples.js";
import { runOn } from "../adapt/fold.js";
import { headFromVector, readingsOf } from "../adapt/head-reading.js";
import type { AdaptImagesOptions } from "../adapt/sources.js";
import { asOneHead } from "../adapt/through-adapter.js";
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import type { Engine } from "../engine/index.js";
import { GraphIndex } from "../onnx/graph.js";
import { readMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { modelBytes } from "../onnx/write.js";
import { computeFeatures } from "../teach/features.js";
import { tapSource } from "../teach/tap-source.js";
import { teachImages } from "../teach/teach-images.js";
import { accuracy } from "../vision/metrics.js";
import { preprocessingFor } from "../vision/model-input.js";
import type { MadeWay, Skipped } from "./measured.js";
import type { Finding } from "./reasoning.js";
import { requestCost } from "./request-cost.js";

/** What to measure with. */
export interface MeasureOptions extends Omit<AdaptImagesOptions, "floor" | "names" | "rungs"> {
  readonly finding: Finding;
  /** Heads that live on the backbone already. */
  readonly others: readonly Model[];
  readonly openEngine: () => Promise<Engine>;
  /** Seconds after which no further way is begun. */
  readonly budgetSeconds: number;
  /** Names of the files, for the commands. */
  readonly files: {
    readonly head: string;
    readonly backbone: string;
    readonly from?: string | undefined;
    readonly data: string;
  };
  readonly onWay?: (how: string) => void;
}

/** All that was measured, and all that was not. */
export interface Measurements {
  readonly ways: readonly MadeWay[];
  readonly skipped: readonly Skipped[];
}

/** Nothing happens to heads whose graphs stay as they are. */
const UNTOUCHED = "none: backbone and heads stay as they are";

/** Measures each way in turn. */
export async function measureWays(options: MeasureOptions): Promise<Measurements> {
  const end = performance.now() + 1000 * options.budgetSeconds;
  const ways: MadeWay[] = [];
  const skipped: Skipped[] = [];
  for (const { way, how, make } of [asItIs(options), adapted(options), taughtAnew(options)]) {
    try {
      if (performance.now() > end)
        throw new PolyheadError("LIMIT_EXCEEDED", "the time budget was used up", {});
      options.onWay?.(how);
      const start = performance.now();
      const { candidate, ...made } = await make();
      const seconds = (performance.now() - start) / 1000;
      const milliseconds = await requestCost(options.openEngine, options.to, candidate, options.others);
      ways.push({ way, how, others: UNTOUCHED, seconds, milliseconds, bytes: bytesOf(made.files), ...made });
    } catch (thrown) {
      skipped.push({ way, how, why: asPolyheadError(thrown, "INTERNAL", "it failed").message });
    }
  }
  return { ways, skipped };
}

interface WayToTry {
  readonly way: MadeWay["way"];
  readonly how: string;
  readonly make: () => Promise<
    Pick<MadeWay, "quality" | "measure" | "command" | "files"> & {
      candidate: Parameters<typeof requestCost>[2];
    }
  >;
}

function asItIs(options: MeasureOptions): WayToTry {
  const { finding, files, head } = options;
  return {
    way: "swap",
    how: "the head as it is, forced",
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
        files: new Map([[files.head, head]]),
        candidate: { head, bind: { [input]: tap } },
        command: `polyhead run ${files.backbone} ${files.head}`,
      };
    },
  };
}

function adapted(options: MeasureOptions): WayToTry {
  const { head, files } = options;
  return {
    way: "adapt",
    how: "the head through an adapter",
    make: async () => {
      const made = await adaptImages({ ...options, floor: 0, names: { head: basename(files.head) } });
      const { adapter, folded, report } = made;
      const from = files.from === undefined ? "" : ` --from ${files.from}`;
      const name = basename(files.head, ".onnx");
      const out = `${name}-adapted.onnx`;
      return {
        ...qualityOf(report.quality),
        files: new Map([[out, asOneHead(head, made)]]),
        candidate: folded ? { head: folded } : { head, adapter },
        command: `polyhead adapt --head ${files.head}${from} --to ${files.backbone} --data ${files.data} --tap ${report.chosen.tap.split(" + ").join(",")} -o ${name}-adapter.onnx --folded ${out}`,
      };
    },
  };
}

function taughtAnew(options: MeasureOptions): WayToTry {
  const { head, files, to, data, test } = options;
  return {
    way: "tune",
    how: "a new head on the frozen backbone",
    make: async () => {
      const { labels = [] } = readMetadata(head);
      const { truth } = await picturesIn(data, labels);
      if (!truth)
        throw new PolyheadError(
          "INVALID_ARGUMENT",
          "the images stand in no folders named like the head's labels",
          {},
        );
      const names =
        options.taps ??
        readMetadata(to).taps?.map(({ name }) => name) ??
        new GraphIndex(to.graph).outputNames;
      const taught = [];
      for (const tap of names) {
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
      const quality =
        test === undefined
          ? shareOf(report.accuracy.mean, report.examples)
          : await accuracyOn(model, await picturesIn(test, report.labels), options);
      const out = `${basename(files.head, ".onnx")}-new.onnx`;
      return {
        quality,
        measure: "accuracy",
        files: new Map([[out, model]]),
        candidate: { head: model },
        command: `polyhead teach --backbone ${files.backbone} --tap ${report.tap} --data ${files.data} -o ${out}`,
      };
    },
  };
}

/** Accuracy of a head on images of known classes. */
async function accuracyOn(head: Model, pictures: Pictures, options: MeasureOptions): Promise<Share> {
  const [reading] = readingsOf(head);
  if (!reading || !pictures.truth)
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "the test images stand in no folders named like the labels",
      {},
    );
  const source = await tapSource(options.to, reading.tap.name);
  const preprocessing = preprocessingFor(options.to, options.toPreprocess);
  const { paths } = pictures;
  const { open, cache } = options;
  const computed = await computeFeatures({ source, preprocessing, paths, open, cache });
  const { features, truth = [] } = examplesOf(pictures, [computed]);
  const [vectors] = features;
  if (!vectors) throw new PolyheadError("INTERNAL", "No features were computed.", {});
  const { classes = [] } = answersOf(
    await runOn(headFromVector(head, reading), vectors, open),
    readMetadata(head),
  );
  return shareOf(accuracy(truth, classes), truth.length);
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
