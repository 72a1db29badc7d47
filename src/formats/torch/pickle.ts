/**
 * A reader of Python pickles, protocols 0 to 5, that can build data only. Python's own reader is a machine that may
 * call any function by name; this one has no way to call anything but the constructors that it is given, which make
 * plain data. A call of anything else is refused by name. An instance of an unknown class becomes a record of its
 * name and attributes. Opcodes, objects and numbers are limited, so that memory and time stay within a small
 * multiple of the file.
 */
import { PolyheadError } from "../../base/errors.js";
import {
  type Buildable,
  malformed,
  PickledDict,
  PickledGlobal,
  PickledObject,
  unsupported,
} from "./objects.js";
import { codeUnit, latin1, longOf, narrowed, quoted, text } from "./pickle-values.js";

/** What a pickle may build, beside plain values. */
export interface Constructors {
  /** What a call of that name with these arguments builds; undefined for names that are not on the list. */
  construct(path: string, given: readonly unknown[]): unknown;
  /** What a reference to something outside of the pickle means. */
  persistent(id: unknown): unknown;
}

/** A pickle's value, and where in the bytes it ends. */
export interface Unpickled {
  readonly value: unknown;
  readonly end: number;
}

/** Checkpoints of the largest models have some hundred thousand of each. */
const MOST_OPCODES = 2 ** 23;
const MOST_OBJECTS = 2 ** 19;
const MOST_MARKS = 2 ** 10;
const LONGEST_NUMBER = 64;

/**
 * Reads the pickle that begins at `start`.
 * @throws PolyheadError MODEL_MALFORMED; MODEL_UNSUPPORTED for calls of what is not on the list; LIMIT_EXCEEDED
 */
export function unpickle(bytes: Uint8Array, constructors: Constructors, start = 0): Unpickled {
  return new PickleMachine(bytes, constructors, start).run();
}

/** Whether bytes begin like a pickle of protocol 2 or later. */
export function isPickle(bytes: Uint8Array): boolean {
  return bytes[0] === 0x80 && (bytes[1] ?? 0) >= 2 && (bytes[1] ?? 0) <= 5;
}

class PickleMachine {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #constructors: Constructors;
  readonly #memo = new Map<number, unknown>();
  readonly #marks: unknown[][] = [];
  #stack: unknown[] = [];
  #at: number;
  #objects = 0;

  constructor(bytes: Uint8Array, constructors: Constructors, start: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#constructors = constructors;
    this.#at = start;
  }

  run(): Unpickled {
    for (let count = 0; count < MOST_OPCODES; count++) {
      const opcode = this.#byte();
      if (opcode === STOP) return { value: this.#pop(), end: this.#at };
      this.#step(opcode);
    }
    throw this.#tooMany("opcodes", MOST_OPCODES);
  }

  #step(opcode: number): void {
    const value = this.#value(opcode);
    if (value === undefined) this.#act(opcode);
    else this.#stack.push(value);
  }

