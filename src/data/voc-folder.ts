/**
 * Boxes in Pascal VOC's format: a folder `Annotations` with one XML file an image, and the images in `JPEGImages` (or
 * beside the XML files). VOC counts pixels from 1 and includes the last one, so that a box from 1 to 10 is ten pixels
 * wide; here it becomes 0 to 10. Writers that count from 0 lose one pixel at the left and top, which is cut off.
 */
import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { DOMParser, type Element, onErrorStopParsing } from "@xmldom/xmldom";
import { asError, PolyheadError } from "../base/errors.js";
import { mapInFlight } from "../base/in-flight.js";
import { readText } from "./list-file.js";
import {
  type BoxListing,
  listedSize,
  malformedSource,
  type ObjectBox,
  type Problem,
  sortedLabels,
} from "./listing.js";

const IN_FLIGHT = 16;

/** One annotation file as it stands. */
interface Annotation {
  readonly id: string;
  readonly path: string;
  readonly size: ReturnType<typeof listedSize>;
  readonly objects: readonly (Omit<ObjectBox, "classIndex"> & { readonly name: string })[];
}

/**
 * The images and boxes of a VOC folder: the one that has `Annotations`, or that folder itself. Difficult objects are
 * ignored ones. Files that are no annotation are problems.
 * @throws PolyheadError FILE_NOT_FOUND for no such folder, DATA_MALFORMED for one without annotations
 */
export async function readVocFolder(directory: string): Promise<BoxListing> {
  const inside = join(directory, "Annotations");
  const annotations = existsSync(inside) ? inside : directory;
  const names = await readdir(annotations).catch((thrown) => {
    throw new PolyheadError("FILE_NOT_FOUND", `Cannot read the folder: ${asError(thrown).message}.`, {
      path: annotations,
    });
  });
  const files = names.filter((name) => name.toLowerCase().endsWith(".xml") && !name.startsWith(".")).sort();
  if (files.length === 0) throw malformedSource(annotations, "it has no .xml files");
  const folders = [join(directory, "JPEGImages"), join(directory, "..", "JPEGImages"), annotations];
  const images = folders.find((folder) => existsSync(folder)) ?? annotations;
  const problems: Problem[] = [];
  const read = await mapInFlight(files, IN_FLIGHT, async (name) => {
    try {
      return [await readAnnotation(join(annotations, name), images)];
    } catch (thrown) {
      if (!(thrown instanceof PolyheadError) || thrown.code !== "DATA_MALFORMED") throw thrown;
      problems.push({ id: name, problem: thrown.message });
      return [];
    }
  });
  const found = read.flat();
  const labels = sortedLabels(found.flatMap(({ objects }) => objects.map(({ name }) => name)));
  const classOf = new Map(labels.map((label, at) => [label, at]));
  return {
    labels,
    images: found.map(({ id, path, objects, size }) => ({
      id,
      path,
      ...size,
      target: objects.map(({ name, ...box }) => ({ ...box, classIndex: classOf.get(name) ?? 0 })),
    })),
    problems: problems.sort((a, b) => (a.id < b.id ? -1 : 1)),
  };
}

/** @throws PolyheadError DATA_MALFORMED */
async function readAnnotation(path: string, images: string): Promise<Annotation> {
  const root = parseXml(path, await readText(path));
  if (root.tagName !== "annotation") {
    throw malformedSource(path, `its root is <${root.tagName}>; expected <annotation>`);
  }
  // A path in `filename` would lead elsewhere; the format has a name only.
  const id = basename(textOf(root, "filename") || basename(path).replace(/\.xml$/i, ".jpg"));
  const objects = children(root, "object").map((object) => {
    const name = textOf(object, "name");
    const [corners] = children(object, "bndbox");
    if (name === "" || !corners) throw malformedSource(path, "an <object> has no <name> or no <bndbox>");
    const at = (tag: string) => {
      const text = textOf(corners, tag);
      return text === "" ? Number.NaN : Number(text);
    };
    const box = { x1: at("xmin") - 1, y1: at("ymin") - 1, x2: at("xmax"), y2: at("ymax") };
    return { name, ...box, ...(textOf(object, "difficult") === "1" && { isIgnored: true }) };
  });
  const [size] = children(root, "size");
  const side = (name: string) => (size ? Number(textOf(size, name)) : undefined);
  return { id, path: join(images, id), objects, size: listedSize(side("width"), side("height")) };
}

function parseXml(path: string, text: string): Element {
  try {
    const root = new DOMParser({ onError: onErrorStopParsing }).parseFromString(
      text,
      "text/xml",
    ).documentElement;
    if (root) return root;
  } catch (thrown) {
    throw malformedSource(path, `it is not XML (${asError(thrown).message.split("\n")[0]})`);
  }
  throw malformedSource(path, "it is an empty XML document");
}

/** Children of an element with that name; not those further below (a `part` has a `bndbox` of its own). */
function children(element: Element, name: string): Element[] {
  const isWanted = (node: unknown): node is Element =>
    typeof node === "object" && node !== null && "tagName" in node && node.tagName === name;
  return Array.from(element.childNodes).filter(isWanted);
}

function textOf(element: Element, name: string): string {
  return children(element, name)[0]?.textContent?.trim() ?? "";
}
