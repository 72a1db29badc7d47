/**
 * Images from files, and tensors from images. Decoding gives upright 8-bit sRGB whatever the file had:
 * EXIF orientation is applied, grey and CMYK and 16 bits are converted, colour profiles are followed, alpha
 * is flattened over a background. Only JPEG, PNG and WebP are read (first frame only), told by their first
 * bytes, so that no other loader of the image library meets untrusted input. Needs Node (sharp).
 */
import { readFile, stat } from "node:fs/promises";
import type Sharp from "sharp";
import { asError, PolyheadError } from "../base/errors.js";
import { DTYPES, type NumericArray, type Tensor, tensor } from "../tensor/index.js";
import { type Placement, placeImage } from "./placement.js";
import { channelsOf, inputShape, type Preprocessing } from "./preprocessing.js";

/** An upright image: 8-bit sRGB, rows from the top, red, green and blue of a pixel beside each other. */
export interface Image {
  readonly width: number;
  readonly height: number;
  /** width * height * 3 bytes. */
  readonly rgb: Uint8Array;
}

/** How to decode. */
export interface DecodeOptions {
  /** Most pixels an image may have; 50 million when left out. */
  readonly maxPixels?: number;
  /** Red, green and blue (0..255) that show through transparent pixels; white when left out. */
  readonly background?: readonly [number, number, number];
}

let library: Promise<typeof Sharp> | undefined;

/** sharp, loaded with the first image: a process that is sent tensors has no need of it, and it is large. */
function imageLibrary(): Promise<typeof Sharp> {
  library ??= import("sharp").then((module) => module.default);
  return library;
}

const FORMATS: readonly { name: string; begins: RegExp }[] = [
  { name: "JPEG", begins: /^\xff\xd8\xff/ },
  { name: "PNG", begins: /^\x89PNG\r\n.\n/ },
  { name: "WebP", begins: /^RIFF[\s\S]{4}WEBP/ },
];
const MOST_BYTES = 2 ** 28;

/**
 * The image in the bytes of a JPEG, PNG or WebP file, or in the file at a path.
 * @throws PolyheadError FILE_NOT_FOUND; DATA_MALFORMED when it is no such image or broken; LIMIT_EXCEEDED for
 *   too many pixels, or a file above 256 MiB
 */
export async function decodeImage(source: Uint8Array | string, options: DecodeOptions = {}): Promise<Image> {
  const { maxPixels = 50_000_000, background = [255, 255, 255] } = options;
  const name = typeof source === "string" ? JSON.stringify(source) : "The image";
  const bytes = typeof source === "string" ? await readImageFile(source) : source;
  const start = String.fromCharCode(...bytes.subarray(0, 16));
  if (!FORMATS.some(({ begins }) => begins.test(start))) {
    throw new PolyheadError("DATA_MALFORMED", `${name} is not a JPEG, PNG or WebP file.`, {
      expected: FORMATS.map((format) => format.name),
    });
  }
  try {
    const sharp = await imageLibrary();
    const picture = sharp(bytes, { failOn: "error", limitInputPixels: false });
    const { width, height } = await picture.metadata();
    if (width * height > maxPixels) throw tooLarge(name, width, height, maxPixels);
    const [r, g, b] = background;
    const { data, info } = await picture
      .autoOrient()
      .flatten({ background: { r, g, b } })
      .toColourspace("srgb")
      .raw({ depth: "uchar" })
      .toBuffer({ resolveWithObject: true });
    return { width: info.width, height: info.height, rgb: plain(data) };
  } catch (thrown) {
    if (thrown instanceof PolyheadError) throw thrown;
    const cause = asError(thrown);
    throw new PolyheadError("DATA_MALFORMED", `${name} is broken: ${cause.message}.`, {}, { cause });
  }
}

/**
 * The tensor that a model takes for an image, and where the image lies in it. The shape is that of
 * `inputShape(preprocessing)`.
 */
export async function imageTensor(
  image: Image,
  preprocessing: Preprocessing,
): Promise<{ tensor: Tensor; placement: Placement }> {
  const placement = placeImage(image, preprocessing);
  return { tensor: await viewTensor(image, { placement }, preprocessing), placement };
}

/** A way to show an image to a model: where it lies in the input, then mirrored, then in other colours. */
export interface View {
  readonly placement: Placement;
  /** Left and right of the input are exchanged. */
  readonly isMirrored?: boolean;
  /** Top and bottom of the input are exchanged. */
  readonly isUpsideDown?: boolean;
  /** What becomes of a pixel's red, green and blue, from 0 to 255. */
  readonly colours?: ColourMatrix;
}

/** One row for red, green and blue each: factors of red, green and blue, and a summand. */
export type ColourMatrix = readonly [ColourRow, ColourRow, ColourRow];

/** Factors of red, green and blue, and a summand. */
export type ColourRow = readonly [number, number, number, number];

/** The tensor that a model takes for a view of an image. The shape is that of `inputShape(preprocessing)`. */
export async function viewTensor(image: Image, view: View, preprocessing: Preprocessing): Promise<Tensor> {
  const pixels = await resample(image, view.placement, preprocessing);
  const { width, height } = preprocessing;
  if (view.isMirrored) {
    for (let at = 0; at < pixels.length; at += width * 3) reversePixels(pixels.subarray(at, at + width * 3));
  }
  if (view.isUpsideDown) {
    reversePixels(pixels);
    for (let row = 0; row < height; row++) {
      reversePixels(pixels.subarray(row * width * 3, (row + 1) * width * 3));
    }
  }
  if (view.colours) recolour(pixels, view.colours);
  return normalise(pixels, preprocessing);
}

