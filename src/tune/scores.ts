/** What a classifier says of rows, and how good that is. */
import { PolyheadError } from "../base/errors.js";
import { seededRandom } from "../base/random.js";
import { type RowSource, stacked } from "../data/rows.js";
import { GraphIndex } from "../onnx/graph.js";
import type { Model } from "../onnx/model.js";
import type { OpenModel } from "../onnx/runner.js";
import { type Tensor, tensor, toNumbers } from "../tensor/tensor.js";
import { type ClassificationQuality, classificationQuality } from "../vision/classification-quality.js";

/** Logits and classes of rows. */
export interface Scores {
  /** float32 [rows, classes] */
  readonly logits: Tensor;
  readonly classes: readonly number[];
}

/**
 * The scores of all rows, in batches of so many; the last one may be smaller.
 * @param model with one input
 * @param output its logits
 * @throws PolyheadError as opening and running the model and making rows do
 */
export async function scoresOf(
  rows: RowSource<number>,
  batch: number,
  open: OpenModel,
  model: Model,
  output: string,
): Promise<Scores> {
  const [input] = new GraphIndex(model.graph).inputs;
  const opened = await open(model, "all");
  try {
    return await scoresBy(rows, batch, async (x) =>
      (await opened.run(new Map([[input?.name ?? "", x]]))).get(output),
    );
  } finally {
    await opened.close();
  }
}

/** As {@link scoresOf}, by whatever computes logits of a batch. */
export async function scoresBy(
  rows: RowSource<number>,
  batch: number,
  answer: (x: Tensor) => Promise<Tensor | undefined>,
): Promise<Scores> {
  const parts: Tensor[] = [];
  const classes: number[] = [];
  // Rows of examples that are judged are no random views.
  const random = seededRandom(0);
  for (let from = 0; from < rows.count; from += batch) {
    const size = Math.min(batch, rows.count - from);
    const own = await Promise.all(Array.from({ length: size }, (_, at) => rows.row(from + at, random)));
    const logits = await answer(stacked(own.map(({ x }) => x)));
    if (logits) parts.push(logits);
    classes.push(...own.map(({ target }) => target));
  }
  return { logits: joined(parts), classes };
}

/** Judges scores. @throws PolyheadError DIVERGED for scores that are no finite numbers */
export function qualityOf({ logits, classes }: Scores): ClassificationQuality {
  const wrong = toNumbers(logits).find((value) => !Number.isFinite(value));
  if (wrong !== undefined) {
    throw new PolyheadError(
      "DIVERGED",
      `What was trained answers ${wrong}. Take a lower rate, clip gradients, or look for values that are no numbers in the data.`,
      { got: String(wrong) },
    );
  }
  return classificationQuality(logits, classes);
}

/** Scores of parts of the examples, put together in the order of the examples. */
export function mergedScores(
  parts: readonly { readonly places: readonly number[]; readonly scores: Scores }[],
): Scores {
  const count = parts.reduce((sum, { places }) => sum + places.length, 0);
  const width = parts[0]?.scores.logits.shape[1] ?? 0;
  const data = new Float32Array(count * width);
  const classes = Array<number>(count).fill(0);
  for (const { places, scores } of parts) {
    const values = toNumbers(scores.logits);
    places.forEach((place, at) => {
      data.set(values.subarray(at * width, (at + 1) * width), place * width);
      classes[place] = scores.classes[at] ?? 0;
    });
  }
  return { logits: tensor("float32", [count, width], data), classes };
}

function joined(parts: readonly Tensor[]): Tensor {
  const rows = parts.reduce((sum, { shape }) => sum + (shape[0] ?? 0), 0);
  const data = new Float32Array(parts.reduce((sum, each) => sum + each.data.length, 0));
  let at = 0;
  for (const each of parts) {
    data.set(each.data as Float32Array, at);
    at += each.data.length;
  }
  return tensor("float32", [rows, rows === 0 ? 0 : data.length / rows], data);
}
