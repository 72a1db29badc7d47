/**
 * The bytes of an HDF5 file and where its reader stands in them. Every read is checked against the end of the
 * file, and every structure that is entered counts against a budget, so that a file whose parts point at each
 * other ends in an error instead of never.
 */
import { PolyheadError } from "../../base/errors.js";

/** Structures (headers, nodes of trees, heaps, chunks) that one file may make its reader enter. */
const MOST_STRUCTURES = 2_000_000;

/** The error for an HDF5 file that breaks its format. */
export function brokenHdf5(reason: string, details: Readonly<Record<string, unknown>> = {}): PolyheadError {
  return new PolyheadError(
    "MODEL_MALFORMED",
    `The HDF5 file is broken: ${reason}. Fetch or save it again.`,
    details,
  );
}

/** The error for parts of HDF5 that are not read. */
export function unsupportedHdf5(what: string): PolyheadError {
  return new PolyheadError("MODEL_UNSUPPORTED", `The HDF5 file uses ${what}, which is not read.`, {
    got: what,
  });
}

/** A file's bytes with the widths that its superblock states. */
export class Hdf5Bytes {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Bytes of an address and of a length. */
  offsetSize = 8;
  lengthSize = 8;
  /** What addresses count from. */
  base = 0;
  #entered = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /**
   * A cursor at an address.
   * @throws PolyheadError MODEL_MALFORMED outside of the file, LIMIT_EXCEEDED when too much was entered
   */
  at(address: number): Cursor {
    this.count();
    return new Cursor(this, this.base + address, this.bytes.length);
  }

  /**
   * Counts one structure.
   * @throws PolyheadError LIMIT_EXCEEDED
   */
  count(): void {
    if (++this.#entered <= MOST_STRUCTURES) return;
    throw new PolyheadError(
      "LIMIT_EXCEEDED",
      `The HDF5 file has more than ${MOST_STRUCTURES} parts, or parts in a circle.`,
      {
        limit: MOST_STRUCTURES,
      },
    );
  }
}

/** A place in the file that moves as it is read. */
export class Cursor {
  readonly file: Hdf5Bytes;
  readonly end: number;
  position: number;

  constructor(file: Hdf5Bytes, position: number, end: number) {
    if (!(position >= 0 && position <= end && end <= file.bytes.length))
      throw brokenHdf5(`it refers to byte ${position} of ${file.bytes.length}`, { position });
    this.file = file;
    this.position = position;
    this.end = end;
  }

  /** Bytes that are left. */
  get left(): number {
    return this.end - this.position;
  }

  /** Moves on, and says where it stood. */
  skip(count: number): number {
    const start = this.position;
    if (!(count >= 0 && count <= this.left)) throw brokenHdf5(`a part of it ends early, at byte ${this.end}`);
    this.position += count;
    return start;
  }

  /** Moves on to the next multiple of eight from a start. */
  align(start: number): void {
    this.skip(Math.min((8 - ((this.position - start) % 8)) % 8, this.left));
  }

  u8(): number {
    return this.file.view.getUint8(this.skip(1));
  }

  u16(): number {
    return this.file.view.getUint16(this.skip(2), true);
  }

  u32(): number {
    return this.file.view.getUint32(this.skip(4), true);
  }

  /** An unsigned number of any width up to eight bytes; those above 2^53 are not exact, and out of any file. */
  uint(width: number): number {
    let [value, factor] = [0, 1];
    for (let left = width; left > 0; left--) {
      value += this.u8() * factor;
      factor *= 256;
    }
    return value;
  }

  /** An address; undefined for the one that means none. */
  address(): number | undefined {
    const value = this.uint(this.file.offsetSize);
    return value >= 256 ** this.file.offsetSize - 2 ** 11 ? undefined : value;
  }

  /** An address that must be there. */
  someAddress(what: string): number {
    const address = this.address();
    if (address === undefined) throw brokenHdf5(`it does not say where ${what} is`);
    return address;
  }

  length(): number {
    return this.uint(this.file.lengthSize);
  }

  take(count: number): Uint8Array {
    const start = this.skip(count);
    return this.file.bytes.subarray(start, start + count);
  }

  /** A part of what is left as a cursor of its own. */
  part(count: number): Cursor {
    const start = this.skip(count);
    return new Cursor(this.file, start, start + count);
  }

  /** Requires four letters. */
  signature(expected: string, what: string): void {
    const got = String.fromCharCode(...this.take(4));
    if (got !== expected) throw brokenHdf5(`expected ${what} at byte ${this.position - 4}`, { expected });
  }

  /** A text up to its first zero byte. */
  cString(): string {
    const start = this.position;
    const end = this.file.bytes.indexOf(0, start);
    if (end < 0 || end >= this.end) throw brokenHdf5("a name has no end");
    this.position = end + 1;
    return decode(this.file.bytes.subarray(start, end));
  }
}

const UTF8 = new TextDecoder();

/** Bytes as text. */
export function decode(bytes: Uint8Array): string {
  return UTF8.decode(bytes);
}
