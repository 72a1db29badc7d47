/**
 * Boxes in COCO's object detection format (cocodataset.org/#format-data): one JSON file with `images`, `categories` and
 * `annotations`, whose `bbox` is [left, top, width, height] in pixels. Outlines (`segmentation`) are not read; an
 * annotation's `area` is, because COCO's sizes are those of the outline.
 */
import { existsSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { isRecord, parseJson, readText } from "./list-file.js";
import { type BoxListing, listedSize, malformedSource, type ObjectBox, type Problem } from "./listing.js";

type Fields = Readonly<Record<string, unknown>>;

/**
 * The images and boxes in a COCO file. Classes are the categories by rising id. Annotations that cannot be understood
 * or that belong to no image or category are problems; wrong boxes are found when the images are looked at.
 * @param images folder of the images; by default the file's own folder, or the first of `images`, `../images`,
 *   `../<name of the split>` that has the first image
 * @throws PolyheadError FILE_NOT_FOUND, DATA_MALFORMED
 */
export async function readCocoFile(path: string, images?: string): Promise<BoxListing> {
  const root = parseJson(path, await readText(path));
  if (!isCoco(root))
    throw malformedSource(path, "expected an object with images, annotations and categories");
  const categories = tableOf(path, root.categories, "categories");
  const ids = [...categories.keys()].sort((a, b) => a - b);
  const labels = ids.map((id) => String(categories.get(id)?.name ?? id));
  if (new Set(labels).size < labels.length) throw malformedSource(path, "two categories have the same name");
  const classOf = new Map(ids.map((id, at) => [id, at]));

  const pictures = tableOf(path, root.images, "images");
  const names = new Map([...pictures].map(([id, { file_name }]) => [id, fileName(path, id, file_name)]));
  const boxes = new Map<number, ObjectBox[]>([...pictures.keys()].map((id) => [id, []]));
  const problems: Problem[] = [];
  root.annotations.forEach((annotation: unknown, at: number) => {
    const fields: Fields = isRecord(annotation) ? annotation : {};
    const id = `annotation ${fields.id ?? `at place ${at}`}`;
    const list = boxes.get(Number(fields.image_id));
    const classIndex = classOf.get(Number(fields.category_id));
    const box = fields.bbox;
    if (!list) problems.push({ id, problem: `its image_id ${shown(fields.image_id)} is no image's id` });
    else if (classIndex === undefined) {
      problems.push({ id, problem: `its category_id ${shown(fields.category_id)} is no category's id` });
    } else if (!Array.isArray(box) || box.length !== 4) {
      problems.push({ id, problem: `its bbox is ${shown(box)}; expected [left, top, width, height]` });
    } else list.push(objectBox(box, fields, classIndex));
  });
  const folder = images ?? folderOf(path, [...names.values()][0]);
  return {
    labels,
    images: [...names].map(([id, name]) => ({
      id: name,
      path: resolve(folder, name),
      target: boxes.get(id) ?? [],
      ...listedSize(pictures.get(id)?.width, pictures.get(id)?.height),
    })),
    problems,
  };
}

/** Whether a JSON document looks like COCO's. */
export function isCoco(
  value: unknown,
): value is { images: unknown[]; annotations: unknown[]; categories: unknown[] } {
  const isList = (each: unknown) => Array.isArray(each);
  return isRecord(value) && isList(value.images) && isList(value.annotations) && isList(value.categories);
}

function objectBox(box: readonly unknown[], { area, iscrowd }: Fields, classIndex: number): ObjectBox {
  // What is no number becomes NaN, and is listed as a wrong box with its image.
  const [x1 = Number.NaN, y1 = Number.NaN, width = Number.NaN, height = Number.NaN] = box.map((each) =>
    typeof each === "number" ? each : Number.NaN,
  );
  return {
    x1,
    y1,
    x2: x1 + width,
    y2: y1 + height,
    classIndex,
    ...(iscrowd === 1 && { isIgnored: true }),
    ...(typeof area === "number" && area > 0 && { area }),
  };
}

function tableOf(path: string, list: readonly unknown[], what: string): Map<number, Fields> {
  const table = new Map<number, Fields>();
  for (const each of list) {
    if (!isRecord(each) || typeof each.id !== "number") {
      throw malformedSource(path, `one of its ${what} has no number as id`);
    }
    if (table.has(each.id)) throw malformedSource(path, `two of its ${what} have the id ${each.id}`);
    table.set(each.id, each);
  }
  return table;
}

function fileName(path: string, id: number, name: unknown): string {
  if (typeof name === "string" && name !== "") return name;
  throw malformedSource(path, `the image ${id} has no file_name`);
}

/** Exports put the images beside the file, below it, or beside its folder (`annotations/` and `train2017/`). */
function folderOf(path: string, name: string | undefined): string {
  const own = dirname(path);
  const split = /(?:^|_)([^_]+)\.json$/.exec(basename(path))?.[1] ?? "";
  const places = [own, join(own, "images"), join(own, "..", "images"), join(own, "..", split)];
  return places.find((place) => existsSync(join(place, name ?? ""))) ?? own;
}

function shown(value: unknown): string {
  return value === undefined ? "missing" : (JSON.stringify(value) ?? "").slice(0, 60);
}
