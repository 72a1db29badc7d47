/** Which kind of data lies at a path, told by what is there, and its listing. */
import { existsSync } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { extname, join, relative } from "node:path";
import { asError, PolyheadError } from "../base/errors.js";
import { isCoco, readCocoFile } from "./coco-file.js";
import { imageFolder } from "./image-folder.js";
import { parseJson, readListFile, readText } from "./list-file.js";
import { type BoxListing, type ClassListing, malformedSource } from "./listing.js";
import { readVocFolder } from "./voc-folder.js";

/** What lies at a path. */
export type Source =
  | { readonly kind: "classes"; readonly listing: ClassListing }
  | { readonly kind: "boxes"; readonly listing: BoxListing };

/**
 * Lists what lies at a path: a folder with one folder of images a class; a folder with Pascal VOC's `Annotations`, or
 * of its XML files; COCO's JSON; a CSV, JSON or JSON lines list of images and classes.
 * @param images folder of the images of a COCO file, where it is elsewhere
 * @throws PolyheadError FILE_NOT_FOUND; INVALID_ARGUMENT for another kind of file; as the readers do
 */
export async function openSource(path: string, images?: string): Promise<Source> {
  const info = await stat(path).catch((thrown) => {
    throw new PolyheadError("FILE_NOT_FOUND", `No data at ${path}: ${asError(thrown).message}.`, { path });
  });
  if (info.isDirectory()) {
    if (await isVoc(path)) return { kind: "boxes", listing: await readVocFolder(path) };
    return { kind: "classes", listing: await listFolder(path) };
  }
  switch (extname(path).toLowerCase()) {
    case ".json":
      return isCoco(parseJson(path, await readText(path)))
        ? { kind: "boxes", listing: await readCocoFile(path, images) }
        : { kind: "classes", listing: await readListFile(path) };
    case ".csv":
    case ".jsonl":
      return { kind: "classes", listing: await readListFile(path) };
    default:
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `${path} is no known kind of data; expected a folder of folders, a Pascal VOC folder, COCO's .json, or a list as .csv, .json or .jsonl.`,
        { path },
      );
  }
}

/**
 * The images of a folder with one folder a class.
 * @throws PolyheadError as `imageFolder` does
 */
export async function listFolder(directory: string): Promise<ClassListing> {
  const { labels, files } = await imageFolder(directory);
  return {
    labels,
    images: files.map(({ path, classIndex }) => ({
      id: relative(directory, path).replaceAll("\\", "/"),
      path,
      target: classIndex,
    })),
    problems: [],
  };
}

async function isVoc(directory: string): Promise<boolean> {
  if (existsSync(join(directory, "Annotations"))) return true;
  return (await readdir(directory)).some((name) => name.toLowerCase().endsWith(".xml"));
}

/**
 * The listing, which must be of images with one class each.
 * @throws PolyheadError DATA_MALFORMED for boxes
 */
export function asClasses(path: string, source: Source): ClassListing {
  if (source.kind === "classes") return source.listing;
  throw malformedSource(path, "it has boxes; expected images with one class each");
}

/**
 * The listing, which must be of images with boxes.
 * @throws PolyheadError DATA_MALFORMED for classes
 */
export function asBoxes(path: string, source: Source): BoxListing {
  if (source.kind === "boxes") return source.listing;
  throw malformedSource(path, "it has one class an image; expected boxes, as COCO or Pascal VOC have them");
}
