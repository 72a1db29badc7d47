/**
 * Lists of images with their classes: CSV with a header, JSON (an array of objects) or JSON lines. A record has the
 * image's path, relative to the list, in `image`, `file`, `filename` or `path`, and its class in `label` or `class`;
 * other fields are passed over.
 */
import { dirname, extname, resolve } from "node:path";
import { parse } from "csv-parse/sync";
import { asError } from "../base/errors.js";
import { readFileBytes } from "../files/disk.js";
import {
  type ClassListing,
  type ListedImage,
  malformedSource,
  type Problem,
  sortedLabels,
} from "./listing.js";

const LARGEST_LIST = 2 ** 28;
const IMAGE_FIELDS = ["image", "file", "filename", "path"];
const CLASS_FIELDS = ["label", "class"];

/** One record with its place in the file, for messages. */
interface Place {
  readonly where: string;
  readonly record: Readonly<Record<string, unknown>>;
}

/**
 * The images in a `.csv`, `.json` or `.jsonl` file. Records without an image or a class, and images listed a second
 * time, are problems; the same image in two classes is an error.
 * @throws PolyheadError FILE_NOT_FOUND; DATA_MALFORMED when it is no such list
 */
export async function readListFile(path: string): Promise<ClassListing> {
  const text = await readText(path);
  const places = records(path, text);
  const [first] = places;
  if (!first) throw malformedSource(path, "it has no records; expected one a line or an array of them");
  const imageField = fieldOf(path, first.record, IMAGE_FIELDS, "the image");
  const classField = fieldOf(path, first.record, CLASS_FIELDS, "the class");
  const problems: Problem[] = [];
  const known = new Map<string, string>();
  for (const { where, record } of places) {
    const [image, label] = [textOf(record[imageField]), textOf(record[classField])];
    if (image === "") problems.push({ id: where, problem: `it has no ${imageField}` });
    else if (label === "") problems.push({ id: image, problem: `it has no ${classField} (${where})` });
    else if (known.get(image) === label)
      problems.push({ id: image, problem: `it is listed twice (${where})` });
    else if (known.has(image)) {
      throw malformedSource(
        path,
        `${where} puts ${JSON.stringify(image)} into ${JSON.stringify(label)}, another record into ${JSON.stringify(known.get(image))}; expected one class an image`,
        { image },
      );
    } else known.set(image, label);
  }
  const labels = sortedLabels(known.values());
  const place = new Map(labels.map((label, at) => [label, at]));
  const images = [...known].map(
    ([image, label]): ListedImage<number> => ({
      id: image.replaceAll("\\", "/"),
      path: resolve(dirname(path), image),
      target: place.get(label) ?? 0,
    }),
  );
  return { labels, images, problems };
}

/**
 * The text of a file that must be UTF-8; a byte order mark is passed over.
 * @throws PolyheadError FILE_NOT_FOUND, LIMIT_EXCEEDED above 256 MiB, DATA_MALFORMED when it is not UTF-8
 */
export async function readText(path: string): Promise<string> {
  const bytes = await readFileBytes(path, LARGEST_LIST);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw malformedSource(path, "it is not text in UTF-8");
  }
}

/**
 * A JSON text as whatever it holds.
 * @throws PolyheadError DATA_MALFORMED
 */
export function parseJson(path: string, text: string, where = ""): unknown {
  try {
    return JSON.parse(text);
  } catch (thrown) {
    throw malformedSource(path, `${where}it is not JSON (${asError(thrown).message})`);
  }
}

/** Whether a value is an object with named fields. */
export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function records(path: string, text: string): Place[] {
  switch (extname(path).toLowerCase()) {
    case ".csv":
      return csvRecords(path, text);
    case ".jsonl":
      return text.split("\n").flatMap((line, at) => {
        if (line.trim() === "") return [];
        return asRecord(path, parseJson(path, line, `line ${at + 1}: `), `line ${at + 1}`);
      });
    default: {
      const list = parseJson(path, text);
      if (!Array.isArray(list)) throw malformedSource(path, "expected an array of objects, or COCO's object");
      return list.flatMap((each, at) => asRecord(path, each, `record ${at + 1}`));
    }
  }
}

function asRecord(path: string, record: unknown, where: string): Place[] {
  if (isRecord(record)) return [{ where, record }];
  throw malformedSource(path, `${where} is ${JSON.stringify(record)?.slice(0, 60)}; expected an object`);
}

function csvRecords(path: string, text: string): Place[] {
  try {
    const rows: Record<string, string>[] = parse(text, { columns: true, trim: true, skip_empty_lines: true });
    // Fields may have line ends, so the place of a record is its number, not its line.
    return rows.map((record, at) => ({ where: `record ${at + 1}`, record }));
  } catch (thrown) {
    throw malformedSource(path, `it is not CSV with a header (${asError(thrown).message})`);
  }
}

function fieldOf(
  path: string,
  record: Readonly<Record<string, unknown>>,
  names: readonly string[],
  what: string,
) {
  const name = names.find((each) => Object.hasOwn(record, each));
  if (name !== undefined) return name;
  throw malformedSource(
    path,
    `no field has ${what}; expected ${names.join(", ")}; got ${Object.keys(record).join(", ").slice(0, 200) || "none"}`,
    { expected: names },
  );
}

/** Numbers are classes too: `label` 7 is "7". */
function textOf(value: unknown): string {
  return typeof value === "string" || typeof value === "number" ? String(value).trim() : "";
}
