/**
 * Memory in which kernels change float32 tensors in place. It grows with each tensor, up to the 4 GiB of a WebAssembly
 * memory, and is freed as a whole, by the collector of garbage once nobody holds the arena. Growing takes no copy, but
 * empties earlier views: take a new one each time.
 */
import { asPolyheadError } from "../base/errors.js";
import type { Kernel } from "./kernel.js";
import { kernelCode } from "./kernel-code.js";

/** What of WebAssembly is used here; neither Node's types nor ES2023 declare it. */
declare const WebAssembly: {
  Memory: new (size: { initial: number; maximum: number }) => Memory;
  Module: new (code: Uint8Array) => object;
  Instance: new (
    module: object,
    imports: { env: { memory: Memory } },
  ) => { readonly exports: { readonly pass: Pass } };
};
type Pass = (...placesAndNumbers: number[]) => void;
interface Memory {
  readonly buffer: ArrayBuffer;
  grow(pages: number): number;
}

const PAGE = 65536;
const PAGES = 65536;
/** Bytes of float32. */
const ELEMENT = 4;
/** Elements of operands from elsewhere that are copied here at a time. */
const PIECE = 2048;
/** Between tensors, whose sizes are often powers of two: a processor would take equal lower bits of addresses for the same place. */
const GAP = 1088;
/** Instructions take so many bytes at once. */
const STEP = 16;

/** A tensor in an arena. */
export interface Place {
  readonly arena: Arena;
  /** In bytes. */
  readonly offset: number;
  /** In elements. */
  readonly length: number;
}

/** Tensors that kernels change. */
export class Arena {
  readonly #memory = new WebAssembly.Memory({ initial: 1, maximum: PAGES });
  readonly #passes = new Map<string, Pass>();
  /** The same by object: all changes of one program share few. */
  readonly #known = new WeakMap<Kernel, Pass>();
  readonly #rooms: Place[] = [];
  #end = GAP;

  /**
   * Room for a tensor; zeros at first.
   * @throws PolyheadError LOAD_FAILED when there is none left
   */
  place(length: number): Place {
    const offset = this.#end;
    const end = offset + wholeSteps(length) + GAP;
    const missing = Math.ceil((end - this.#memory.buffer.byteLength) / PAGE);
    try {
      if (missing > 0) this.#memory.grow(missing);
    } catch (thrown) {
      throw asPolyheadError(thrown, "LOAD_FAILED", `There is no memory for ${length} numbers that change`);
    }
    this.#end = end;
    return { arena: this, offset, length };
  }

  /** The elements of a tensor as they are now. Empty once another one is placed. */
  view({ offset, length }: Place): Float32Array<ArrayBuffer> {
    return new Float32Array(this.#memory.buffer, offset, length);
  }

  /**
   * Runs a kernel.
   * @param operands tensors of this arena, which it may write, or others, which it only reads
   */
  run(kernel: Kernel, operands: readonly (Place | Float32Array)[], numbers: readonly number[]): void {
    const pass = this.#pass(kernel);
    const length = Math.max(...operands.map((each) => each.length));
    const isHere = (each: Place | Float32Array): each is Place => "arena" in each && each.arena === this;
    const rooms = new Map(operands.filter((each) => !isHere(each)).map((each, at) => [each, this.#room(at)]));
    const guests = [...rooms].map(([each, room]) => ({
      all: "arena" in each ? each.arena.view(each) : each,
      piece: this.view(room),
    }));
    const size = guests.length === 0 ? length : PIECE;
    for (let at = 0; at < length; at += size) {
      const end = Math.min(at + size, length);
      for (const { all, piece } of guests) piece.set(all.subarray(at, end));
      const places = operands.map(
        (each) => rooms.get(each)?.offset ?? ("arena" in each ? each.offset + at * ELEMENT : 0),
      );
      pass(...places, wholeSteps(end - at), ...numbers);
    }
  }

  #pass(kernel: Kernel): Pass {
    const known = this.#known.get(kernel);
    if (known) return known;
    const key = JSON.stringify(kernel);
    const pass = this.#passes.get(key) ?? this.#compiled(kernel);
    this.#known.set(kernel, pass);
    this.#passes.set(key, pass);
    return pass;
  }

  #compiled(kernel: Kernel): Pass {
    const imports = { env: { memory: this.#memory } };
    return new WebAssembly.Instance(new WebAssembly.Module(kernelCode(kernel)), imports).exports.pass;
  }

  /** Where pieces of an operand from elsewhere go. */
  #room(place: number): Place {
    const room = this.#rooms[place] ?? this.place(PIECE);
    this.#rooms[place] = room;
    return room;
  }
}

/** Bytes of so many elements, rounded up: tensors have that room. */
function wholeSteps(length: number): number {
  return Math.ceil((length * ELEMENT) / STEP) * STEP;
}
