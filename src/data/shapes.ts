/**
 * A made-up data set to try out detectors on, without downloads: coloured circles, squares and triangles on noisy
 * backgrounds, with their boxes. Easy on purpose: a light detector that learns at all finds nearly all of them. The
 * same seed gives the same pictures, byte for byte.
 */
import { join } from "node:path";
import sharp from "sharp";
import { between, combinedSeed, type Random, seededRandom } from "../base/random.js";
import { writeFileAtomic } from "../files/disk.js";
import { intersectionOverUnion, type ObjectBox } from "../vision/detections.js";
import type { Image } from "../vision/image.js";

/** Names of the shapes, by class. */
export const SHAPE_LABELS = ["circle", "square", "triangle"] as const;

/** How pictures are made. */
export interface ShapesOptions {
  readonly seed: number;
  readonly width?: number;
  readonly height?: number;
  /** Most objects on a picture; at least one. */
  readonly most?: number;
}

/** A picture with what is on it. */
export interface ShapesPicture {
  readonly image: Image;
  readonly objects: readonly ObjectBox[];
}

/** Objects overlap less than this, so that each is seen. */
const MOST_OVERLAP = 0.1;
const TRIES = 50;

/** The picture of that number, from 0; 128 x 128 pixels with up to four objects by default. */
export function shapesPicture(number: number, options: ShapesOptions): ShapesPicture {
  const { seed, width = 128, height = 128, most = 4 } = options;
  const random = seededRandom(combinedSeed(seed, number));
  const { rgb, middle } = background(width, height, random);
  const wanted = 1 + Math.floor(random() * most);
  const objects: ObjectBox[] = [];
  for (let tries = 0; objects.length < wanted && tries < TRIES; tries++) {
    const side = Math.round(between(random, 0.14, 0.4) * Math.min(width, height));
    const x1 = Math.floor(random() * (width - side));
    const y1 = Math.floor(random() * (height - side));
    const box = { x1, y1, x2: x1 + side, y2: y1 + side };
    const classIndex = Math.floor(random() * SHAPE_LABELS.length);
    const colour = distinctColour(middle, random);
    if (objects.some((other) => intersectionOverUnion(other, box) > MOST_OVERLAP)) continue;
    const area = draw(rgb, width, box, classIndex, colour);
    objects.push({ ...box, classIndex, area });
  }
  return { image: { width, height, rgb }, objects };
}

/**
 * Writes pictures as PNG with their boxes as `annotations.json` in COCO's format into a folder.
 * @returns the path of the JSON file
 * @throws PolyheadError FILE_NOT_WRITTEN
 */
export async function writeShapes(folder: string, count: number, options: ShapesOptions): Promise<string> {
  const images: object[] = [];
  const annotations: object[] = [];
  for (let id = 0; id < count; id++) {
    const { image, objects } = shapesPicture(id, options);
    const { width, height, rgb } = image;
    const name = `${String(id).padStart(4, "0")}.png`;
    const png = await sharp(rgb, { raw: { width, height, channels: 3 } })
      .png()
      .toBuffer();
    await writeFileAtomic(join(folder, name), png);
    images.push({ id, file_name: name, width, height });
    for (const { x1, y1, x2, y2, classIndex, area } of objects) {
      annotations.push({
        ...{ id: annotations.length, image_id: id, category_id: classIndex, area, iscrowd: 0 },
        bbox: [x1, y1, x2 - x1, y2 - y1],
      });
    }
  }
  const categories = SHAPE_LABELS.map((name, id) => ({ id, name }));
  const path = join(folder, "annotations.json");
  await writeFileAtomic(path, JSON.stringify({ images, annotations, categories }));
  return path;
}

/** A slope between two colours, with noise. */
function background(width: number, height: number, random: Random): { rgb: Uint8Array; middle: number[] } {
  const [from, to] = [0, 1].map(() => [0, 1, 2].map(() => between(random, 20, 235)));
  const angle = between(random, 0, 2 * Math.PI);
  const rgb = new Uint8Array(width * height * 3);
  for (let at = 0; at < width * height; at++) {
    const [x, y] = [(at % width) / width - 0.5, Math.floor(at / width) / height - 0.5];
    const place = Math.min(1, Math.max(0, 0.5 + x * Math.cos(angle) + y * Math.sin(angle)));
    const noise = between(random, -18, 18);
    for (let channel = 0; channel < 3; channel++) {
      const value = (from?.[channel] ?? 0) * (1 - place) + (to?.[channel] ?? 0) * place + noise;
      rgb[at * 3 + channel] = Math.min(255, Math.max(0, Math.round(value)));
    }
  }
  return { rgb, middle: [0, 1, 2].map((channel) => ((from?.[channel] ?? 0) + (to?.[channel] ?? 0)) / 2) };
}

/** A colour far from another. */
function distinctColour(other: readonly number[], random: Random): number[] {
  const colours = Array.from({ length: 6 }, () => [0, 1, 2].map(() => Math.floor(random() * 256)));
  const distance = (colour: readonly number[]) =>
    colour.reduce((sum, value, channel) => sum + (value - (other[channel] ?? 0)) ** 2, 0);
  return colours.reduce((best, each) => (distance(each) > distance(best) ? each : best));
}

/** Fills the shape that touches all edges of the box; gives the number of its pixels. */
function draw(
  rgb: Uint8Array,
  width: number,
  { x1, y1, x2, y2 }: Pick<ObjectBox, "x1" | "y1" | "x2" | "y2">,
  shape: number,
  colour: readonly number[],
): number {
  let area = 0;
  for (let y = y1; y < y2; y++) {
    for (let x = x1; x < x2; x++) {
      // From -1 to 1 within the box.
      const across = (2 * (x + 0.5 - x1)) / (x2 - x1) - 1;
      const down = (2 * (y + 0.5 - y1)) / (y2 - y1) - 1;
      const isInside = [
        across ** 2 + down ** 2 <= 1,
        true,
        Math.abs(across) <= (down + 1) / 2 + 0.6 / (x2 - x1),
      ][shape];
      if (!isInside) continue;
      rgb.set(colour, (y * width + x) * 3);
      area++;
    }
  }
  return area;
}
