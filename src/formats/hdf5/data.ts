/** The elements of data sets and attributes: stored in one piece, in the header, or in chunks that filters packed. */
import { unzlibSync } from "fflate";
import { PolyheadError } from "../../base/errors.js";
import { DTYPES } from "../../tensor/dtype.js";
import { elementCount } from "../../tensor/shape.js";
import { fromBytes, type Tensor } from "../../tensor/tensor.js";
import type { Hdf5Type } from "./datatype.js";
import { readGlobal } from "./heap.js";
import { brokenHdf5, type Cursor, decode, type Hdf5Bytes, unsupportedHdf5 } from "./reader.js";
import { oldTree } from "./tree.js";

/** Deflate cannot shrink data by more. */
const MOST_COMPRESSION = 1032;
/** Elements that nothing stores are all zero; more bytes of them than this are refused. */
const MOST_UNSTORED = 2 ** 24;

/** Where the elements of a data set lie. */
export type Layout =
  | { readonly kind: "here"; readonly bytes: Uint8Array }
  | { readonly kind: "piece"; readonly address: number | undefined; readonly size: number }
  | { readonly kind: "chunks"; readonly tree: number | undefined; readonly chunk: readonly number[] };

/** One step that packed a chunk. */
export interface Filter {
  readonly id: number;
  readonly values: readonly number[];
}

/** Reads where elements lie. */
export function readLayout(cursor: Cursor): Layout {
  const version = cursor.u8();
  if (version === 3) return readLayout3(cursor);
  if (version === 4) throw unsupportedHdf5("a layout of the newest version (save without libver='latest')");
  if (version !== 1 && version !== 2) throw brokenHdf5(`a layout has the version ${version}`);
  const rank = cursor.u8();
  const kind = cursor.u8();
  cursor.skip(5);
  if (kind === 0) {
    cursor.skip(4 * rank);
    return { kind: "here", bytes: cursor.take(cursor.u32()) };
  }
  const address = cursor.address();
  const sizes = Array.from({ length: rank }, () => cursor.u32());
  if (kind === 1) return { kind: "piece", address, size: Number.NaN };
  return { kind: "chunks", tree: address, chunk: sizes.slice(0, -1) };
}

function readLayout3(cursor: Cursor): Layout {
  const kind = cursor.u8();
  if (kind === 0) return { kind: "here", bytes: cursor.take(cursor.u16()) };
  if (kind === 1) return { kind: "piece", address: cursor.address(), size: cursor.length() };
  if (kind !== 2) throw unsupportedHdf5("data that is stored in other files");
  const rank = cursor.u8();
  const tree = cursor.address();
  const sizes = Array.from({ length: rank }, () => cursor.u32());
  return { kind: "chunks", tree, chunk: sizes.slice(0, -1) };
}

/** Reads which steps packed the chunks. */
export function readFilters(cursor: Cursor): Filter[] {
  const version = cursor.u8();
  const count = cursor.u8();
  if (version === 1) cursor.skip(6);
  else if (version !== 2) throw unsupportedHdf5("filters of a newer version");
  return Array.from({ length: count }, () => {
    const id = cursor.u16();
    const nameLength = version === 1 || id >= 256 ? cursor.u16() : 0;
    cursor.u16();
    const values = cursor.u16();
    cursor.skip(version === 1 ? Math.ceil(nameLength / 8) * 8 : nameLength);
    const filter = { id, values: Array.from({ length: values }, () => cursor.u32()) };
    if (version === 1 && values % 2 === 1) cursor.skip(4);
    return filter;
  });
}

/** The bytes of all elements, in row-major order. */
export function readBytes(
  file: Hdf5Bytes,
  shape: readonly number[],
  type: Hdf5Type,
  layout: Layout,
  filters: readonly Filter[],
): Uint8Array {
  const size = elementCount(shape) * type.size;
  if (layout.kind === "here") return exactly(layout.bytes, size);
  if (layout.kind === "piece") {
    if (layout.address === undefined) return unstored(size);
    if (!Number.isNaN(layout.size) && layout.size < size)
      throw brokenHdf5("a data set is shorter than its shape");
    return file.at(layout.address).take(size);
  }
  if (layout.tree === undefined) return unstored(size);
  if (size > file.bytes.length * MOST_COMPRESSION + MOST_UNSTORED)
    throw brokenHdf5(`a data set of ${size} bytes does not fit into the file`);
  return readChunks(file, shape, type.size, layout.tree, layout.chunk, filters);
}

function exactly(bytes: Uint8Array, size: number): Uint8Array {
  if (bytes.length < size) throw brokenHdf5("a data set is shorter than its shape");
  return bytes.subarray(0, size);
}

function unstored(size: number): Uint8Array {
  if (size <= MOST_UNSTORED) return new Uint8Array(size);
  throw new PolyheadError(
    "LIMIT_EXCEEDED",
    `The HDF5 file has a data set of ${size} bytes of which it stores none.`,
    {
      size,
      limit: MOST_UNSTORED,
    },
  );
}