  /** The value that an opcode puts on the stack; undefined for an opcode that does something else. */
  #value(opcode: number): unknown {
    switch (String.fromCharCode(opcode)) {
      case "N":
        return null;
      case "\x88":
        return true;
      case "\x89":
        return false;
      case "K":
        return this.#byte();
      case "M":
        return this.#number(2, (view, at) => view.getUint16(at, true));
      case "J":
        return this.#number(4, (view, at) => view.getInt32(at, true));
      case "G":
        return this.#number(8, (view, at) => view.getFloat64(at));
      case "\x8a":
        return longOf(this.#take(this.#length(1, LONGEST_NUMBER)));
      case "\x8b":
        return longOf(this.#take(this.#length(4, LONGEST_NUMBER)));
      case "I": {
        const line = this.#line();
        return line === "00" ? false : line === "01" ? true : this.#whole(line);
      }
      case "L":
        return this.#whole(this.#line().replace(/L$/, ""));
      case "F":
        return this.#float(this.#line());
      case "S":
        return quoted(this.#line());
      case "V":
        return this.#line().replace(/\\u([0-9a-fA-F]{4})/g, (_, hex) => codeUnit(hex));
      case "U":
        return latin1(this.#take(this.#length(1)));
      case "T":
        return latin1(this.#take(this.#length(4)));
      case "\x8c":
        return text(this.#take(this.#length(1)));
      case "X":
        return text(this.#take(this.#length(4)));
      case "\x8d":
        return text(this.#take(this.#length(8)));
      case "C":
        return this.#take(this.#length(1));
      case "B":
        return this.#take(this.#length(4));
      case "\x8e":
      case "\x96": // BYTEARRAY8
        return this.#take(this.#length(8));
      case "]":
      case ")":
        return this.#made([]);
      case "l":
      case "t":
        return this.#made(this.#sinceMark());
      case "\x85":
        return this.#made(this.#popMany(1));
      case "\x86":
        return this.#made(this.#popMany(2));
      case "\x87":
        return this.#made(this.#popMany(3));
      case "}":
        return this.#made(new PickledDict());
      case "d": {
        const items = this.#sinceMark();
        const dict = this.#made(new PickledDict());
        this.#setItems(dict, items);
        return dict;
      }
      case "\x8f":
        return this.#made(new Set());
      case "\x91": // FROZENSET
        return this.#made(new Set(this.#sinceMark()));
      case "h":
        return this.#recall(this.#byte());
      case "j":
        return this.#recall(this.#number(4, (view, at) => view.getUint32(at, true)));
      case "g":
        return this.#recall(Number(this.#whole(this.#line())));
      case "c": {
        const module = this.#line();
        return this.#made(new PickledGlobal(module, this.#line()));
      }
      case "\x93": {
        const [module, name] = this.#popMany(2);
        if (typeof module !== "string" || typeof name !== "string")
          throw this.#broken("a class is named by something that is no text");
        return this.#made(new PickledGlobal(module, name));
      }
      case "R": {
        const [callee, given] = this.#popMany(2);
        return this.#made(this.#called(callee, given));
      }
      case "\x81": {
        const [cls, given] = this.#popMany(2);
        return this.#made(this.#instance(cls, given));
      }
      case "\x92": {
        const [cls, given] = this.#popMany(3);
        return this.#made(this.#instance(cls, given));
      }
      case "o": {
        const [cls, ...given] = this.#sinceMark();
        return this.#made(this.#instance(cls, given));
      }
      case "i": {
        const module = this.#line();
        const cls = new PickledGlobal(module, this.#line());
        return this.#made(this.#instance(cls, this.#sinceMark()));
      }
      case "Q":
        return this.#made(this.#constructors.persistent(this.#popMany(1)[0]));
      case "P":
        return this.#made(this.#constructors.persistent(this.#line()));
      default:
        return undefined;
    }
  }

  /** Does what an opcode does to the values on the stack. */
  #act(opcode: number): void {
    switch (String.fromCharCode(opcode)) {
      case "\x80": // PROTO
        if (this.#byte() > 5) throw this.#broken("it is of a protocol later than 5");
        return;
      case "\x95": // FRAME
        this.#take(8);
        return;
      case "(":
        if (this.#marks.length >= MOST_MARKS) throw this.#tooMany("nested lists", MOST_MARKS);
        this.#marks.push(this.#stack);
        this.#stack = [];
        return;
      case "0": // POP also takes a mark away
        if (this.#stack.length > 0) this.#stack.pop();
        else this.#sinceMark();
        return;
      case "1":
        this.#sinceMark();
        return;
      case "2":
        this.#stack.push(this.#top());
        return;
      case "a": {
        const [item] = this.#popMany(1);
        this.#append([item]);
        return;
      }
      case "e":
        this.#append(this.#sinceMark());
        return;
      case "\x90": {
        const items = this.#sinceMark();
        const set = this.#top();
        if (!(set instanceof Set)) throw this.#broken("it adds to something that is no set");
        for (const item of items) set.add(item);
        return;
      }
      case "s": {
        const items = this.#popMany(2);
        this.#setItems(this.#top(), items);
        return;
      }
      case "u": {
        const items = this.#sinceMark();
        this.#setItems(this.#top(), items);
        return;
      }
      case "q":
        this.#remember(this.#byte());
        return;
      case "r":
        this.#remember(this.#number(4, (view, at) => view.getUint32(at, true)));
        return;
      case "p":
        this.#remember(Number(this.#whole(this.#line())));
        return;
      case "\x94":
        this.#remember(this.#memo.size);
        return;
      case "b": {
        const [state] = this.#popMany(1);
        const target = this.#top();
        if (!isBuildable(target)) throw this.#broken("it gives attributes to something that has none");
        target.build(state);
        return;
      }
      default:
        throw this.#broken(`the opcode 0x${opcode.toString(16)} has no meaning in a file of tensors`);
    }
  }

  /** Calls a listed constructor. */
  #called(callee: unknown, given: unknown): unknown {
    if (!(callee instanceof PickledGlobal) || !Array.isArray(given))
      throw this.#broken("it calls something that is no function");
    const built = this.#constructors.construct(callee.path, given);
    if (built === undefined) throw refusedCall(callee.path);
    return built;
  }

  /** An object as Python's `object.__new__` would make it: without running anything of its class. */
  #instance(cls: unknown, given: unknown): unknown {
    if (!(cls instanceof PickledGlobal) || !Array.isArray(given))
      throw this.#broken("it makes an object of something that is no class");
    return this.#constructors.construct(cls.path, given) ?? new PickledObject(cls.path, given);
  }

  #append(items: readonly unknown[]): void {
    const list = this.#top();
    if (Array.isArray(list)) for (const item of items) list.push(item);
    else if (!(list instanceof PickledObject)) throw this.#broken("it adds to something that is no list");
  }

  #setItems(dict: unknown, items: readonly unknown[]): void {
    if (dict instanceof PickledObject) return;
    if (!(dict instanceof Map) || items.length % 2 !== 0)
      throw this.#broken("it sets entries of something that is no dict");
    for (let at = 0; at < items.length; at += 2) dict.set(items[at], items[at + 1]);
  }

  #remember(at: number): void {
    this.#memo.set(at, this.#top());
  }

  #recall(at: number): unknown {
    if (!this.#memo.has(at)) throw this.#broken(`it refers to value ${at}, which is not there`);
    return this.#memo.get(at);
  }

  /** Counts an object against the limit. */
  #made<T>(value: T): T {
    if (++this.#objects > MOST_OBJECTS) throw this.#tooMany("objects", MOST_OBJECTS);
    return value;
  }

  #top(): unknown {
    if (this.#stack.length === 0) throw this.#broken("its stack is empty");
    return this.#stack.at(-1);
  }

  #pop(): unknown {
    return this.#popMany(1)[0];
  }

  #popMany(count: number): unknown[] {
    if (this.#stack.length < count) throw this.#broken("its stack is empty");
    return this.#stack.splice(-count);
  }

  #sinceMark(): unknown[] {
    const outer = this.#marks.pop();
    if (!outer) throw this.#broken("it ends a list that never began");
    const items = this.#stack;
    this.#stack = outer;
    return items;
  }

  #byte(): number {
    return this.#number(1, (view, at) => view.getUint8(at));
  }

  #number(width: number, read: (view: DataView, at: number) => number): number {
    const at = this.#at;
    this.#take(width);
    return read(this.#view, at);
  }

  /** A length in so many bytes. */
  #length(width: 1 | 4 | 8, limit = this.#bytes.length): number {
    const length =
      width === 1
        ? this.#byte()
        : this.#number(width, (view, at) =>
            width === 4 ? view.getUint32(at, true) : Number(view.getBigUint64(at, true)),
          );
    if (length > limit) throw this.#broken(`a value of ${length} bytes is longer than the limit of ${limit}`);
    return length;
  }

