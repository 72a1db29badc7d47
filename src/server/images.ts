/** Encoded images as requests: what a route's preprocessing makes of them, and what its outputs say about them. */
import { PolyheadError } from "../base/errors.js";
import type { Metadata } from "../onnx/metadata.js";
import type { Tensor } from "../tensor/tensor.js";
import { classesOf } from "../vision/classes.js";
import { parseDecoding } from "../vision/decoding.js";
import { decodeDetections } from "../vision/detections.js";
import type { Placement } from "../vision/placement.js";
import { type Preprocessing, parsePreprocessing } from "../vision/preprocessing.js";
import type { ImageRouteResult } from "./service.js";

/**
 * How an image becomes the input of routes that are asked together.
 * @param sources metadata of the routes' models, each followed by those of the backbones that it reads
 * @throws PolyheadError INVALID_ARGUMENT when a route does not say it, or two say different things
 */
export function commonPreprocessing(sources: ReadonlyMap<string, readonly Metadata[]>): Preprocessing {
  let common: { readonly route: string; readonly text: string; readonly record: Preprocessing } | undefined;
  for (const [route, metadata] of sources) {
    const given = metadata.find(({ preprocessing }) => preprocessing !== undefined)?.preprocessing;
    if (given === undefined) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `The route ${JSON.stringify(route)} does not say how an image becomes its input; send it tensors, or give its backbone preprocessing with polyhead import --preprocess.`,
        { route },
      );
    }
    const record = parsePreprocessing(given);
    const text = JSON.stringify(record);
    if (common && common.text !== text) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `The routes ${JSON.stringify(common.route)} and ${JSON.stringify(route)} prepare images differently; ask them one by one.`,
        { routes: [common.route, route] },
      );
    }
    common ??= { route, text, record };
  }
  if (common) return common.record;
  throw new PolyheadError("INVALID_ARGUMENT", "No route was named.", {});
}

/** What a route's outputs say about an image, by the metadata of its model. */
export function interpret(
  outputs: Readonly<Record<string, Tensor>>,
  metadata: Metadata,
  placement: Placement,
  { threshold, top }: { readonly threshold?: number | undefined; readonly top?: number | undefined },
): Omit<ImageRouteResult, "revision"> {
  const { decoding, labels = [], task } = metadata;
  const byName = new Map(Object.entries(outputs));
  const counts = ({ score }: { readonly score: number }) => threshold === undefined || score >= threshold;
  if (decoding) {
    const detections = decodeDetections(byName, parseDecoding(decoding), labels, placement).filter(counts);
    return { detections: top === undefined ? detections : detections.slice(0, top) };
  }
  const found = labels.length > 0 || task === "classification" ? classesOf(byName, metadata, top) : undefined;
  return found ? { classes: found.classes.filter(counts) } : { outputs };
}
