/**
 * A layer of `torch.nn` as data, whether a pickled module or an entry of an architecture says it: its kind, its
 * settings by PyTorch's names, and its tensors.
 */
import { PolyheadError } from "../../base/errors.js";
import { formatShape } from "../../tensor/shape.js";
import { malformed, unsupported } from "./objects.js";
import type { StoredTensor } from "./tensor.js";

/** Settings of a layer by name; what is left out has PyTorch's default. */
export type Settings = ReadonlyMap<string, unknown>;

/** One layer, with typed access to its settings. */
export class Layer {
  /** The class in `torch.nn`, such as `Conv2d`. */
  readonly kind: string;
  /** Where it stands in the file, such as `head.0`; for messages and names. */
  readonly path: string;
  /** The settings that somebody asked for. */
  readonly asked = new Set<string>();
  readonly #settings: Settings;
  readonly #tensors: ReadonlyMap<string, StoredTensor>;

  constructor(kind: string, path: string, settings: Settings, tensors: ReadonlyMap<string, StoredTensor>) {
    this.kind = kind;
    this.path = path;
    this.#settings = settings;
    this.#tensors = tensors;
  }

  /** How messages call it. */
  get label(): string {
    return this.path === "" ? this.kind : `${this.kind} ${JSON.stringify(this.path)}`;
  }

  /** A setting as it is; undefined when the file says nothing or `None`. */
  setting(name: string): unknown {
    this.asked.add(name);
    return this.#settings.get(name) ?? undefined;
  }

  /** A number. @throws PolyheadError MODEL_MALFORMED */
  number(name: string, otherwise: number): number {
    const value = this.setting(name) ?? otherwise;
    if (typeof value === "number") return value;
    throw this.wrong(name, "a number", value);
  }

  /** A whole number. @throws PolyheadError MODEL_MALFORMED */
  int(name: string, otherwise: number): number {
    const value = this.number(name, otherwise);
    if (Number.isSafeInteger(value)) return value;
    throw this.wrong(name, "a whole number", value);
  }

  /** Whole numbers for each of `count` axes, from one for all or one for each. @throws PolyheadError MODEL_MALFORMED */
  ints(name: string, count: number, otherwise: number | readonly number[]): number[] {
    const value = this.setting(name) ?? otherwise;
    const list = Array.isArray(value) && value.length === 1 ? Array(count).fill(value[0]) : value;
    if (Number.isSafeInteger(list)) return Array(count).fill(list);
    if (Array.isArray(list) && list.length === count && list.every(Number.isSafeInteger)) return [...list];
    throw this.wrong(name, `a whole number or ${count} of them`, value);
  }

  /** Yes or no. @throws PolyheadError MODEL_MALFORMED */
  flag(name: string, otherwise: boolean): boolean {
    const value = this.setting(name) ?? otherwise;
    if (typeof value === "boolean") return value;
    throw this.wrong(name, "true or false", value);
  }

  /** One of several words. @throws PolyheadError MODEL_UNSUPPORTED */
  word<T extends string>(name: string, known: readonly T[], otherwise: T): T {
    const value = this.setting(name) ?? otherwise;
    const found = known.find((each) => each === value);
    if (found !== undefined) return found;
    throw unsupported(
      `${this.label} has ${name} = ${JSON.stringify(value)}; supported are ${known.join(", ")}.`,
      { layer: this.path, kind: this.kind, setting: name, got: String(value), expected: known },
    );
  }

  /** Whether the layer has such a tensor. */
  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  /** A tensor of any number of axes. @throws PolyheadError MODEL_MALFORMED */
  anyTensor(name: string): StoredTensor {
    const found = this.#tensors.get(name);
    if (found) return found;
    throw malformed(`${this.label} has no tensor ${JSON.stringify(name)}.`, { layer: this.path, name });
  }

  /** A tensor of so many axes. @throws PolyheadError MODEL_MALFORMED */
  tensor(name: string, rank: number): StoredTensor {
    const found = this.anyTensor(name);
    if (found.shape.length === rank) return found;
    throw malformed(
      `The ${name} of ${this.label} has the shape ${formatShape(found.shape)}; expected ${rank} axes.`,
      { layer: this.path, name, got: found.shape },
    );
  }

  /** The error for a use that no rule covers. */
  unsupported(reason: string): PolyheadError {
    return unsupported(`${this.label} ${reason}.`, { layer: this.path, kind: this.kind });
  }

  /** The error for a setting that is not what it should be. */
  wrong(name: string, expected: string, got: unknown): PolyheadError {
    return malformed(
      `${this.label} has ${name} = ${JSON.stringify(got) ?? String(got)}; expected ${expected}.`,
      {
        layer: this.path,
        kind: this.kind,
        setting: name,
        expected,
      },
    );
  }
}

/** A layer met another size than it takes; the caller may know a better input shape. */
export class SizeMismatch extends PolyheadError {
  readonly expected: number;
  readonly got: number;

  constructor(layer: Layer, axis: number, expected: number, got: number) {
    super(
      "MODEL_MALFORMED",
      `${layer.label} takes ${expected} at axis ${axis} of its input; what reaches it has ${got}.`,
      { layer: layer.path, axis, expected, got },
    );
    this.expected = expected;
    this.got = got;
  }
}

/** A layer needs a size that the input shape leaves open. */
export class OpenSize extends PolyheadError {
  constructor(layer: Layer, why: string) {
    super(
      "INVALID_ARGUMENT",
      `${layer.label} ${why}, so that the sizes of the input must be known; state them: --input-shape batch,3,224,224.`,
      { layer: layer.path },
    );
  }
}
