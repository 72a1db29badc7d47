/**
 * Reading of settings that travel as JSON (in a model's metadata, in a request, in a file): every field is
 * checked once, at the border, and a wrong, missing or unknown one is reported by name with what was
 * expected. Not a schema language: just the few kinds of field that the records of this folder have.
 */
import { asError, type ErrorCode, PolyheadError } from "../base/errors.js";

/** Bounds of a number. */
export interface NumberBounds {
  readonly min?: number;
  readonly max?: number;
  /** Whether only whole numbers will do. */
  readonly whole?: boolean;
}

/** One record being read; every accessor takes a field's name and, where it may be missing, its default. */
export class RecordReader {
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #known = new Set<string>();
  readonly #what: string;
  readonly #code: ErrorCode;

  /**
   * A reader over an object, or over its JSON text.
   * @param what the record's name in messages
   * @param code the code of errors
   * @throws PolyheadError of that code when it is no object or no JSON
   */
  constructor(json: unknown, what: string, code: ErrorCode) {
    this.#what = what;
    this.#code = code;
    const value = typeof json === "string" ? this.#parse(json) : json;
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw this.#error("", "an object", value);
    this.#fields = value as Readonly<Record<string, unknown>>;
  }

  /** One of the given words. */
  oneOf<const Word extends string>(name: string, words: readonly Word[], standard?: Word): Word {
    const value = this.#take(name, standard);
    const word = words.find((each) => each === value);
    if (word === undefined)
      throw this.#error(name, words.map((each) => JSON.stringify(each)).join(" or "), value);
    return word;
  }

  /** A finite number within bounds. */
  number(name: string, bounds: NumberBounds, standard?: number): number {
    const value = this.#take(name, standard);
    if (!isWithin(value, bounds)) throw this.#error(name, describe(bounds), value);
    return value;
  }

  /** A list of `length` numbers within bounds. */
  numbers(
    name: string,
    length: number,
    bounds: NumberBounds,
    standard?: readonly number[],
  ): readonly number[] {
    const value = this.#take(name, standard);
    const isList = Array.isArray(value) && value.length === length;
    if (!isList || !value.every((each) => isWithin(each, bounds))) {
      throw this.#error(name, `a list of ${length}, each ${describe(bounds)}`, value);
    }
    return value;
  }

  /** A non-empty text. */
  text(name: string): string {
    const value = this.#take(name);
    if (typeof value !== "string" || value === "") throw this.#error(name, "a non-empty text", value);
    return value;
  }

  /** True or false. */
  flag(name: string, standard?: boolean): boolean {
    const value = this.#take(name, standard);
    if (typeof value !== "boolean") throw this.#error(name, "true or false", value);
    return value;
  }

  /** Whether the record has the field. */
  has(name: string): boolean {
    this.#known.add(name);
    return this.#own(name) !== undefined;
  }

  /** A record within the record. */
  record(name: string): RecordReader {
    return new RecordReader(this.#take(name), `${this.#what}.${name}`, this.#code);
  }

  /** Ends the reading; fields nobody asked for are errors, so that a misspelt one is not ignored. */
  end(): void {
    for (const name of Object.keys(this.#fields)) {
      if (!this.#known.has(name))
        throw this.#error(name, `no such field, only ${[...this.#known].join(", ")}`, name);
    }
  }

  #parse(json: string): unknown {
    try {
      return JSON.parse(json);
    } catch (thrown) {
      throw new PolyheadError(
        this.#code,
        `The ${this.#what} is not JSON: ${asError(thrown).message}.`,
        {},
        { cause: thrown },
      );
    }
  }

  #take(name: string, standard?: unknown): unknown {
    this.#known.add(name);
    return this.#own(name) ?? standard;
  }

  #own(name: string): unknown {
    return Object.hasOwn(this.#fields, name) ? this.#fields[name] : undefined;
  }

  #error(name: string, expected: string, got: unknown): PolyheadError {
    const field = name === "" ? this.#what : `${this.#what}.${name}`;
    const shown = got === undefined ? "nothing" : JSON.stringify(got).slice(0, 100);
    return new PolyheadError(this.#code, `${field} is ${shown}; expected ${expected}.`, { field, expected });
  }
}

function isWithin(value: unknown, { min, max, whole = false }: NumberBounds): value is number {
  if (typeof value !== "number" || !Number.isFinite(value)) return false;
  return value >= (min ?? value) && value <= (max ?? value) && (!whole || Number.isInteger(value));
}

function describe({ min, max, whole = false }: NumberBounds): string {
  const kind = whole ? "a whole number" : "a number";
  if (min !== undefined && max !== undefined) return `${kind} from ${min} to ${max}`;
  if (min !== undefined) return `${kind} of at least ${min}`;
  return max === undefined ? kind : `${kind} of at most ${max}`;
}
