/** A detector's quality on images: what it finds, decoded as it is served, against the boxes, in pixels of the images. */
import type { Example } from "../../data/data-set.js";
import { readImageFile } from "../../data/image-file.js";
import type { Tensor } from "../../tensor/tensor.js";
import { type DetectionQuality, detectionQuality } from "../../vision/average-precision.js";
import type { Decoding } from "../../vision/decoding.js";
import { decodeDetections, type ObjectBox } from "../../vision/detections.js";
import { decodeImage, imageTensor } from "../../vision/image.js";
import type { Preprocessing } from "../../vision/preprocessing.js";
import type { JudgedExample } from "./mistakes.js";

/** What to judge by. */
export interface JudgeOptions {
  readonly examples: readonly Example<readonly ObjectBox[]>[];
  readonly labels: readonly string[];
  readonly preprocessing: Preprocessing;
  readonly decoding: Decoding;
  /** All outputs of the detector for one image. */
  readonly answers: (image: Tensor) => Promise<ReadonlyMap<string, Tensor>>;
}

/** Average precision looks at weak detections too; what the decoding leaves out below its threshold is for users. */
const WEAKEST = 0.01;

/** COCO's numbers over all examples, and what was found on each. */
export async function judgeDetector(
  options: JudgeOptions,
): Promise<{ readonly quality: DetectionQuality; readonly judged: readonly JudgedExample[] }> {
  const { examples, labels, preprocessing, answers } = options;
  const decoding = { ...options.decoding, scoreThreshold: WEAKEST };
  const judged: JudgedExample[] = [];
  for (const { id, path, target } of examples) {
    const image = await decodeImage((await readImageFile(path)).bytes);
    const { tensor, placement } = await imageTensor(image, preprocessing);
    const detections = decodeDetections(await answers(tensor), decoding, labels, placement);
    judged.push({ id, path, objects: target, detections });
  }
  return { quality: detectionQuality(judged, labels.length), judged };
}
