/**
 * HDF5 files, read: groups, attributes and data sets as Keras and h5py write them, in memory and without running
 * anything. Everything is found by path when it is asked for, within the bounds of reader.ts.
 * Format: "HDF5 File Format Specification Version 3.0", The HDF Group.
 * Limits: no layouts of version 4 (`libver="latest"`), records, references, filters but gzip, shuffle and Fletcher32.
 */
import { elementCount } from "../../tensor/shape.js";
import type { Tensor } from "../../tensor/tensor.js";
import { asTensor, asTexts, readBytes, readFilters, readLayout } from "./data.js";
import { type Hdf5Type, readShape, readType } from "./datatype.js";
import { FractalHeap, localHeap } from "./heap.js";
import { MESSAGE, type Message, open, readMessages } from "./object-header.js";
import { brokenHdf5, Cursor, decode, Hdf5Bytes, unsupportedHdf5 } from "./reader.js";
import { newTree, oldTree } from "./tree.js";

const SIGNATURE = [0x89, 0x48, 0x44, 0x46, 0x0d, 0x0a, 0x1a, 0x0a];

/** Where a superblock may begin. */
function signatureAt(bytes: Uint8Array): number | undefined {
  for (let at = 0; at + 8 <= bytes.length; at = at === 0 ? 512 : at * 2) {
    if (SIGNATURE.every((byte, index) => bytes[at + index] === byte)) return at;
  }
  return undefined;
}

/** Whether bytes are an HDF5 file. */
export function isHdf5(bytes: Uint8Array): boolean {
  return signatureAt(bytes) !== undefined;
}

/**
 * The root of a file.
 * @throws PolyheadError MODEL_MALFORMED, MODEL_UNSUPPORTED
 */
export function openHdf5(bytes: Uint8Array): Hdf5Object {
  const start = signatureAt(bytes);
  if (start === undefined) throw brokenHdf5("it does not begin as HDF5 files do");
  const file = new Hdf5Bytes(bytes);
  const cursor = new Cursor(file, start + 8, bytes.length);
  const version = cursor.u8();
  if (version > 3) throw unsupportedHdf5(`a superblock of version ${version}`);
  if (version >= 2) {
    setWidths(file, cursor.u8(), cursor.u8());
    cursor.skip(1);
    file.base = cursor.uint(file.offsetSize);
    cursor.skip(2 * file.offsetSize);
    return new Hdf5Object(file, cursor.someAddress("the root group"));
  }
  cursor.skip(4);
  setWidths(file, cursor.u8(), cursor.u8());
  cursor.skip(1 + 2 + 2 + 4 + (version === 1 ? 4 : 0));
  file.base = cursor.uint(file.offsetSize);
  cursor.skip(3 * file.offsetSize);
  cursor.skip(file.offsetSize);
  return new Hdf5Object(file, cursor.someAddress("the root group"));
}

function setWidths(file: Hdf5Bytes, offsets: number, lengths: number): void {
  if (![2, 4, 8].includes(offsets) || ![2, 4, 8].includes(lengths))
    throw brokenHdf5(`addresses of ${offsets} and lengths of ${lengths} bytes`);
  file.offsetSize = offsets;
  file.lengthSize = lengths;
}

/** A group or a data set. */
export class Hdf5Object {
  readonly #file: Hdf5Bytes;
  readonly #messages: readonly Message[];
  #links: ReadonlyMap<string, number> | undefined;

  constructor(file: Hdf5Bytes, address: number) {
    this.#file = file;
    this.#messages = readMessages(file, address);
  }

