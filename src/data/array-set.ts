/**
 * Data sets of arrays: `x` with one row an example and `y` with its class, from a `.npz` file or from the IDX files of
 * MNIST. Nothing is decoded; rows go to the model as they are.
 */
import { createHash } from "node:crypto";
import { gunzipSync } from "fflate";
import { asError } from "../base/errors.js";
import { readFileBytes } from "../files/disk.js";
import { readNpz } from "../tensor/npz.js";
import { formatShape } from "../tensor/shape.js";
import { bytesOf, fromBytes, type Tensor, tensor, toNumbers } from "../tensor/tensor.js";
import { malformedSource } from "./listing.js";

const LARGEST_FILE = 2 ** 30;

/** Rows with one class each. */
export interface ArraySet {
  /** Names of the classes; their numbers where the source has no names. */
  readonly labels: readonly string[];
  /** Float32, one row an example. */
  readonly x: Tensor;
  /** Class of each row. */
  readonly classes: readonly number[];
  /** `sha256:` of labels, `x` and classes. */
  readonly digest: string;
}

/**
 * The arrays `x` [examples, ...] of float32, float64 or uint8 and `y` [examples] of whole numbers in a `.npz` file, with
 * `labels` [classes] of text where it has them. Pixels of uint8 become 0 to 1.
 * @throws PolyheadError FILE_NOT_FOUND; DATA_MALFORMED for other arrays, values that are not finite, fewer than two
 *   classes or a class without an example
 */
export async function readArrayFile(path: string): Promise<ArraySet> {
  const arrays = readNpz(await readFileBytes(path));
  const [x, y, labels] = [arrays.get("x"), arrays.get("y"), arrays.get("labels")];
  if (!x || !y) {
    throw malformedSource(
      path,
      `it has the arrays ${[...arrays.keys()].join(", ") || "none"}; expected x and y`,
    );
  }
  const names = labels && !ArrayBuffer.isView(labels.data) ? labels.data : undefined;
  return arraySet(path, x, y, names);
}

/**
 * The images and labels of two IDX files, as MNIST and Fashion-MNIST come, gzipped or not; pixels become 0 to 1 and
 * images [examples, 1, height, width].
 * @throws PolyheadError FILE_NOT_FOUND, DATA_MALFORMED
 */
export async function readIdxFiles(
  images: string,
  classes: string,
  labels?: readonly string[],
): Promise<ArraySet> {
  const [pixels, y] = await Promise.all([images, classes].map(readIdxFile));
  if (pixels?.shape.length !== 3 || y?.shape.length !== 1) {
    throw malformedSource(
      images,
      `images and classes have the shapes ${formatShape(pixels?.shape ?? [])} and ${formatShape(y?.shape ?? [])}; expected [examples, height, width] and [examples]`,
    );
  }
  const [examples = 0, height = 0, width = 0] = pixels.shape;
  return arraySet(images, tensor("uint8", [examples, 1, height, width], pixels.data), y, labels);
}

/** Element types of IDX by their code; numbers stand in big-endian order. */
const IDX_DTYPES = {
  8: "uint8",
  9: "int8",
  11: "int16",
  12: "int32",
  13: "float32",
  14: "float64",
} as const;

/**
 * The array in an IDX file (yann.lecun.com/exdb/mnist): two zero bytes, the element type, the number of dimensions, the
 * dimensions as big-endian uint32, the elements.
 * @throws PolyheadError FILE_NOT_FOUND; DATA_MALFORMED; LIMIT_EXCEEDED
 */
