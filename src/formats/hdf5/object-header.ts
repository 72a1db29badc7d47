/** Object headers, versions 1 and 2: the list of messages that say what a group or a data set is. */
import { brokenHdf5, type Cursor, type Hdf5Bytes, unsupportedHdf5 } from "./reader.js";

/** Kinds of messages that are read. */
export const MESSAGE = {
  dataspace: 0x01,
  linkInfo: 0x02,
  datatype: 0x03,
  oldFillValue: 0x04,
  fillValue: 0x05,
  link: 0x06,
  layout: 0x08,
  filters: 0x0b,
  attribute: 0x0c,
  continuation: 0x10,
  symbolTable: 0x11,
  attributeInfo: 0x15,
} as const;

/** One message: its kind and a cursor over its content. */
export interface Message {
  readonly kind: number;
  /** Whether the content lies elsewhere. */
  readonly isShared: boolean;
  readonly start: number;
  readonly size: number;
}

/** Blocks that one header may be spread over. */
const MOST_BLOCKS = 4096;

/**
 * All messages of the object at an address.
 * @throws PolyheadError MODEL_MALFORMED, MODEL_UNSUPPORTED, LIMIT_EXCEEDED
 */
export function readMessages(file: Hdf5Bytes, address: number): Message[] {
  const cursor = file.at(address);
  const version = cursor.u8();
  if (version === 1) return readOld(file, cursor);
  cursor.position -= 1;
  cursor.signature("OHDR", "an object header");
  if (cursor.u8() !== 2) throw unsupportedHdf5("object headers of a newer version");
  return readNew(file, cursor);
}

function readOld(file: Hdf5Bytes, cursor: Cursor): Message[] {
  cursor.skip(1);
  const count = cursor.u16();
  cursor.skip(4);
  const size = cursor.u32();
  cursor.skip(4);
  const messages: Message[] = [];
  const blocks = [cursor.part(size)];
  for (let block = blocks.shift(), seen = 1; block; block = blocks.shift()) {
    while (block.left >= 8 && messages.length < count) {
      const kind = block.u16();
      const length = block.u16();
      const flags = block.u8();
      block.skip(3);
      const message = { kind, isShared: (flags & 2) !== 0, start: block.skip(length), size: length };
      messages.push(message);
      file.count();
      if (kind !== MESSAGE.continuation) continue;
      if (++seen > MOST_BLOCKS) throw brokenHdf5("an object header has no end");
      blocks.push(continuation(file, message));
    }
  }
  return messages;
}

function readNew(file: Hdf5Bytes, cursor: Cursor): Message[] {
  const flags = cursor.u8();
  if (flags & 0x20) cursor.skip(16);
  if (flags & 0x10) cursor.skip(4);
  const size = cursor.uint(1 << (flags & 3));
  const messages: Message[] = [];
  const blocks = [cursor.part(size)];
  const prefix = flags & 4 ? 6 : 4;
  for (let block = blocks.shift(), seen = 1; block; block = blocks.shift()) {
    while (block.left >= prefix) {
      const kind = block.u8();
      const length = block.u16();
      const own = block.u8();
      if (flags & 4) block.skip(2);
      const message = { kind, isShared: (own & 2) !== 0, start: block.skip(length), size: length };
      messages.push(message);
      file.count();
      if (kind !== MESSAGE.continuation) continue;
      if (++seen > MOST_BLOCKS) throw brokenHdf5("an object header has no end");
      const next = continuation(file, message);
      next.signature("OCHK", "the rest of an object header");
      if (next.left < 4) throw brokenHdf5("the rest of an object header is too short");
      blocks.push(next.part(next.left - 4));
    }
  }
  return messages;
}

function continuation(file: Hdf5Bytes, message: Message): Cursor {
  const cursor = open(file, message);
  const address = cursor.someAddress("the rest of an object header");
  const length = cursor.length();
  return file.at(address).part(length);
}

/** A cursor over the content of a message. */
export function open(file: Hdf5Bytes, message: Message): Cursor {
  const cursor = file.at(message.start - file.base);
  return cursor.part(message.size);
}
