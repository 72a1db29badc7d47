/**
 * NumPy's archive of named arrays: a zip of `.npy` files, stored or deflated, with or without ZIP64. The
 * directory is read here, so that counts, offsets and sizes are proved against the bytes at hand before
 * anything is allocated and every checksum is compared; fflate inflates and writes. An archive is one
 * array of bytes in memory, so nothing beyond 4 GiB is written.
 */
import { inflateSync, zipSync } from "fflate";
import { asError, PolyheadError } from "../base/errors.js";
import { readNpy, writeNpy } from "./npy.js";
import type { Tensor } from "./tensor.js";

const END = { signature: 0x06054b50, length: 22, longestComment: 0xffff };
const END64_LOCATOR = { signature: 0x07064b50, length: 20 };
const END64 = { signature: 0x06064b50, length: 56 };
const ENTRY = { signature: 0x02014b50, length: 46 };
const LOCAL = { signature: 0x04034b50, length: 30 };
const STORED = 0;
const DEFLATED = 8;
const IN_ZIP64 = 0xffffffff;
const ZIP64_FIELD = 1;
/** Deflate cannot shrink data by more. */
const MOST_COMPRESSION = 1032;

/** Limits on reading. */
export interface NpzLimits {
  /** Most bytes that all deflated arrays may have together when inflated; 512 MiB when left out. */
  readonly inflatedBytes?: number;
}

interface Entry {
  readonly name: string;
  readonly method: number;
  readonly crc: number;
  readonly compressed: Uint8Array;
  readonly size: number;
}

/**
 * The arrays of a `.npz` file by name, in the order of the file. Stored arrays may be views that keep
 * `bytes` alive.
 * @throws PolyheadError DATA_MALFORMED; LIMIT_EXCEEDED when the arrays inflate to more than the limit
 */
export function readNpz(bytes: Uint8Array, { inflatedBytes = 2 ** 29 }: NpzLimits = {}): Map<string, Tensor> {
  const entries = readDirectory(bytes);
  const inflated = entries.reduce((sum, { method, size }) => sum + (method === STORED ? 0 : size), 0);
  if (inflated > inflatedBytes) {
    throw new PolyheadError(
      "LIMIT_EXCEEDED",
      `The .npz file inflates to ${inflated} bytes; the limit is ${inflatedBytes}. Write it without compression (numpy.savez) or raise the limit.`,
      { got: inflated, limit: inflatedBytes },
    );
  }
  const arrays = new Map<string, Tensor>();
  for (const entry of entries) {
    if (!entry.name.endsWith(".npy")) throw malformed(`${JSON.stringify(entry.name)} is not a .npy file`);
    const name = entry.name.slice(0, -".npy".length);
    if (arrays.has(name)) throw malformed(`it has two arrays named ${JSON.stringify(name)}`, { name });
    arrays.set(name, readNpy(contents(entry)));
  }
  return arrays;
}

/**
 * The bytes of a `.npz` file with these arrays, stored as `numpy.savez` does.
 * @throws PolyheadError INVALID_ARGUMENT for a dtype that NumPy has not; LIMIT_EXCEEDED beyond 4 GiB
 */
export function writeNpz(arrays: ReadonlyMap<string, Tensor> | Readonly<Record<string, Tensor>>): Uint8Array {
  const files: Record<string, Uint8Array> = {};
  let size = 0;
  for (const [name, value] of arrays instanceof Map ? arrays : Object.entries(arrays)) {
    const file = writeNpy(value);
    size += file.length + 2 * (name.length * 3 + ENTRY.length + LOCAL.length);
    if (size >= IN_ZIP64) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        "The arrays have more than 4 GiB; write them to several .npz files.",
        {
          limit: IN_ZIP64,
        },
      );
    }
    files[`${name}.npy`] = file;
  }
  // NumPy's date, so that equal arrays give equal bytes.
  return zipSync(files, { level: 0, mtime: new Date(1980, 0, 1) });
}

