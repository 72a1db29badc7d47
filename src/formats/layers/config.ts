/**
 * The configuration of one layer, read on demand. Keras writes single numbers where all axes agree and
 * lists else, and leaves out what older versions did not know: a missing field has Keras' default.
 */
import {
  asList,
  asNumber,
  asText,
  asWholeNumber,
  isRecord,
  type JsonRecord,
  malformed,
} from "../tfjs/json.js";

/** Fields of one layer's configuration. All methods throw MODEL_MALFORMED for values of a wrong type. */
export class LayerConfig {
  /** The fields as they stand in the file. */
  readonly raw: JsonRecord;
  readonly #owner: string;

  /** @param owner the layer, for error messages */
  constructor(owner: string, raw: JsonRecord) {
    this.#owner = owner;
    this.raw = raw;
  }

  /** Whether the field is there and not null. */
  has(name: string): boolean {
    return this.#get(name) !== undefined;
  }

  /** A whole number. */
  int(name: string, fallback: number): number {
    const value = this.#get(name);
    return value === undefined ? fallback : asWholeNumber(value, this.#what(name));
  }

  /** A real number; also one that stands alone in a list or in a serialised array. */
  number(name: string, fallback: number): number {
    const value = this.#get(name);
    return value === undefined ? fallback : asNumber(value, this.#what(name));
  }

  /** A truth value. */
  bool(name: string, fallback: boolean): boolean {
    const value = this.#get(name);
    return value === undefined ? fallback : value === true || value === 1;
  }

  /** A text. */
  text(name: string, fallback: string): string {
    const value = this.#get(name);
    return value === undefined ? fallback : asText(value, this.#what(name));
  }

  /** A list of whole numbers; a single number is a list of one. Undefined when the field is missing. */
  ints(name: string): number[] | undefined {
    return this.numbers(name)?.map((value) => asWholeNumber(value, this.#what(name)));
  }

  /** A list of sizes, -1 for an open one. */
  shape(name: string): number[] {
    const list = flatten(this.#get(name) ?? [], this.#what(name));
    return list.map((each) => (each === null ? -1 : asWholeNumber(each, this.#what(name))));
  }

  /** A list of real numbers, nested ones flattened; a single number is a list of one. */
  numbers(name: string): number[] | undefined {
    const value = this.#get(name);
    if (value === undefined) return undefined;
    return flatten(value, this.#what(name)).map((each) => asNumber(each, this.#what(name)));
  }

  /**
   * One positive size for each of `rank` axes; a single number holds for all.
   * @throws PolyheadError MODEL_MALFORMED for another number of sizes, or for sizes below 1
   */
  sizes(name: string, rank: number, fallback: readonly number[]): number[] {
    const stated = this.ints(name) ?? [...fallback];
    const [only = 1] = stated;
    const sizes = stated.length === 1 ? Array<number>(rank).fill(only) : stated;
    if (sizes.length === rank && sizes.every((size) => size >= 1 && size < 2 ** 31)) return sizes;
    throw malformed(`${this.#what(name)} is [${stated.join(", ")}]; expected ${rank} sizes of at least 1.`, {
      field: name,
      got: stated,
    });
  }

  /**
   * Elements before and after each of `rank` axes: one number for all, a number for each axis, or pairs.
   * @throws PolyheadError MODEL_MALFORMED
   */
  margins(name: string, rank: number): [number, number][] {
    const value = this.#get(name) ?? 1;
    const perAxis =
      Array.isArray(value) && !(rank === 1 && !Array.isArray(value[0])) ? value : Array(rank).fill(value);
    const margins = perAxis.map((each): [number, number] => {
      const pair = asList(Array.isArray(each) ? each : [each, each], this.#what(name));
      const [before = 0, after = 0] = pair.map((one) => asWholeNumber(one, this.#what(name)));
      return [before, after];
    });
    if (margins.length === rank && margins.flat().every((each) => each >= 0 && each < 2 ** 31))
      return margins;
    throw malformed(`${this.#what(name)} is ${JSON.stringify(value)}; expected margins of ${rank} axes.`, {
      field: name,
    });
  }

  /** Whether the channels stand before the spatial axes. */
  get isChannelsFirst(): boolean {
    const format = this.text("data_format", "channels_last");
    if (format === "channels_last" || format === "channels_first") return format === "channels_first";
    throw malformed(`${this.#what("data_format")} is ${JSON.stringify(format)}.`, { got: format });
  }

  #get(name: string): unknown {
    const value = Object.hasOwn(this.raw, name) ? this.raw[name] : undefined;
    return plainValue(value) ?? undefined;
  }

  #what(name: string): string {
    return `Field ${JSON.stringify(name)} of layer ${JSON.stringify(this.#owner)}`;
  }
}

/** Takes the wrapping off a tuple or an array that Keras 3 or numpy serialised. */
function plainValue(value: unknown): unknown {
  if (!isRecord(value)) return value;
  if (value.class_name === "__tuple__") return value.items;
  if (value.class_name === "__numpy__" && isRecord(value.config)) return value.config.value;
  if (value.type === "ndarray" || value.type === "numpy") return value.value ?? value.values;
  return value;
}

function flatten(value: unknown, what: string): unknown[] {
  const plain = plainValue(value);
  if (!Array.isArray(plain)) return [plain];
  const found: unknown[] = [];
  const stack = [plain.values()];
  while (stack.length > 0) {
    const next = stack.at(-1)?.next();
    if (!next || next.done) stack.pop();
    else if (!Array.isArray(next.value)) found.push(next.value);
    else if (stack.length > 16) throw malformed(`${what} is nested too deeply.`);
    else stack.push(next.value.values());
  }
  return found;
}