/** Puts the pixels of a range into the opposite order. */
function reversePixels(rgb: Uint8Array): void {
  rgb.reverse();
  for (let at = 0; at < rgb.length; at += 3) {
    const first = rgb[at] ?? 0;
    rgb[at] = rgb[at + 2] ?? 0;
    rgb[at + 2] = first;
  }
}

function recolour(rgb: Uint8Array, colours: ColourMatrix): void {
  const rounded = new Uint8ClampedArray(rgb.buffer, rgb.byteOffset, rgb.length);
  const [[rr, rg, rb, r0], [gr, gg, gb, g0], [br, bg, bb, b0]] = colours;
  for (let at = 0; at < rgb.length; at += 3) {
    const [red = 0, green = 0, blue = 0] = [rgb[at], rgb[at + 1], rgb[at + 2]];
    rounded[at] = rr * red + rg * green + rb * blue + r0;
    rounded[at + 1] = gr * red + gg * green + gb * blue + g0;
    rounded[at + 2] = br * red + bg * green + bb * blue + b0;
  }
}

/** The image with its sides divided by a factor above 1, at least one pixel each. */
export async function shrinkImage({ width, height, rgb }: Image, factor: number): Promise<Image> {
  const size = {
    width: Math.max(1, Math.round(width / factor)),
    height: Math.max(1, Math.round(height / factor)),
  };
  const sharp = await imageLibrary();
  const data = await sharp(rgb, { raw: { width, height, channels: 3 }, limitInputPixels: false })
    .resize({ ...size, fit: "fill", kernel: "linear" })
    .raw()
    .toBuffer();
  return { ...size, rgb: plain(data) };
}

/** The model's input as 8-bit RGB. */
async function resample(
  { width, height, rgb }: Image,
  { source, target, input }: Placement,
  { kernel, padding }: Preprocessing,
): Promise<Uint8Array> {
  const [r = 0, g = 0, b = 0] = padding;
  const sharp = await imageLibrary();
  const data = await sharp(rgb, { raw: { width, height, channels: 3 }, limitInputPixels: false })
    .extract({ ...source })
    .resize({ width: target.width, height: target.height, fit: "fill", kernel })
    .extend({
      left: target.left,
      top: target.top,
      right: input.width - target.width - target.left,
      bottom: input.height - target.height - target.top,
      background: { r, g, b },
    })
    .raw()
    .toBuffer();
  return plain(data);
}

/** Colour, range, mean, deviation, layout and dtype. */
function normalise(rgb: Uint8Array, preprocessing: Preprocessing): Tensor {
  const { width, height, colour, layout, dtype, range, mean, deviation } = preprocessing;
  const channels = channelsOf(preprocessing);
  const count = width * height;
  const [low = 0, high = 1] = range;
  const { array: Kind } = DTYPES[dtype];
  const data: NumericArray = new Kind(count * channels);
  // A pixel has 256 values, so what they become is worked out once.
  const table: NumericArray = new Kind(256);
  const limit = clamp(table);
  for (let channel = 0; channel < channels; channel++) {
    const divisor = deviation[channel] ?? 1;
    const gain = (high - low) / 255 / divisor;
    const bias = (low - (mean[channel] ?? 0)) / divisor;
    for (let value = 0; value < 256; value++) table[value] = limit(value * gain + bias);
    const from = colour === "bgr" ? 2 - channel : channel;
    const step = layout === "nchw" ? 1 : channels;
    let to = layout === "nchw" ? channel * count : channel;
    for (let at = 0; at < rgb.length; at += 3, to += step) {
      data[to] = table[colour === "grey" ? luma(rgb, at) : (rgb[at + from] ?? 0)] ?? 0;
    }
  }
  return tensor(dtype, inputShape(preprocessing), data);
}

/** Makes a number fit for an array: as it is for floats, else rounded and held within the type's limits. */
function clamp(data: NumericArray): (value: number) => number {
  if (data instanceof Float32Array) return (value) => value;
  const bits = 8 * data.BYTES_PER_ELEMENT;
  const low = data instanceof Uint8Array ? 0 : -(2 ** (bits - 1));
  const high = low + 2 ** bits - 1;
  return (value) => Math.min(high, Math.max(low, Math.round(value)));
}

/** BT.601 luma, as Pillow rounds it. */
function luma(rgb: Uint8Array, at: number): number {
  const [red = 0, green = 0, blue = 0] = [rgb[at], rgb[at + 1], rgb[at + 2]];
  return Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
}

async function readImageFile(path: string): Promise<Uint8Array> {
  try {
    const info = await stat(path);
    if (!info.isFile())
      throw new PolyheadError("FILE_NOT_FOUND", `${JSON.stringify(path)} is not a file.`, { path });
    if (info.size > MOST_BYTES) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        `${JSON.stringify(path)} has ${info.size} bytes; an image may have ${MOST_BYTES}.`,
        { path, got: info.size, limit: MOST_BYTES },
      );
    }
    return await readFile(path);
  } catch (thrown) {
    if (thrown instanceof PolyheadError) throw thrown;
    const cause = asError(thrown);
    throw new PolyheadError(
      "FILE_NOT_FOUND",
      `Cannot read the image: ${cause.message}.`,
      { path },
      { cause },
    );
  }
}

/** The same bytes, without Node's Buffer around them. */
function plain(data: Buffer): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

function tooLarge(name: string, width: number, height: number, limit: number): PolyheadError {
  return new PolyheadError(
    "LIMIT_EXCEEDED",
    `${name} has ${width} x ${height} pixels; the limit is ${limit}. Make it smaller or raise the limit.`,
    { width, height, limit },
  );
}
