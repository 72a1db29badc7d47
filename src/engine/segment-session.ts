/**
 * What runs a segment: a session of the runtime, and for a linear head the tensors that it has in place of weights of its
 * own. It is made and tried out aside; plans that follow one another share it, and the last that gives it back frees it.
 */
import { sha256 } from "../base/sha256.js";
import type { Identity } from "../onnx/identity.js";
import { rowDemand } from "../onnx/memory.js";
import type { ValueType } from "../onnx/model.js";
import type { Segment } from "../onnx/partition.js";
import { segmentModel } from "../onnx/segment-model.js";
import { templateOf } from "../onnx/template.js";
import { modelBytes } from "../onnx/write.js";
import type { SessionOptions, Step } from "../runtime/backend.js";
import type { Handle, Runtime } from "../runtime/runtime.js";
import { DTYPES } from "../tensor/dtype.js";
import { elementCount, isConcrete } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Member } from "./member.js";

/** What a runtime needs for a segment. */
interface Recipe {
  /** Names what the session computes; equal keys are equal sessions. */
  readonly sessionKey: string;
  readonly model: () => Uint8Array;
  readonly options: SessionOptions;
  /** Weights that are kept beside the session, by the session's input. */
  readonly weights: ReadonlyMap<string, Tensor>;
  /** What the session calls a value. */
  readonly nameOf: (identity: Identity) => string;
  /** Bytes that its values take for one row at the worst moment; 0 for light segments. */
  readonly rowBytes: number;
}

/** A segment, and how it is run. */
export interface Spelled {
  readonly segment: Segment;
  /** All that it computes, spelled out. */
  readonly spelling: string;
  readonly byRow: boolean;
}

/** Operators whose work is worth several threads. */
const HEAVY = new Set(["Conv", "ConvTranspose", "MatMul", "QLinearConv", "ConvInteger", "Attention"]);

/** What a segment computes and how; equal ones are run by equal sessions. */
export function spelled(segment: Segment, byRow: boolean): string {
  return JSON.stringify([segment.nodes.map(({ key }) => key), segment.inputs, segment.outputs, byRow]);
}

/** The session of all segments of one spelling. */
export class SegmentSession {
  readonly spelling: string;
  /** Whether it takes one row at a time. */
  readonly byRow: boolean;
  /** Bytes that each further row of a batch takes at the worst moment; 0 where they are few. */
  readonly rowBytes: number;
  readonly #segment: Segment;
  readonly #nameOf: (identity: Identity) => string;
  readonly #session: Handle;
  readonly #kept: readonly (readonly [input: string, tensor: Handle])[];
  #users = 1;

  private constructor(
    { segment, spelling, byRow }: Spelled,
    { nameOf, rowBytes }: Recipe,
    session: Handle,
    kept: readonly (readonly [input: string, tensor: Handle])[],
  ) {
    this.spelling = spelling;
    this.byRow = byRow;
    this.rowBytes = byRow ? 0 : rowBytes;
    this.#segment = segment;
    this.#nameOf = nameOf;
    this.#session = session;
    this.#kept = kept;
  }

  /**
   * Makes it, and tries it out where the runtime did not have it yet.
   * @param heavy for segments whose work is worth several threads; the others take one
   * @throws PolyheadError LOAD_FAILED, MODEL_UNSUPPORTED, RUN_FAILED; then nothing of it remains
   */
  static async make(
    spelled: Spelled,
    sources: readonly Member[],
    runtime: Runtime,
    heavy: SessionOptions,
  ): Promise<SegmentSession> {
    const key = sha256(spelled.spelling);
    const recipe = recipeFor(spelled.segment, key, sources, heavy);
    const isNew = !runtime.has(recipe.sessionKey);
    const session = await runtime.acquire(recipe.sessionKey, recipe.model, recipe.options);
    const kept = [...recipe.weights].map(
      ([input, value]) => [input, runtime.keep(`${key} ${input}`, value)] as const,
    );
    const made = new SegmentSession(spelled, recipe, session, kept);
    try {
      if (isNew) await made.#warmUp(sources, runtime);
    } catch (thrown) {
      await made.drop();
      throw thrown;
    }
    return made;
  }

  /** Takes it for one more plan; every call is answered by one {@link drop}. */
  hold(): this {
    this.#users++;
    return this;
  }

  /** Gives it back; the last one frees it. */
  async drop(): Promise<void> {
    this.#users--;
    if (this.#users > 0) return;
    await Promise.all(
      [this.#session, ...this.#kept.map(([, tensor]) => tensor)].map((each) => each.release()),
    );
  }

  /**
   * Its turn in a program.
   * @param rowsOf which rows of an input it takes; all by default
   */
  step(
    values: Iterable<Identity>,
    rowsOf: (input: Identity) => readonly number[] | undefined = () => undefined,
  ): Step {
    const nameOf = this.#nameOf;
    return {
      session: this.#session.number,
      feeds: this.#segment.inputs.map((each) => [nameOf(each), each, rowsOf(each)] as const),
      fetches: [...values].map((each) => [nameOf(each), each] as const),
      ...(this.#kept.length > 0 && {
        kept: this.#kept.map(([input, { number }]) => [input, number] as const),
      }),
      ...(this.byRow && { byRow: true }),
    };
  }

  /** One run on zeros; left out where an input's shape is not known, or where it may hold sizes, which cannot be 0. */
  async #warmUp(sources: readonly Member[], runtime: Runtime): Promise<void> {
    const { inputs, outputs } = this.#segment;
    const values = new Map<Identity, Tensor>();
    for (const input of inputs) {
      const type = typeOf(input, sources);
      const zero = type && type.dtype !== "int64" ? zeros(type) : undefined;
      if (!zero) return;
      values.set(input, zero);
    }
    const { failures } = await runtime.run({ steps: [this.step(outputs)], results: outputs }, values);
    for (const failure of failures.values()) throw failure;
  }
}

function recipeFor(segment: Segment, key: string, sources: readonly Member[], heavy: SessionOptions): Recipe {
  const whole = segmentModel(segment, sources);
  const template = templateOf(whole);
  if (!template) {
    return {
      sessionKey: key,
      model: () => modelBytes(whole),
      options: isHeavy(segment) ? heavy : { threads: 1 },
      weights: new Map(),
      nameOf: (identity) => identity,
      rowBytes: isHeavy(segment) ? rowDemand(whole, (value) => typeOf(value, sources)) : 0,
    };
  }
  const bytes = modelBytes(template.model);
  return {
    sessionKey: `template ${sha256(bytes)}`,
    model: () => bytes.slice(),
    options: { threads: 1 },
    weights: template.weights,
    nameOf: (identity) => template.names.get(identity) ?? identity,
    rowBytes: 0,
  };
}

function typeOf(value: Identity, sources: readonly Member[]): ValueType | undefined {
  return sources.find(({ types }) => types.has(value))?.types.get(value);
}

function isHeavy(segment: Segment): boolean {
  return segment.nodes.filter(({ node }) => HEAVY.has(node.opType)).length > 2;
}

function zeros({ dtype, shape }: ValueType): Tensor | undefined {
  const sizes = shape?.map((size, axis) => (axis === 0 && typeof size === "string" ? 1 : size));
  if (!sizes || !isConcrete(sizes) || DTYPES[dtype].bits % 8 !== 0 || dtype === "string") return undefined;
  const count = elementCount(sizes) * (dtype.startsWith("complex") ? 2 : 1);
  return { dtype, shape: sizes, data: new DTYPES[dtype].array(count) };
}