  /** Names of what a group holds, sorted; empty for a data set. */
  get names(): string[] {
    return [...this.#children().keys()].sort();
  }

  /** Whether it has elements. */
  get isDataset(): boolean {
    return this.#messages.some(({ kind }) => kind === MESSAGE.layout);
  }

  /** What a path leads to, from here; undefined when it leads nowhere. */
  find(path: string): Hdf5Object | undefined {
    let found: Hdf5Object = this;
    for (const name of path.split("/").filter((part) => part !== "")) {
      const address: number | undefined = found.#children().get(name);
      if (address === undefined) return undefined;
      found = new Hdf5Object(this.#file, address);
    }
    return found;
  }

  /** Shape of a data set. */
  get shape(): readonly number[] {
    return readShape(this.#one(MESSAGE.dataspace, "shape")) ?? [0];
  }

  /**
   * The numbers of a data set.
   * @throws PolyheadError MODEL_UNSUPPORTED for other elements, MODEL_MALFORMED, LIMIT_EXCEEDED
   */
  tensor(): Tensor {
    const shape = this.shape;
    const type = readType(this.#one(MESSAGE.datatype, "data type"));
    const layout = readLayout(this.#one(MESSAGE.layout, "layout"));
    const packed = this.#messages.find(({ kind }) => kind === MESSAGE.filters);
    const filters = packed ? readFilters(open(this.#file, packed)) : [];
    if (type.kind !== "number") throw unsupportedHdf5(type.kind === "other" ? type.what : "texts as weights");
    return asTensor(readBytes(this.#file, shape, type, layout, filters), shape, type);
  }

  /**
   * The texts of an attribute; undefined when there is none of that name.
   * @throws PolyheadError MODEL_UNSUPPORTED when it holds no texts, MODEL_MALFORMED
   */
  texts(name: string): string[] | undefined {
    for (const cursor of this.#attributes()) {
      const found = readAttribute(cursor);
      if (found.name !== name) continue;
      if (!found.shape) return [];
      const count = elementCount(found.shape);
      if (count === 0) return [];
      if (count * found.type.size > cursor.left)
        throw brokenHdf5(`the attribute ${JSON.stringify(name)} ends early`);
      return asTexts(this.#file, cursor, count, found.type);
    }
    return undefined;
  }

  *#attributes(): Generator<Cursor> {
    for (const message of this.#messages) {
      if (message.kind === MESSAGE.attribute) yield open(this.#file, message);
      if (message.kind !== MESSAGE.attributeInfo) continue;
      const cursor = open(this.#file, message);
      cursor.skip(1);
      if (cursor.u8() & 1) cursor.skip(2);
      const [heap, tree] = [cursor.address(), cursor.address()];
      if (heap === undefined || tree === undefined) continue;
      const objects = new FractalHeap(this.#file, heap);
      for (const record of newTree(this.#file, tree)) yield objects.object(record);
    }
  }

  #one(kind: number, what: string): Cursor {
    const found = this.#messages.find((message) => message.kind === kind);
    if (!found) throw brokenHdf5(`a data set has no ${what}`);
    if (found.isShared) throw unsupportedHdf5("data types that are stored by name");
    return open(this.#file, found);
  }

  #children(): ReadonlyMap<string, number> {
    this.#links ??= new Map(this.#readLinks());
    return this.#links;
  }

  *#readLinks(): Generator<[string, number]> {
    const file = this.#file;
    for (const message of this.#messages) {
      if (message.kind === MESSAGE.symbolTable) yield* readSymbols(file, open(file, message));
      if (message.kind === MESSAGE.link) yield* readLink(open(file, message));
      if (message.kind !== MESSAGE.linkInfo) continue;
      const cursor = open(file, message);
      cursor.skip(1);
      if (cursor.u8() & 1) cursor.skip(8);
      const [heap, tree] = [cursor.address(), cursor.address()];
      if (heap === undefined || tree === undefined) continue;
      const objects = new FractalHeap(file, heap);
      for (const record of newTree(file, tree)) {
        record.skip(4);
        yield* readLink(objects.object(record));
      }
    }
  }
}

/** The links of an old group. */
function* readSymbols(file: Hdf5Bytes, cursor: Cursor): Generator<[string, number]> {
  const tree = cursor.someAddress("the content of a group");
  const nameAt = localHeap(file, cursor.someAddress("the names of a group"));
  for (const { child } of oldTree(file, tree, 0, (key) => key.length())) {
    const node = file.at(child);
    node.signature("SNOD", "a part of a group");
    node.skip(2);
    const count = node.u16();
    for (let index = 0; index < count; index++) {
      const name = nameAt(node.uint(file.offsetSize));
      const address = node.address();
      const isSoft = node.u32() === 2;
      node.skip(20);
      if (address !== undefined && !isSoft) yield [name, address];
    }
  }
}

/** One link of a new group; those that lead to a path or into another file are left out. */
function* readLink(cursor: Cursor): Generator<[string, number]> {
  if (cursor.u8() !== 1) throw unsupportedHdf5("links of a newer version");
  const flags = cursor.u8();
  const kind = flags & 8 ? cursor.u8() : 0;
  if (flags & 4) cursor.skip(8);
  if (flags & 16) cursor.skip(1);
  const name = decode(cursor.take(cursor.uint(1 << (flags & 3))));
  if (kind === 0) yield [name, cursor.someAddress("the target of a link")];
}

/** Name, type and shape of an attribute; the cursor stands before its elements then. */
function readAttribute(cursor: Cursor): { name: string; type: Hdf5Type; shape: number[] | undefined } {
  const version = cursor.u8();
  const flags = cursor.u8();
  const [nameSize, typeSize, shapeSize] = [cursor.u16(), cursor.u16(), cursor.u16()];
  if (version < 1 || version > 3) throw unsupportedHdf5("attributes of a newer version");
  if (version === 3) cursor.skip(1);
  if (version > 1 && flags & 3) throw unsupportedHdf5("data types that are stored by name");
  const padded = (size: number) => cursor.part(version === 1 ? Math.ceil(size / 8) * 8 : size);
  const name = padded(nameSize).cString();
  const [type, shape] = [padded(typeSize), padded(shapeSize)];
  return { name, type: readType(type), shape: readShape(shape) };
}
