/**
 * Zip archives, read: stored or deflated entries, with or without ZIP64. Counts, offsets and sizes are proved against
 * the bytes at hand before anything is allocated, and every checksum is compared; fflate inflates. An archive is one
 * array of bytes in memory. What an entry may inflate to is the caller's to limit, by its size.
 */
import { inflateSync } from "fflate";
import { asError, type PolyheadError } from "./errors.js";

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

/** A file in a zip archive. */
export interface ZipEntry {
  readonly name: string;
  /** Its bytes when read. */
  readonly size: number;
  /** Whether it is stored as it is: reading it takes no memory. */
  readonly stored: boolean;
  /** Its bytes; a view of the archive where it is stored. Throws what the archive's `fail` makes. */
  read(): Uint8Array;
}

/** Makes the error for an archive that is broken for a reason, a clause in words. */
export type ZipFailure = (reason: string, details?: Readonly<Record<string, unknown>>) => PolyheadError;

/** Whether bytes begin as zip archives do. */
export function isZip(bytes: Uint8Array): boolean {
  return bytes.length > 4 && bytes[0] === 0x50 && bytes[1] === 0x4b && bytes[2] === 3 && bytes[3] === 4;
}

/**
 * The archive's entries; their sizes are possible ones and their compressed bytes lie within the file.
 * @throws what `fail` makes
 */
export function zipEntries(bytes: Uint8Array, fail: ZipFailure): ZipEntry[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { count, start } = findDirectory(view, fail);
  if (count > bytes.length / ENTRY.length) throw fail(`it cannot hold ${count} files`, { count });
  const entries: ZipEntry[] = [];
  let at = start;
  for (let index = 0; index < count; index++) {
    if (!hasRecord(view, at, ENTRY)) throw fail("its directory is broken");
    const nameLength = view.getUint16(at + 28, true);
    const extraLength = view.getUint16(at + 30, true);
    const next = at + ENTRY.length + nameLength + extraLength + view.getUint16(at + 32, true);
    if (next > bytes.length) throw fail("its directory is broken");
    const nameAt = at + ENTRY.length;
    const name = new TextDecoder().decode(bytes.subarray(nameAt, nameAt + nameLength));
    const [size = 0, compressedSize = 0, offset = 0] = wideSizes(
      view,
      at,
      nameAt + nameLength,
      extraLength,
      fail,
    );
    const method = view.getUint16(at + 10, true);
    if ((view.getUint16(at + 8, true) & 1) !== 0)
      throw fail(`${JSON.stringify(name)} is encrypted`, { name });
    if (method !== STORED && method !== DEFLATED) {
      throw fail(`${JSON.stringify(name)} is compressed by method ${method}; expected 0 or 8`, {
        name,
        method,
      });
    }
    if (!hasRecord(view, offset, LOCAL))
      throw fail(`${JSON.stringify(name)} is not where it should be`, { name });
    const from =
      offset + LOCAL.length + view.getUint16(offset + 26, true) + view.getUint16(offset + 28, true);
    const possible = method === STORED ? size === compressedSize : size <= compressedSize * MOST_COMPRESSION;
    if (from + compressedSize > bytes.length || !possible) {
      throw fail(`the sizes of ${JSON.stringify(name)} cannot be true`, { name, size, compressedSize });
    }
    const compressed = bytes.subarray(from, from + compressedSize);
    const crc = view.getUint32(at + 16, true);
    const stored = method === STORED;
    entries.push({ name, size, stored, read: () => contents(name, stored, crc, compressed, size, fail) });
    at = next;
  }
  return entries;
}

function findDirectory(view: DataView, fail: ZipFailure): { count: number; start: number } {
  const last = view.byteLength - END.length;
  for (let at = last; at >= Math.max(0, last - END.longestComment); at--) {
    if (!hasRecord(view, at, END)) continue;
    const locator = at - END64_LOCATOR.length;
    if (!hasRecord(view, locator, END64_LOCATOR)) {
      return { count: view.getUint16(at + 10, true), start: view.getUint32(at + 16, true) };
    }
    const end64 = Number(view.getBigUint64(locator + 8, true));
    if (!hasRecord(view, end64, END64)) throw fail("its ZIP64 directory is missing");
    return {
      count: Number(view.getBigUint64(end64 + 32, true)),
      start: Number(view.getBigUint64(end64 + 48, true)),
    };
  }
  throw fail("it has no zip directory; the file may be truncated");
}

/** Size, compressed size and offset of a directory entry, from its ZIP64 field where they do not fit. */
function wideSizes(
  view: DataView,
  at: number,
  extra: number,
  extraLength: number,
  fail: ZipFailure,
): number[] {
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
    if (value + 8 > end) throw fail("its directory is broken");
    value += 8;
    return Number(view.getBigUint64(value - 8, true));
  });
}

function hasRecord(view: DataView, at: number, record: { signature: number; length: number }): boolean {
  return at >= 0 && at + record.length <= view.byteLength && view.getUint32(at, true) === record.signature;
}

function contents(
  name: string,
  stored: boolean,
  crc: number,
  compressed: Uint8Array,
  size: number,
  fail: ZipFailure,
): Uint8Array {
  let file = compressed;
  if (!stored) {
    try {
      file = inflateSync(compressed, { out: new Uint8Array(size) });
    } catch (thrown) {
      throw fail(`${JSON.stringify(name)} cannot be inflated (${asError(thrown).message})`, { name });
    }
  }
  if (file.length !== size || crc32(file) !== crc) {
    throw fail(`the size or checksum of ${JSON.stringify(name)} is wrong`, { name });
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
