/** The page on a training of classes: figures, curves, confusions and the surest mistakes as pictures. */
import { mapInFlight } from "../base/in-flight.js";
import { orProblem, readImageFile } from "../data/image-file.js";
import { pictureUri } from "../report/picture.js";
import type { Plot } from "../report/plot.js";
import { type Picture, type TrainingReport, trainingReport } from "../report/training-report.js";
import { decodeImage } from "../vision/image.js";
import { trainingCurves } from "./curves.js";
import { depthPlots } from "./depths.js";
import type { TunedImages } from "./tune-images.js";

/** The page as HTML. @param names of the model and the data */
export async function tuneReportPage(
  { report, mistakes }: Pick<TunedImages, "report" | "mistakes">,
  names: { readonly model: string; readonly data: string },
  versions: Readonly<Record<string, string>>,
): Promise<string> {
  const { accuracy, quality, cost, seconds, stem, depths, others = [] } = report;
  const pictures = await mapInFlight(mistakes, 4, async ({ path, ...mistake }) =>
    orProblem(async (): Promise<Picture> => {
      const { bytes } = await readImageFile(path);
      return { ...mistake, source: await pictureUri(await decodeImage(bytes)) };
    }),
  );
  const spread =
    accuracy.deviation === undefined
      ? `${percent(quality.interval.low)} to ${percent(quality.interval.high)} with 95 % confidence`
      : `± ${percent(accuracy.deviation)} between folds`;
  const page: TrainingReport = {
    title: `${names.model}: ${report.way}`,
    subtitle: `${report.how}; trained from ${report.from} to ${report.tap}`,
    figures: [
      { label: "accuracy", value: percent(accuracy.mean), note: spread },
      { label: "largest class alone", value: percent(quality.baseline) },
      { label: "balanced accuracy", value: percent(quality.balancedAccuracy) },
      {
        label: "log loss",
        value: quality.logLoss.toFixed(3),
        note: `a guess: ${Math.log(report.labels.length).toFixed(3)}`,
      },
      {
        label: "cost of a request",
        value: `${cost.milliseconds.toFixed(2)} ms`,
        note: stem ? `after the stem; ${percent(stem.share)} of the work is shared` : "the whole network",
      },
      { label: "memory", value: `${(cost.bytes / 2 ** 20).toFixed(2)} MiB`, note: "weights of its own" },
      { label: "trained and judged in", value: `${seconds.toFixed(0)} s` },
    ],
    curves: [...curvesOf(report), ...(depths ? depthPlots(depths) : [])],
    labels: report.labels,
    classification: quality,
    pictures: pictures.filter((each) => typeof each !== "string"),
    settings: { ...report.settings, regularisation: report.decay, epoch: report.epoch, versions },
    data: {
      name: names.data,
      digest: report.digest,
      training: report.training,
      validation: quality.examples,
      counts: report.counts,
      problems: report.problems,
    },
    notes: [
      ...report.notes,
      ...others.map(
        ({ name, kept, nativeAccuracy, accuracy: now }) =>
          `${name} on the new backbone keeps ${percent(kept)} of its quality${nativeAccuracy && now ? `: ${percent(now.value)} right, ${percent(nativeAccuracy.value)} before` : ""}.`,
      ),
    ],
  };
  return trainingReport(page);
}

function curvesOf({ losses, qualities, perEpoch, choice }: TunedImages["report"]): Plot[] {
  return trainingCurves(losses, {
    title: "Accuracy on examples held back",
    label: "accuracy, %",
    values: qualities.map((value) => 100 * value),
    perEpoch,
    // The head alone is where the curve begins.
    start: choice?.by === "held-back" ? 100 * choice.head : undefined,
  });
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