export async function readIdxFile(path: string): Promise<Tensor> {
  const raw = await readFileBytes(path, LARGEST_FILE);
  const bytes = raw[0] === 0x1f && raw[1] === 0x8b ? gunzipped(path, raw) : raw;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const rank = bytes[3] ?? 0;
  const dtype = Object.entries(IDX_DTYPES).find(([code]) => Number(code) === bytes[2])?.[1];
  const start = 4 + 4 * rank;
  if (bytes[0] !== 0 || bytes[1] !== 0 || !dtype || bytes.length < start) {
    throw malformedSource(path, "it is no IDX file");
  }
  const shape = Array.from({ length: rank }, (_, axis) => view.getUint32(4 + 4 * axis));
  const content = bytes.slice(start);
  const width = { uint8: 1, int8: 1, int16: 2, int32: 4, float32: 4, float64: 8 }[dtype];
  const expected = shape.reduce((product, size) => product * size, width);
  if (content.length !== expected) {
    throw malformedSource(
      path,
      `its header says ${formatShape(shape)} of ${dtype}, ${expected} bytes; it has ${content.length}`,
    );
  }
  for (let at = 0; width > 1 && at < content.length; at += width) content.subarray(at, at + width).reverse();
  return fromBytes(dtype, shape, content);
}

/** What a gzip file holds; its last four bytes say how much that is. */
function gunzipped(path: string, raw: Uint8Array): Uint8Array {
  const end = raw.slice(-4);
  const size = end.length < 4 ? 0 : new DataView(end.buffer).getUint32(0, true);
  if (size > LARGEST_FILE)
    throw malformedSource(path, `it unpacks to ${size} bytes; the limit is ${LARGEST_FILE}`);
  try {
    return gunzipSync(raw, { out: new Uint8Array(size) });
  } catch (thrown) {
    throw malformedSource(path, `it cannot be unpacked (${asError(thrown).message})`);
  }
}

/**
 * A set of rows and classes, checked.
 * @param source names it in errors
 * @throws PolyheadError DATA_MALFORMED
 */
export function arraySet(source: string, x: Tensor, y: Tensor, labels?: readonly string[]): ArraySet {
  const [rows = 0] = x.shape;
  const numbers = y.dtype === "string" ? undefined : toNumbers(y);
  if (x.shape.length < 2 || y.shape.length !== 1 || !numbers || numbers.length !== rows || rows === 0) {
    throw malformedSource(
      source,
      `x is ${x.dtype} ${formatShape(x.shape)} and y ${y.dtype} ${formatShape(y.shape)}; expected [examples, ...] and one class number for each example`,
    );
  }
  const classes = [...numbers];
  const count = labels?.length ?? classes.reduce((most, each) => Math.max(most, each + 1), 0);
  const wrong = classes.findIndex((each) => !Number.isInteger(each) || each < 0 || each >= count);
  if (wrong >= 0) {
    throw malformedSource(
      source,
      `example ${wrong} has the class ${classes[wrong]}; expected a whole number from 0 to ${count - 1}`,
    );
  }
  // Before names are made for classes that cannot all be there.
  if (count > rows)
    throw malformedSource(source, `it has ${rows} examples of ${count} classes; expected some of each`);
  const names = labels ?? Array.from({ length: count }, (_, at) => String(at));
  const present = new Set(classes);
  const empty = names.filter((_, at) => !present.has(at));
  if (names.length < 2) throw malformedSource(source, "it has one class; expected at least two");
  if (empty.length > 0)
    throw malformedSource(source, `no example of the classes ${empty.slice(0, 10).join(", ")}`);
  const floats = asFloats(source, x);
  const hash = createHash("sha256")
    .update(JSON.stringify([names, x.shape, classes]))
    .update(bytesOf(floats));
  return { labels: names, x: floats, classes, digest: `sha256:${hash.digest("hex")}` };
}

function asFloats(source: string, x: Tensor): Tensor {
  if (x.dtype !== "float32" && x.dtype !== "float64" && x.dtype !== "uint8") {
    throw malformedSource(source, `x is ${x.dtype}; expected float32, float64 or uint8`);
  }
  const values = Float32Array.from(x.data as ArrayLike<number>);
  if (x.dtype === "uint8") {
    for (let at = 0; at < values.length; at++) values[at] = (values[at] ?? 0) / 255;
  }
  const wrong = values.findIndex((value) => !Number.isFinite(value));
  if (wrong < 0) return tensor("float32", x.shape, values);
  const width = values.length / (x.shape[0] ?? 1);
  throw malformedSource(source, `example ${Math.floor(wrong / width)} has the value ${values[wrong]}`);
}
