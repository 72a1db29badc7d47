/**
 * The anchor-free detection head of "Objects as Points" (CenterNet, Zhou et al. 2019): a heat map with a peak at the
 * centre of every object of a class, and beside it, at the centre's cell, the object's size and where in the cell the
 * centre lies. Here are its targets, made from boxes; `detections.ts` reads its answers, by the arrangement `centres`
 * of a decoding.
 */
import { type Tensor, tensor } from "../tensor/tensor.js";
import type { ObjectBox } from "./detections.js";

/** The head's outputs: their cells, and how many pixels of the model's input a cell is wide and high. */
export interface CentreGrid {
  readonly classes: number;
  readonly height: number;
  readonly width: number;
  readonly stride: number;
}

/**
 * What the head should answer, float32. The losses of the paper read them so: the focal loss of the heat map (penalty-
 * reduced, alpha 2, beta 4) compares its logits with `heat` where `weight` is 1; the L1 losses compare `size` (weight
 * 0.1) and `offset` (weight 1) where `mask` is 1; all are divided by `objects`.
 */
export interface CentreTargets {
  /** [images, classes, height, width]: 1 at a centre, a Gaussian around it, 0 elsewhere. */
  readonly heat: Tensor;
  /** [images, 1, height, width]: 0 where an ignored object lies, so that nothing is learned there; 1 elsewhere. */
  readonly weight: Tensor;
  /** [images, 2, height, width]: width and height of the object whose centre is in the cell, in cells. */
  readonly size: Tensor;
  /** [images, 2, height, width]: centre minus the cell's left and top edge, in cells, from 0 to below 1. */
  readonly offset: Tensor;
  /** [images, 1, height, width]: 1 at centres, 0 elsewhere. */
  readonly mask: Tensor;
  /** Number of centres; 1 where there are none, so that it can divide. */
  readonly objects: number;
}

/** Overlap that a box with corners off by the radius still has with the object; CornerNet's. */
const LEAST_OVERLAP = 0.7;

/**
 * The targets of a batch.
 * @param images the objects of each image, in pixels of the model's input. Of several centres of one cell the smallest
 *   object's size and offset are learned; objects whose centre lies outside are left out.
 */
export function centreTargets(images: readonly (readonly ObjectBox[])[], grid: CentreGrid): CentreTargets {
  const { classes, height, width, stride } = grid;
  const cells = height * width;
  const plane = (channels: number) => new Float32Array(images.length * channels * cells);
  const [heat, weight, size, offset, mask] = [plane(classes), plane(1).fill(1), plane(2), plane(2), plane(1)];
  images.forEach((objects, image) => {
    const largestFirst = objects.toSorted((a, b) => areaOf(b) - areaOf(a));
    for (const object of largestFirst) {
      const [x1, y1, x2, y2] = [
        object.x1 / stride,
        object.y1 / stride,
        object.x2 / stride,
        object.y2 / stride,
      ];
      if (object.isIgnored) {
        const own = weight.subarray(image * cells, (image + 1) * cells);
        for (let y = Math.max(0, Math.floor(y1)); y < Math.min(height, Math.ceil(y2)); y++) {
          own.fill(0, y * width + Math.max(0, Math.floor(x1)), y * width + Math.min(width, Math.ceil(x2)));
        }
        continue;
      }
      const [centreX, centreY] = [(x1 + x2) / 2, (y1 + y2) / 2];
      const [column, row] = [Math.floor(centreX), Math.floor(centreY)];
      if (column < 0 || row < 0 || column >= width || row >= height) continue;
      const map = (image * classes + object.classIndex) * cells;
      const radius = Math.max(0, Math.floor(gaussianRadius(x2 - x1, y2 - y1)));
      drawGaussian(heat.subarray(map, map + cells), grid, column, row, radius);
      const cell = row * width + column;
      const put = (array: Float32Array, first: number, second: number) => {
        array[image * 2 * cells + cell] = first;
        array[(image * 2 + 1) * cells + cell] = second;
      };
      put(size, x2 - x1, y2 - y1);
      put(offset, centreX - column, centreY - row);
      mask[image * cells + cell] = 1;
    }
  });
  // A centre that an ignored object covers is still a centre.
  for (let at = 0; at < mask.length; at++) if (mask[at] === 1) weight[at] = 1;
  const shaped = (channels: number, data: Float32Array) =>
    tensor("float32", [images.length, channels, height, width], data);
  return {
    heat: shaped(classes, heat),
    weight: shaped(1, weight),
    size: shaped(2, size),
    offset: shaped(2, offset),
    mask: shaped(1, mask),
    objects: Math.max(
      1,
      mask.reduce((sum, value) => sum + value, 0),
    ),
  };
}

/**
 * How far both corners of a box may be off, in the worst of three ways (both outwards, both inwards, both to one side),
 * for an overlap of 0.7 with the box; Law and Deng 2018, with the roots of the quadratic equations as they are.
 */
export function gaussianRadius(width: number, height: number, overlap = LEAST_OVERLAP): number {
  const [sum, product] = [width + height, width * height];
  // Both to one side: (w - r)(h - r) / (2wh - (w - r)(h - r)) = overlap.
  const aside = smallerRoot(1, -sum, (product * (1 - overlap)) / (1 + overlap));
  // Both inwards: (w - 2r)(h - 2r) / wh = overlap.
  const inwards = smallerRoot(4, -2 * sum, product * (1 - overlap));
  // Both outwards: wh / (w + 2r)(h + 2r) = overlap.
  const outwards = largerRoot(4 * overlap, 2 * overlap * sum, (overlap - 1) * product);
  return Math.min(aside, inwards, outwards);
}

function smallerRoot(a: number, b: number, c: number): number {
  return (-b - Math.sqrt(b * b - 4 * a * c)) / (2 * a);
}

function largerRoot(a: number, b: number, c: number): number {
  return (-b + Math.sqrt(b * b - 4 * a * c)) / (2 * a);
}

/** The greater of what is there and a Gaussian whose deviation is a sixth of its diameter. */
function drawGaussian(
  map: Float32Array,
  { width, height }: CentreGrid,
  column: number,
  row: number,
  radius: number,
): void {
  const deviation = (2 * radius + 1) / 6;
  for (let y = Math.max(0, row - radius); y <= Math.min(height - 1, row + radius); y++) {
    for (let x = Math.max(0, column - radius); x <= Math.min(width - 1, column + radius); x++) {
      const distance = (x - column) ** 2 + (y - row) ** 2;
      const value = Math.exp(-distance / (2 * deviation ** 2));
      map[y * width + x] = Math.max(map[y * width + x] ?? 0, value);
    }
  }
}

function areaOf({ x1, y1, x2, y2 }: ObjectBox): number {
  return (x2 - x1) * (y2 - y1);
}
