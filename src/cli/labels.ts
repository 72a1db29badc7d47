/** Lists of class names: `coco`, or a file with one a line or with a JSON list of texts. */
import { asError, PolyheadError } from "../base/errors.js";
import { readFileBytes } from "../files/disk.js";
import { COCO_LABELS } from "../vision/coco.js";

const MOST_BYTES = 2 ** 24;

/**
 * The list that a name or a path means.
 * @throws PolyheadError FILE_NOT_FOUND, LIMIT_EXCEEDED, DATA_MALFORMED
 */
export async function readLabels(source: string): Promise<readonly string[]> {
  if (source === "coco") return COCO_LABELS;
  const text = new TextDecoder().decode(await readFileBytes(source, MOST_BYTES)).trimEnd();
  const labels: unknown = /^\s*\[/.test(text) ? parseList(source, text) : text.split(/\r?\n/);
  if (isLabels(labels)) return labels;
  throw new PolyheadError(
    "DATA_MALFORMED",
    `${source} is not a list of labels: expected a name on every line, or a JSON list of texts.`,
    { path: source },
  );
}

function isLabels(value: unknown): value is string[] {
  return (
    Array.isArray(value) &&
    value.length > 0 &&
    value.every((label) => typeof label === "string" && label.trim() !== "" && !/\p{Cc}|\ufffd/u.test(label))
  );
}

function parseList(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (thrown) {
    throw new PolyheadError(
      "DATA_MALFORMED",
      `${path} begins like a JSON list but is none: ${asError(thrown).message}.`,
      { path },
      { cause: thrown },
    );
  }
}
