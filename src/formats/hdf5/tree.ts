/** B-trees: version 1 for old groups and chunks, version 2 for new groups and attributes. Leaves, from left to right. */
import { brokenHdf5, type Cursor, type Hdf5Bytes } from "./reader.js";

const DEEPEST = 32;

/**
 * Entries of all leaves of a tree of version 1.
 * @param kind 0 for groups, 1 for chunks
 * @param readKey reads a key
 */
export function* oldTree<Key>(
  file: Hdf5Bytes,
  address: number,
  kind: 0 | 1,
  readKey: (cursor: Cursor) => Key,
  depth = 0,
): Generator<{ readonly key: Key; readonly child: number }> {
  if (depth > DEEPEST) throw brokenHdf5("a tree is nested too deeply");
  const cursor = file.at(address);
  cursor.signature("TREE", "a tree");
  if (cursor.u8() !== kind) throw brokenHdf5("a tree is of the wrong kind");
  const level = cursor.u8();
  const count = cursor.u16();
  cursor.skip(2 * file.offsetSize);
  for (let index = 0; index < count; index++) {
    const key = readKey(cursor);
    const child = cursor.someAddress("a part of a tree");
    if (level === 0) yield { key, child };
    else yield* oldTree(file, child, kind, readKey, depth + 1);
  }
}

/** Cursors over the records of a tree of version 2. */
export function* newTree(file: Hdf5Bytes, address: number): Generator<Cursor> {
  const cursor = file.at(address);
  cursor.signature("BTHD", "a tree");
  cursor.skip(2);
  const nodeSize = cursor.u32();
  const recordSize = cursor.u16();
  const depth = cursor.u16();
  cursor.skip(2);
  const root = cursor.address();
  const count = cursor.u16();
  cursor.length();
  if (recordSize === 0 || nodeSize < 16 || depth > DEEPEST) throw brokenHdf5("a tree has impossible sizes");
  if (root !== undefined) yield* newNode(file, root, count, depth, nodeSize, recordSize);
}

function* newNode(
  file: Hdf5Bytes,
  address: number,
  count: number,
  depth: number,
  nodeSize: number,
  recordSize: number,
): Generator<Cursor> {
  const cursor = file.at(address).part(nodeSize);
  cursor.signature(depth === 0 ? "BTLF" : "BTIN", "a node of a tree");
  cursor.skip(2);
  const records = Array.from({ length: count }, () => {
    file.count();
    return cursor.part(recordSize);
  });
  if (depth === 0) {
    yield* records;
    return;
  }
  const widths = nodeWidths(nodeSize, recordSize, file.offsetSize, depth);
  for (let index = 0; index <= count; index++) {
    const child = cursor.someAddress("a part of a tree");
    const own = cursor.uint(widths.count);
    if (depth > 1) cursor.uint(widths.total);
    yield* newNode(file, child, own, depth - 1, nodeSize, recordSize);
    const record = records[index];
    if (record) yield record;
  }
}

/** Widths of the numbers that say how many records a child has, and all below it. */
function nodeWidths(nodeSize: number, recordSize: number, offsetSize: number, depth: number) {
  const bytes = (most: number) => Math.max(1, Math.ceil((Math.floor(Math.log2(Math.max(most, 1))) + 1) / 8));
  let most = Math.floor((nodeSize - 10) / recordSize);
  const count = bytes(most);
  let all = most;
  let total = bytes(all);
  for (let level = 1; level < depth; level++) {
    const pointer = offsetSize + count + (level > 1 ? total : 0);
    most = Math.floor((nodeSize - 10 - pointer) / (recordSize + pointer));
    all = (most + 1) * all + most;
    total = bytes(all);
  }
  return { count, total };
}
