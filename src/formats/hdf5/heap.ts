/** Heaps: texts of any length (global), names of old groups (local), links and attributes of new ones (fractal). */
import { brokenHdf5, type Cursor, decode, type Hdf5Bytes, unsupportedHdf5 } from "./reader.js";

/** The object of a global heap that a cursor stands before: length, collection, index. */
export function readGlobal(file: Hdf5Bytes, cursor: Cursor): string {
  const length = cursor.u32();
  const address = cursor.address();
  const index = cursor.u32();
  if (length === 0 || address === undefined || address === 0) return "";
  const collection = file.at(address);
  collection.signature("GCOL", "a heap of texts");
  collection.skip(4);
  const size = collection.length();
  const head = 8 + file.lengthSize;
  const objects = collection.part(Math.max(size - head, 0));
  while (objects.left >= 8 + file.lengthSize) {
    file.count();
    const own = objects.u16();
    objects.skip(6);
    const bytes = objects.length();
    if (own === 0) break;
    if (own === index) {
      if (length > bytes) throw brokenHdf5("a text is longer than its place");
      return decode(objects.take(length));
    }
    objects.skip(Math.min(Math.ceil(bytes / 8) * 8, objects.left));
  }
  throw brokenHdf5(`a heap of texts has no object ${index}`);
}

/** Where the names of an old group lie. */
export function localHeap(file: Hdf5Bytes, address: number): (offset: number) => string {
  const cursor = file.at(address);
  cursor.signature("HEAP", "a heap of names");
  cursor.skip(4);
  const size = cursor.length();
  cursor.length();
  const start = cursor.someAddress("a heap of names");
  return (offset) => {
    if (offset >= size) throw brokenHdf5("a name lies outside of its heap");
    const names = file.at(start).part(size);
    names.skip(offset);
    return names.cString();
  };
}

/** Objects of a fractal heap, by the identifiers that trees hold. */
export class FractalHeap {
  readonly #file: Hdf5Bytes;
  readonly #width: number;
  readonly #startSize: number;
  readonly #largestDirect: number;
  readonly #heapBits: number;
  readonly #lengthBytes: number;
  readonly #root: number | undefined;
  readonly #rows: number;
  readonly #blockHead: number;

  constructor(file: Hdf5Bytes, address: number) {
    this.#file = file;
    const cursor = file.at(address);
    cursor.signature("FRHP", "a heap");
    cursor.skip(1);
    cursor.u16();
    if (cursor.u16() > 0) throw unsupportedHdf5("heaps with filters");
    const flags = cursor.u8();
    const largestManaged = cursor.u32();
    cursor.skip(file.lengthSize + file.offsetSize + file.lengthSize + file.offsetSize);
    cursor.skip(8 * file.lengthSize);
    this.#width = cursor.u16();
    this.#startSize = cursor.length();
    this.#largestDirect = cursor.length();
    this.#heapBits = cursor.u16();
    cursor.u16();
    this.#root = cursor.address();
    this.#rows = cursor.u16();
    const offsetBytes = Math.ceil(this.#heapBits / 8);
    this.#blockHead = 5 + file.offsetSize + offsetBytes + (flags & 2 ? 4 : 0);
    const bits = Math.min(largestManaged, this.#largestDirect);
    this.#lengthBytes = Math.max(1, Math.ceil((Math.floor(Math.log2(Math.max(bits, 1))) + 1) / 8));
    const isSane =
      this.#width > 0 &&
      this.#startSize > 0 &&
      this.#largestDirect >= this.#startSize &&
      this.#heapBits <= 64;
    if (!isSane) throw brokenHdf5("a heap has impossible sizes");
  }

  /** A cursor over the object that an identifier means. */
  object(id: Cursor): Cursor {
    if ((id.u8() >> 4) % 4 !== 0)
      throw unsupportedHdf5("links or attributes that are too large for their heap");
    const offset = id.uint(Math.ceil(this.#heapBits / 8));
    const length = id.uint(this.#lengthBytes);
    if (this.#root === undefined) throw brokenHdf5("a heap without content is read");
    if (this.#rows === 0) return this.#inBlock(this.#root, offset, 0, length);
    return this.#inIndirect(this.#root, this.#rows, 0, offset, length, 0);
  }

  #inBlock(address: number, offset: number, start: number, length: number): Cursor {
    const block = this.#file.at(address);
    block.signature("FHDB", "a block of a heap");
    // Offsets count the head of the block as well.
    const block0 = this.#file.at(address);
    if (offset - start < this.#blockHead) throw brokenHdf5("an object lies in the head of its block");
    block0.skip(offset - start);
    return block0.part(length);
  }

  #inIndirect(
    address: number,
    rows: number,
    start: number,
    offset: number,
    length: number,
    depth: number,
  ): Cursor {
    if (depth > 16) throw brokenHdf5("a heap is nested too deeply");
    const cursor = this.#file.at(address);
    cursor.signature("FHIB", "a block of a heap");
    cursor.skip(1 + this.#file.offsetSize + Math.ceil(this.#heapBits / 8));
    let place = start;
    for (let row = 0; row < rows; row++) {
      const size = this.#startSize * 2 ** Math.max(row - 1, 0);
      for (let column = 0; column < this.#width; column++) {
        this.#file.count();
        const child = cursor.address();
        if (offset >= place && offset < place + size) {
          if (child === undefined) throw brokenHdf5("an object lies in a missing block of its heap");
          if (size <= this.#largestDirect) return this.#inBlock(child, offset, place, length);
          const inner = Math.floor(Math.log2(size / (this.#startSize * this.#width))) + 1;
          return this.#inIndirect(child, inner, place, offset, length, depth + 1);
        }
        place += size;
      }
    }
    throw brokenHdf5("an object lies outside of its heap");
  }
}
