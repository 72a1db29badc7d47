/**
 * Where an image lies in a model's input, and the way back: stretched over it, cut by it, or centred in it.
 * All rectangles have whole pixels, so the way back is exact.
 */
import type { Preprocessing } from "./preprocessing.js";

/** A size in pixels. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** A rectangle in pixels. */
export interface Rectangle extends Size {
  readonly left: number;
  readonly top: number;
}

/** How an image lies in a model's input: the pixels of `source` (in the image) fill `target` (in the input). */
export interface Placement {
  /** Size of the image. */
  readonly image: Size;
  /** Size of the model's input. */
  readonly input: Size;
  readonly source: Rectangle;
  readonly target: Rectangle;
}

type Rectangles = Pick<Placement, "source" | "target">;

/** Where an image of this size lies in the model's input. */
export function placeImage(
  { width, height }: Size,
  { fit, crop, width: inputWidth, height: inputHeight }: Preprocessing,
): Placement {
  const image = { width, height };
  const input = { width: inputWidth, height: inputHeight };
  const whole = { left: 0, top: 0 };
  if (fit === "stretch")
    return { image, input, source: { ...whole, ...image }, target: { ...whole, ...input } };
  if (fit === "cover") {
    const scale = Math.max(inputWidth / width, inputHeight / height) / crop;
    const source = centred(image, inputWidth / scale, inputHeight / scale);
    return { image, input, source, target: { ...whole, ...input } };
  }
  const scale = Math.min(inputWidth / width, inputHeight / height);
  return {
    image,
    input,
    source: { ...whole, ...image },
    target: centred(input, width * scale, height * scale),
  };
}

/** The point of the image that lies at (x, y) of the model's input; both in pixels, edges at whole numbers. */
export function toImagePoint({ source, target }: Rectangles, x: number, y: number): { x: number; y: number } {
  return {
    x: source.left + ((x - target.left) * source.width) / target.width,
    y: source.top + ((y - target.top) * source.height) / target.height,
  };
}

/** The point of the model's input where (x, y) of the image lies; the inverse of {@link toImagePoint}. */
export function toInputPoint({ source, target }: Rectangles, x: number, y: number): { x: number; y: number } {
  return toImagePoint({ source: target, target: source }, x, y);
}

/** A rectangle of whole pixels, at least one, in the middle of an area. */
function centred(area: Size, width: number, height: number): Rectangle {
  const fitted = {
    width: Math.min(area.width, Math.max(1, Math.round(width))),
    height: Math.min(area.height, Math.max(1, Math.round(height))),
  };
  return {
    ...fitted,
    left: Math.floor((area.width - fitted.width) / 2),
    top: Math.floor((area.height - fitted.height) / 2),
  };
}
