/**
 * The classification extension: an output answered as its highest values, each as the text `value:index` or, where the
 * model has labels for all of them, `value:index:label`. Rows are classified one by one.
 */
import { PolyheadError } from "../../base/errors.js";
import { elementCount } from "../../tensor/shape.js";
import { type Tensor, toNumbers } from "../../tensor/tensor.js";
import type { Service } from "../service.js";
import type { AnsweredOutput } from "./outputs.js";
import { wholeNumber } from "./parameters.js";
import { shown } from "./shown.js";

/**
 * How many classes the parameter `classification` of an output asks for; undefined for the output as it is.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function classCount(parameter: unknown): number | undefined {
  if (parameter === undefined) return undefined;
  const count = wholeNumber(parameter, "classification");
  if (count > 0) return count;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    "The parameter classification is 0; expected how many classes shall be answered, from 1 on.",
    {},
  );
}

/**
 * The outputs, with classes in place of those that were asked for so.
 * @param counts of classes, by the output's name in the request
 * @throws PolyheadError INVALID_ARGUMENT for outputs that are no numbers
 */
export function withClasses(
  outputs: readonly AnsweredOutput[],
  counts: ReadonlyMap<string, number>,
  service: Pick<Service, "model">,
): AnsweredOutput[] {
  return outputs.map((output) => {
    const count = counts.get(output.name);
    if (count === undefined) return output;
    const { labels } = service.model(output.route).metadata;
    return { ...output, tensor: classes(output, count, labels ?? []) };
  });
}

function classes({ name, tensor }: AnsweredOutput, count: number, labels: readonly string[]): Tensor {
  const { dtype, shape, data } = tensor;
  if (!ArrayBuffer.isView(data) || shape.length === 0) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The output ${shown(name)} has no numbers in rows, so that it cannot be classified; leave the parameter classification out.`,
      { name },
    );
  }
  const isBatch = shape.length > 1;
  const rows = isBatch ? (shape[0] ?? 0) : 1;
  const width = rows > 0 ? elementCount(shape) / rows : 0;
  const most = Math.min(count, width);
  const values = toNumbers(tensor);
  const show = dtype === "float32" ? shortest : String;
  const texts = Array.from({ length: rows }, (_, row) => {
    const order = Array.from({ length: width }, (_, index) => index);
    const scoreOf = (index: number) => values[row * width + index] ?? Number.NaN;
    const rank = (index: number) =>
      Number.isNaN(scoreOf(index)) ? Number.NEGATIVE_INFINITY : scoreOf(index);
    return order
      .sort((a, b) => (rank(a) === rank(b) ? a - b : rank(b) - rank(a)))
      .slice(0, most)
      .map((index) => {
        const label = labels.length === width ? `:${labels[index]}` : "";
        return `${show(scoreOf(index))}:${index}${label}`;
      });
  });
  return { dtype: "string", shape: isBatch ? [rows, most] : [most], data: texts.flat() };
}

/** The shortest decimal number that is this one in 32 bits. */
function shortest(value: number): string {
  for (let digits = 6; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return String(short);
  }
  return String(Number(value.toPrecision(9)));
}