  #take(length: number): Uint8Array {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw this.#broken("it ends too early; the file may be truncated");
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }

  #line(): string {
    const end = this.#bytes.indexOf(NEWLINE, this.#at);
    if (end < 0) throw this.#broken("it ends too early; the file may be truncated");
    const line = text(this.#take(end - this.#at));
    this.#at = end + 1;
    return line;
  }

  #whole(line: string): number | bigint {
    if (!/^-?\d+$/.test(line) || line.length > 2 * LONGEST_NUMBER)
      throw this.#broken(`${JSON.stringify(line.slice(0, 40))} is no whole number`);
    return narrowed(BigInt(line));
  }

  #float(line: string): number {
    const known = { inf: Infinity, "-inf": -Infinity, nan: Number.NaN }[line];
    const value = known ?? Number(line);
    if (known === undefined && Number.isNaN(value))
      throw this.#broken(`${JSON.stringify(line.slice(0, 40))} is no number`);
    return value;
  }

  #broken(reason: string): PolyheadError {
    return malformed(`The pickle in this file is broken: ${reason} (at byte ${this.#at}).`, { at: this.#at });
  }

  #tooMany(what: string, limit: number): PolyheadError {
    return new PolyheadError(
      "LIMIT_EXCEEDED",
      `The pickle in this file has more than ${limit} ${what}; save the model's state dict alone: torch.save(model.state_dict(), FILE).`,
      { limit },
    );
  }
}

const STOP = 0x2e;
const NEWLINE = 0x0a;

/** The error for a call that is not on the list; nothing has been run. */
export function refusedCall(path: string): PolyheadError {
  return unsupported(
    `The file asks Python to call ${path}, which is not among the constructors of tensors and plain data. It was refused and nothing was run. ` +
      "If you trust the file, load it in Python and save what you need of it: torch.save(model.state_dict(), FILE).",
    { refused: path },
  );
}

function isBuildable(value: unknown): value is Buildable {
  return typeof value === "object" && value !== null && "build" in value;
}
