/**
 * What a pickle is read into: plain data, and records that say what the file spoke of. A record of a class is the
 * class's name and the attributes that the file gives, never the class itself.
 */
import { PolyheadError } from "../../base/errors.js";

/** The error for a file that is no sound PyTorch file. */
export function malformed(message: string, details: Readonly<Record<string, unknown>> = {}): PolyheadError {
  return new PolyheadError("MODEL_MALFORMED", message, details);
}

/** The error for something that is sound and not supported. */
export function unsupported(message: string, details: Readonly<Record<string, unknown>> = {}): PolyheadError {
  return new PolyheadError("MODEL_UNSUPPORTED", message, details);
}

/** A value that takes more data after it was made. */
export interface Buildable {
  /** Takes the state that the file gives it. */
  build(state: unknown): void;
}

/** The name of a Python class or function; nothing more is known of it. */
export class PickledGlobal {
  readonly path: string;

  constructor(module: string, name: string) {
    this.path = `${module}.${name}`;
  }
}

/** A dict of any class, in the order of the file. */
export class PickledDict extends Map<unknown, unknown> implements Buildable {
  /** Attributes beside the entries, such as a state dict's `_metadata`. */
  readonly attributes = new Map<unknown, unknown>();

  build(state: unknown): void {
    addAttributes(this.attributes, state);
  }
}

/** An object of a class, as data: what the class would do with it is not known. */
export class PickledObject implements Buildable {
  readonly className: string;
  /** What it was made from. */
  readonly given: readonly unknown[];
  readonly attributes = new Map<unknown, unknown>();

  constructor(className: string, given: readonly unknown[] = []) {
    this.className = className;
    this.given = given;
  }

  build(state: unknown): void {
    addAttributes(this.attributes, state);
  }
}

/** A piece of memory that tensors are views of. */
export interface Storage {
  /** PyTorch's name of the element type, such as `Float`; `Untyped` for mere bytes. */
  readonly kind: string;
  /** Elements, or bytes of an untyped one. */
  readonly length: number;
  /** @throws PolyheadError MODEL_MALFORMED when the file does not hold it, or not all of it */
  bytes(): Uint8Array;
}

/** State is a dict, or a pair of two: attributes and slots. Any other state is of no use without its class. */
function addAttributes(attributes: Map<unknown, unknown>, state: unknown): void {
  for (const part of Array.isArray(state) ? state.slice(0, 2) : [state])
    if (part instanceof Map) for (const [name, value] of part) attributes.set(name, value);
}
