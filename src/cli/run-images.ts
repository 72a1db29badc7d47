/**
 * Images through an engine: preprocessed as the models' metadata says, answered as boxes, classes or plain
 * outputs. One image at a time; routes that want the same preprocessing share one pass.
 */
import { PolyheadError } from "../base/errors.js";
import { ACTIVATIONS } from "../onnx/metadata.js";
import type { Tensor } from "../tensor/tensor.js";
import { classesOf } from "../vision/classes.js";
import type { Classification } from "../vision/classification.js";
import { parseDecoding } from "../vision/decoding.js";
import { type Detection, decodeDetections } from "../vision/detections.js";
import { type Image, imageTensor } from "../vision/image.js";
import type { Placement } from "../vision/placement.js";
import { type Preprocessing, parsePreprocessing } from "../vision/preprocessing.js";
import type { Route, Routes } from "./routes.js";

/** What a route says about an image. */
export type ImageAnswer =
  | { readonly detections: readonly Detection[] }
  | { readonly classes: readonly Classification[] }
  | { readonly outputs: readonly { name: string; dtype: string; shape: readonly number[] }[] };

/** Routes with equal preprocessing. */
export interface ImageGroup {
  readonly preprocessing: Preprocessing;
  readonly routes: readonly Route[];
}

/**
 * Routes by their preprocessing: their own, else that of a backbone.
 * @throws PolyheadError INVALID_ARGUMENT when a route has none, MODEL_MALFORMED when it is not what it should be
 */
export function groupByPreprocessing({
  routes,
  backbones,
}: Pick<Routes, "routes" | "backbones">): ImageGroup[] {
  const shared = backbones.find(({ preprocessing }) => preprocessing)?.preprocessing;
  const groups = new Map<string, { preprocessing: Preprocessing; routes: Route[] }>();
  for (const route of routes) {
    const record = route.metadata.preprocessing ?? shared;
    if (!record) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `Nothing says how an image becomes the input of ${JSON.stringify(route.name)}: its metadata has no preprocessing. Give it some with polyhead import --preprocess.`,
        { route: route.name },
      );
    }
    const preprocessing = parsePreprocessing(record);
    const key = JSON.stringify(preprocessing);
    const group = groups.get(key) ?? { preprocessing, routes: [] };
    group.routes.push(route);
    groups.set(key, group);
  }
  return [...groups.values()];
}

/**
 * What every route says about an image.
 * @param remark hears what had to be assumed
 * @throws PolyheadError INPUT_MISMATCH, RUN_FAILED, MODEL_MALFORMED when outputs are not what the metadata says
 */
export async function runImage(
  { engine }: Pick<Routes, "engine">,
  groups: readonly ImageGroup[],
  image: Image,
  remark: (text: string) => void,
): Promise<Map<string, ImageAnswer>> {
  const answers = new Map<string, ImageAnswer>();
  for (const { preprocessing, routes } of groups) {
    const { tensor, placement } = await imageTensor(image, preprocessing);
    const names = routes.map(({ name }) => name);
    const answer = await engine.run(names, tensor);
    for (const route of routes) {
      const outputs = new Map(Object.entries(answer.routes[route.name]?.outputs ?? {}));
      answers.set(route.name, interpret(outputs, route, placement, remark));
    }
  }
  return answers;
}

function interpret(
  outputs: ReadonlyMap<string, Tensor>,
  { name: route, metadata }: Route,
  placement: Placement,
  remark: (text: string) => void,
): ImageAnswer {
  const { decoding, labels = [], task } = metadata;
  if (decoding) return { detections: decodeDetections(outputs, parseDecoding(decoding), labels, placement) };
  const answer = labels.length > 0 || task === "classification" ? classesOf(outputs, metadata) : undefined;
  if (!answer) return { outputs: [...outputs].map(([name, { dtype, shape }]) => ({ name, dtype, shape })) };
  const { classes, assumed } = answer;
  if (assumed !== undefined) {
    const taken = assumed === "none" ? "they are taken as they are" : `${assumed} is assumed`;
    remark(
      `${route} does not say what turns its numbers into scores; ${taken}. To say it: polyhead import ${route}.onnx -o NEW.onnx --activation ${ACTIVATIONS.join("|")}`,
    );
  }
  return { classes };
}
