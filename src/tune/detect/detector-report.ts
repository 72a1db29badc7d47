/** The page on a training of a detector: figures, curves, average precision by class and mistakes as pictures. */
import { mapInFlight } from "../../base/in-flight.js";
import { orProblem, readImageFile } from "../../data/image-file.js";
import { pictureUri } from "../../report/picture.js";
import { type Picture, trainingReport } from "../../report/training-report.js";
import { annotate } from "../../vision/draw.js";
import { decodeImage } from "../../vision/image.js";
import { trainingCurves } from "../curves.js";
import type { DetectionMistake } from "./mistakes.js";
import type { TunedDetector } from "./tune-detector.js";

const NOTHING = "nothing";

/** The page as HTML. @param names of the model and the data */
export async function detectorReportPage(
  { report, mistakes }: Pick<TunedDetector, "report" | "mistakes">,
  names: { readonly model: string; readonly data: string },
  versions: Readonly<Record<string, string>>,
): Promise<string> {
  const { quality, deviation, images, objects, taps, stride, epoch } = report;
  const pictures = await mapInFlight(mistakes, 4, (mistake) => orProblem(() => pictureOf(mistake)));
  return trainingReport({
    title: `${names.model}: detect`,
    subtitle: `reads ${taps.join(", ")}; one cell is ${stride} pixels`,
    figures: [
      {
        label: "average precision",
        value: shown(quality.ap),
        note: `± ${shown(deviation.ap)}; COCO's, at overlaps of 0.50 to 0.95`,
      },
      { label: "at 0.50", value: shown(quality.ap50), note: `± ${shown(deviation.ap50)}` },
      { label: "at 0.75", value: shown(quality.ap75) },
      { label: "objects found", value: shown(quality.ar100), note: "mean over overlaps and classes" },
      {
        label: "judged on",
        value: String(objects.validation),
        note: `objects on ${images.validation} images`,
      },
    ],
    curves: trainingCurves(report.losses, {
      title: "Average precision on images held back",
      label: "AP at 0.50",
      values: report.qualities,
      perEpoch: report.perEpoch,
      includes: [0],
    }),
    labels: report.labels,
    detection: quality,
    pictures: pictures.filter((each) => typeof each !== "string"),
    settings: { ...report.settings, epoch, versions },
    data: {
      name: names.data,
      digest: report.digest,
      training: images.training,
      validation: images.validation,
      counts: report.counts,
      problems: report.problems,
    },
    notes: report.notes,
  });
}

/** The image with the one box that is wrong on it. */
async function pictureOf({ path, box, ...mistake }: DetectionMistake): Promise<Picture> {
  const { id, expected = NOTHING, predicted = NOTHING, confidence } = mistake;
  const image = await decodeImage((await readImageFile(path)).bytes);
  const label = mistake.predicted ?? `not found: ${expected}`;
  const score = confidence === undefined ? {} : { score: confidence };
  const drawn = await annotate(image, [{ label, classIndex: 0, box, ...score }]);
  return {
    ...{ id, expected, predicted },
    ...(confidence !== undefined && { confidence }),
    source: await pictureUri(await decodeImage(drawn)),
  };
}

function shown(value: number | undefined): string {
  return value === undefined ? "-" : value.toFixed(3);
}