function readChunks(
  file: Hdf5Bytes,
  shape: readonly number[],
  elementSize: number,
  tree: number,
  chunk: readonly number[],
  filters: readonly Filter[],
): Uint8Array {
  const rank = shape.length;
  if (rank === 0 || chunk.length !== rank || chunk.some((each) => each < 1))
    throw brokenHdf5("chunks have impossible sizes");
  const chunkBytes = elementCount(chunk) * elementSize;
  const size = elementCount(shape) * elementSize;
  const most = shape.reduce((product, each, axis) => product * Math.ceil(each / (chunk[axis] ?? 1)), 1);
  if (chunkBytes > 2 ** 31) throw brokenHdf5(`a chunk has ${chunkBytes} bytes`);
  const key = (cursor: Cursor) => {
    const stored = cursor.u32();
    const mask = cursor.u32();
    const at = Array.from({ length: rank }, () => cursor.uint(8));
    cursor.skip(8);
    return { stored, mask, at };
  };
  const found: { stored: number; mask: number; at: readonly number[]; child: number }[] = [];
  let bytes = 0;
  for (const { key: own, child } of oldTree(file, tree, 1, key)) {
    found.push({ ...own, child });
    bytes += own.stored;
    if (found.length > most || bytes > file.bytes.length)
      throw brokenHdf5("a data set has more chunks than fit");
  }
  if (size > bytes * MOST_COMPRESSION + MOST_UNSTORED)
    throw brokenHdf5("a data set has too few chunks for its size");
  const result = new Uint8Array(size);
  for (const { stored, mask, at, child } of found) {
    const packed = file.at(child).take(stored);
    place(result, shape, unpack(packed, filters, mask, chunkBytes, elementSize), chunk, at, elementSize);
  }
  return result;
}

/** Undoes the filters, the last one first. */
function unpack(
  packed: Uint8Array,
  filters: readonly Filter[],
  mask: number,
  size: number,
  elementSize: number,
): Uint8Array {
  let bytes = packed;
  for (const [index, { id, values }] of [...filters.entries()].reverse()) {
    if (mask & (1 << index)) continue;
    if (id === 1) bytes = inflate(bytes, size + 4);
    else if (id === 2) bytes = unshuffle(bytes, values[0] ?? elementSize);
    else if (id === 3) bytes = bytes.subarray(0, Math.max(bytes.length - 4, 0));
    else throw unsupportedHdf5(`the compression filter ${id} (save with gzip or without compression)`);
  }
  if (bytes.length < size) throw brokenHdf5("a chunk is shorter than it should be");
  return bytes;
}

/** Inflates into a buffer of the size that a chunk has, so that no more is ever taken. */
function inflate(bytes: Uint8Array, most: number): Uint8Array {
  try {
    return unzlibSync(bytes, { out: new Uint8Array(most) });
  } catch (cause) {
    throw brokenHdf5(
      `a chunk cannot be unpacked (${cause instanceof Error ? cause.message : String(cause)})`,
    );
  }
}

/** Shuffling put the first bytes of all elements first, then the second ones, and so on. */
function unshuffle(bytes: Uint8Array, size: number): Uint8Array {
  if (size <= 1) return bytes;
  const count = Math.floor(bytes.length / size);
  const result = bytes.slice();
  for (let part = 0; part < size; part++) {
    for (let index = 0; index < count; index++)
      result[index * size + part] = bytes[part * count + index] ?? 0;
  }
  return result;
}

/** Copies the part of a chunk that lies within the shape, row by row. */
function place(
  result: Uint8Array,
  shape: readonly number[],
  bytes: Uint8Array,
  chunk: readonly number[],
  at: readonly number[],
  elementSize: number,
): void {
  if (at.some((start, axis) => !(start >= 0 && start < (shape[axis] ?? 0)))) return;
  const last = shape.length - 1;
  const span = Math.min(chunk[last] ?? 1, (shape[last] ?? 1) - (at[last] ?? 0)) * elementSize;
  const counts = shape.slice(0, last).map((full, axis) => Math.min(chunk[axis] ?? 1, full - (at[axis] ?? 0)));
  const rows = elementCount(counts);
  for (let row = 0; row < rows; row++) {
    let [rest, from, to, own, all] = [row, 0, at[last] ?? 0, chunk[last] ?? 1, shape[last] ?? 1];
    for (let axis = last - 1; axis >= 0; axis--) {
      const index = rest % (counts[axis] ?? 1);
      rest = Math.floor(rest / (counts[axis] ?? 1));
      from += index * own;
      to += (index + (at[axis] ?? 0)) * all;
      own *= chunk[axis] ?? 1;
      all *= shape[axis] ?? 1;
    }
    result.set(bytes.subarray(from * elementSize, from * elementSize + span), to * elementSize);
  }
}

/** Elements as a tensor: numbers in the machine's byte order. */
export function asTensor(bytes: Uint8Array, shape: readonly number[], type: Hdf5Type): Tensor {
  if (type.kind !== "number") throw unsupportedHdf5(type.kind === "other" ? type.what : "texts as numbers");
  const swapped = type.isBigEndian && type.size > 1 ? reversed(bytes, type.size) : bytes;
  return fromBytes(
    type.dtype,
    shape,
    DTYPES[type.dtype].array.BYTES_PER_ELEMENT === type.size ? swapped : bytes,
  );
}

function reversed(bytes: Uint8Array, size: number): Uint8Array {
  const result = new Uint8Array(bytes.length);
  for (let index = 0; index < bytes.length; index++) {
    const within = index % size;
    result[index] = bytes[index - within + size - 1 - within] ?? 0;
  }
  return result;
}

/** Elements as texts; padding with zeros is taken off. */
export function asTexts(file: Hdf5Bytes, bytes: Cursor, count: number, type: Hdf5Type): string[] {
  if (type.kind === "anyText") return Array.from({ length: count }, () => readGlobal(file, bytes));
  if (type.kind !== "text") throw unsupportedHdf5(type.kind === "other" ? type.what : "numbers as texts");
  return Array.from({ length: count }, () => decode(bytes.take(type.size)).replace(/\0[\s\S]*$/, ""));
}
