/**
 * The rungs above those in closed form, climbed on one tap from the best of them: without classes a hidden layer beside
 * the map, with classes an adapter through the frozen head, and then both together. What they are judged by is the same.
 */
import { PolyheadError } from "../base/errors.js";
import type { Metadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import type { OpenModel } from "../onnx/runner.js";
import type { Runtime } from "../runtime/runtime.js";
import { type Matrix, selectRows } from "../teach/linear-algebra.js";
import { type Tensor, tensor, toNumbers } from "../tensor/tensor.js";
import { answersOf, type HeadAnswers } from "./agreement.js";
import { applyMap, type FeatureMap } from "./feature-map.js";
import type { FitOptions } from "./fit-options.js";
import { runOn } from "./fold.js";
import {
  explainedVariance,
  type FeaturePairs,
  heldOutBy,
  RUNGS,
  type Rung,
  type RungName,
} from "./ladder.js";
import { type Goal, trainMaps, withHeadValues } from "./trained-map.js";

/** A rung, and the head where that was trained as well. */
export interface HeadedRung extends Rung {
  /** Values of the head's parameters, trained on all examples. */
  readonly values?: ReadonlyMap<string, Tensor> | undefined;
  /** The head from the vector on, trained without each fold. */
  readonly heads?: readonly Model[] | undefined;
}

/** What to climb from, and how. */
export interface TrainedRungsOptions extends Pick<FitOptions, "learn" | "shape" | "hidden" | "seed"> {
  readonly pairs: FeaturePairs;
  /** The best rung in closed form. */
  readonly start: Rung;
  /** From the vector on. */
  readonly head: Model;
  /** Class of each example; for what learns from classes. */
  readonly truth: readonly number[] | undefined;
  readonly runtime: Runtime;
}

/** Width of hidden layers, by default. */
const HIDDEN = 64;

/**
 * Climbs rungs.
 * @param names which
 * @throws PolyheadError as `trainMaps` does; INVALID_ARGUMENT to learn from classes that are not known
 */
export async function climbTrained(
  names: readonly RungName[],
  { pairs, start, head, truth, runtime, seed = 0, ...options }: TrainedRungsOptions,
): Promise<HeadedRung[]> {
  const { learn, shape = "linear", hidden = HIDDEN } = options;
  const wanted: readonly (readonly [RungName, Goal])[] = [
    ["residual", { kind: "features" }],
    ...(learn === undefined ? [] : [["trained", classesOf(head, truth, false)] as const]),
    ...(learn === "both" ? [["together", classesOf(head, truth, true)] as const] : []),
  ];
  const rungs: HeadedRung[] = [];
  for (const [name, goal] of wanted.filter(([each]) => names.includes(each))) {
    const begun = performance.now();
    const made = await trainMaps({
      ...{ pairs, start, goal, hidden, seed, runtime },
      shape: name === "residual" ? "residual" : shape,
    });
    const { map, maps, parameters, steps } = made;
    const heldOut = heldOutBy(pairs, (features, fold) => applyMap(mapAt(maps, fold), features));
    rungs.push({
      ...{ name, map, maps, parameters, steps, heldOut },
      explained: explainedVariance(heldOut, pairs.target),
      milliseconds: performance.now() - begun,
      ...(name === "together" && {
        values: made.head,
        heads: made.heads.map((values) => withHeadValues(head, values)),
      }),
    });
  }
  return rungs;
}

/** What a rung's map and head say of each example that they have not seen. */
export async function heldOutAnswers(
  rung: HeadedRung,
  folds: readonly number[],
  head: Model,
  metadata: Metadata,
  open: OpenModel,
): Promise<HeadAnswers> {
  const { heads, heldOut } = rung;
  if (!heads) return answersOf(await runOn(head, heldOut, open), metadata);
  const rows: Float64Array[] = [];
  for (const [fold, own] of heads.entries()) {
    const examples = [...folds.keys()].filter((at) => folds[at] === fold);
    const [first] = (await runOn(own, selectRows(heldOut, examples), open)).values();
    const numbers = first ? toNumbers(first) : new Float64Array();
    const width = numbers.length / Math.max(1, examples.length);
    examples.forEach((example, at) => {
      rows[example] = numbers.subarray(at * width, (at + 1) * width);
    });
  }
  const width = rows[0]?.length ?? 0;
  const data = new Float64Array(rows.length * width);
  rows.forEach((own, at) => {
    data.set(own, at * width);
  });
  return answersOf(new Map([["", tensor("float64", [rows.length, width], data)]]), metadata);
}

/** What a rung makes of other examples. */
export async function answersBy(
  { map, values }: HeadedRung,
  features: Matrix,
  head: Model,
  metadata: Metadata,
  open: OpenModel,
): Promise<HeadAnswers> {
  const own = values ? withHeadValues(head, values) : head;
  return answersOf(await runOn(own, applyMap(map, features), open), metadata);
}

/** Whether a rung has to be trained. */
export function isTrained(name: RungName): boolean {
  return RUNGS.indexOf(name) >= RUNGS.indexOf("residual");
}

function classesOf(head: Model, classes: readonly number[] | undefined, isHeadTrained: boolean): Goal {
  if (classes) return { kind: "classes", head, classes, isHeadTrained };
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    "To learn from classes they have to be known; put the images into folders that are named like the head's labels.",
    {},
  );
}

function mapAt(maps: readonly FeatureMap[], fold: number): FeatureMap {
  const map = maps[fold];
  if (map) return map;
  throw new PolyheadError("INTERNAL", `Nothing was trained without fold ${fold}.`, {});
}