/** The archive's entries; their sizes are possible ones and their compressed bytes lie within the file. */
function readDirectory(bytes: Uint8Array): Entry[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { count, start } = findDirectory(view);
  if (count > bytes.length / ENTRY.length) throw malformed(`it cannot hold ${count} files`, { count });
  const entries: Entry[] = [];
  let at = start;
  for (let index = 0; index < count; index++) {
    if (!hasRecord(view, at, ENTRY)) throw malformed("its directory is broken");
    const nameLength = view.getUint16(at + 28, true);
    const extraLength = view.getUint16(at + 30, true);
    const next = at + ENTRY.length + nameLength + extraLength + view.getUint16(at + 32, true);
    if (next > bytes.length) throw malformed("its directory is broken");
    const nameAt = at + ENTRY.length;
    const name = new TextDecoder().decode(bytes.subarray(nameAt, nameAt + nameLength));
    const [size = 0, compressedSize = 0, offset = 0] = wideSizes(view, at, nameAt + nameLength, extraLength);
    const method = view.getUint16(at + 10, true);
    if ((view.getUint16(at + 8, true) & 1) !== 0)
      throw malformed(`${JSON.stringify(name)} is encrypted`, { name });
    if (method !== STORED && method !== DEFLATED) {
      throw malformed(`${JSON.stringify(name)} is compressed by method ${method}; expected 0 or 8`, {
        name,
        method,
      });
    }
    if (!hasRecord(view, offset, LOCAL))
      throw malformed(`${JSON.stringify(name)} is not where it should be`, { name });
    const from =
      offset + LOCAL.length + view.getUint16(offset + 26, true) + view.getUint16(offset + 28, true);
    const possible = method === STORED ? size === compressedSize : size <= compressedSize * MOST_COMPRESSION;
    if (from + compressedSize > bytes.length || !possible) {
      throw malformed(`the sizes of ${JSON.stringify(name)} cannot be true`, { name, size, compressedSize });
    }
    const compressed = bytes.subarray(from, from + compressedSize);
    entries.push({ name, method, crc: view.getUint32(at + 16, true), compressed, size });
    at = next;
  }
  return entries;
}

function findDirectory(view: DataView): { count: number; start: number } {
  const last = view.byteLength - END.length;
  for (let at = last; at >= Math.max(0, last - END.longestComment); at--) {
    if (!hasRecord(view, at, END)) continue;
    const locator = at - END64_LOCATOR.length;
    if (!hasRecord(view, locator, END64_LOCATOR)) {
      return { count: view.getUint16(at + 10, true), start: view.getUint32(at + 16, true) };
    }
    const end64 = Number(view.getBigUint64(locator + 8, true));
    if (!hasRecord(view, end64, END64)) throw malformed("its ZIP64 directory is missing");
    return {
      count: Number(view.getBigUint64(end64 + 32, true)),
      start: Number(view.getBigUint64(end64 + 48, true)),
    };
  }
  throw malformed("it has no zip directory; the file may be truncated");
}

/** Size, compressed size and offset of a directory entry, from its ZIP64 field where they do not fit. */
function wideSizes(view: DataView, at: number, extra: number, extraLength: number): number[] {
  const narrow = [
    view.getUint32(at + 24, true),
    view.getUint32(at + 20, true),
    view.getUint32(at + 42, true),
  ];
  if (!narrow.includes(IN_ZIP64)) return narrow;
  const end = extra + extraLength;
  let field = extra;
  while (field + 4 <= end && view.getUint16(field, true) !== ZIP64_FIELD)
    field += 4 + view.getUint16(field + 2, true);
  let value = field + 4;
  return narrow.map((number) => {
    if (number !== IN_ZIP64) return number;
    if (value + 8 > end) throw malformed("its directory is broken");
    value += 8;
    return Number(view.getBigUint64(value - 8, true));
  });
}

function hasRecord(view: DataView, at: number, record: { signature: number; length: number }): boolean {
  return at >= 0 && at + record.length <= view.byteLength && view.getUint32(at, true) === record.signature;
}

function contents({ name, method, crc, compressed, size }: Entry): Uint8Array {
  let file = compressed;
  if (method === DEFLATED) {
    try {
      file = inflateSync(compressed, { out: new Uint8Array(size) });
    } catch (thrown) {
      throw malformed(`${JSON.stringify(name)} cannot be inflated (${asError(thrown).message})`, { name });
    }
  }
  if (file.length !== size || crc32(file) !== crc) {
    throw malformed(`the size or checksum of ${JSON.stringify(name)} is wrong`, { name });
  }
  return file;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (let index = 0; index < bytes.length; index++) {
    crc = (CRC_TABLE[(crc ^ (bytes[index] ?? 0)) & 0xff] ?? 0) ^ (crc >>> 8);
  }
  return ~crc >>> 0;
}

function malformed(reason: string, details: Readonly<Record<string, unknown>> = {}): PolyheadError {
  return new PolyheadError("DATA_MALFORMED", `This .npz file cannot be read: ${reason}.`, details);
}
