/**
 * Images through an engine: preprocessed as the models' metadata says, answered as boxes, classes or plain
 * outputs. One image at a time; routes that want the same preprocessing share one pass.
 */
import { PolyheadError } from "../base/errors.js";
import type { Metadata } from "../onnx/metadata.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";
import { type Classification, decodeClassifications } from "../vision/classification.js";
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
 * @throws PolyheadError INPUT_MISMATCH, RUN_FAILED, MODEL_MALFORMED when outputs are not what the metadata says
 */
export async function runImage(
  { engine }: Pick<Routes, "engine">,
  groups: readonly ImageGroup[],
  image: Image,
): Promise<Map<string, ImageAnswer>> {
  const answers = new Map<string, ImageAnswer>();
  for (const { preprocessing, routes } of groups) {
    const { tensor, placement } = await imageTensor(image, preprocessing);
    const names = routes.map(({ name }) => name);
    const answer = await engine.run(names, tensor);
    for (const { name, metadata } of routes) {
      const outputs = new Map(Object.entries(answer.routes[name]?.outputs ?? {}));
      answers.set(name, interpret(outputs, metadata, placement));
    }
  }
  return answers;
}

function interpret(
  outputs: ReadonlyMap<string, Tensor>,
  { decoding, labels = [], task }: Metadata,
  placement: Placement,
): ImageAnswer {
  if (decoding) return { detections: decodeDetections(outputs, parseDecoding(decoding), labels, placement) };
  const scores = labels.length > 0 || task === "classification" ? classOutput(outputs, labels) : undefined;
  if (!scores) return { outputs: [...outputs].map(([name, { dtype, shape }]) => ({ name, dtype, shape })) };
  const activation = areProbabilities(scores) ? "none" : "softmax";
  return { classes: decodeClassifications(scores, labels, { activation })[0] ?? [] };
}

/** The output with a number for each class; probabilities rather than logits. */
function classOutput(outputs: ReadonlyMap<string, Tensor>, labels: readonly string[]): Tensor | undefined {
  const fitting = [...outputs.values()].filter(
    ({ dtype, shape }) =>
      dtype !== "string" && shape.length === 2 && (labels.length === 0 || shape[1] === labels.length),
  );
  return fitting.find(areProbabilities) ?? fitting[0];
}

/** Whether numbers lie from 0 to 1 and add up to 1, as far as float32 and its sums go. */
function areProbabilities(scores: Tensor): boolean {
  const values = toNumbers(scores);
  const sum = values.reduce((total, value) => total + value, 0);
  return values.every((value) => value >= 0 && value <= 1) && Math.abs(sum - 1) < 1e-3;
}
