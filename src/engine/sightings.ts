/**
 * Which inputs were seen lately, by a print of a sample of their bytes. Equal inputs have equal prints, so an input
 * whose print is new has not been here lately; different inputs may have equal prints, so a print proves nothing. It
 * costs microseconds where a digest of all bytes takes milliseconds.
 */
import type { Tensor } from "../tensor/tensor.js";

/** Prints that are remembered: twice this many at most, of which the older half is forgotten at once. */
const REMEMBERED = 8192;
/** Pieces of a tensor that are looked at, and their bytes: no part of a number is left out. */
const PIECES = 128;
const PIECE = 8;

/** Remembers prints. */
export class Sightings {
  #newer = new Set<number>();
  #older = new Set<number>();

  /** Whether equal values were here lately, or such with an equal print; from now on they were. */
  see(values: Iterable<Tensor>): boolean {
    const print = printOf(values);
    const isKnown = this.#newer.has(print) || this.#older.has(print);
    this.#newer.add(print);
    if (this.#newer.size >= REMEMBERED) [this.#older, this.#newer] = [this.#newer, new Set()];
    return isKnown;
  }
}

/** FNV-1a over shapes and pieces in even distances; texts count by their number. */
function printOf(values: Iterable<Tensor>): number {
  let hash = 0x811c9dc5;
  const mix = (byte: number) => {
    hash = Math.imul(hash ^ byte, 0x01000193);
  };
  for (const { shape, data } of values) {
    for (const size of shape) mix(size);
    mix(data.length);
    if (!ArrayBuffer.isView(data)) continue;
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const step = Math.max(PIECE, PIECE * Math.floor(bytes.length / PIECE / PIECES));
    for (let start = 0; start < bytes.length; start += step)
      for (let at = start; at < start + PIECE; at++) mix(bytes[at] ?? 0);
  }
  return hash;
}
