/**
 * The sessions for a set of loaded models: their partition, one session a segment; linear heads of one form are
 * one session and a table of tensors each. A plan is built aside, warmed up, and then never changes; requests hold
 * it while they run, and its sessions are given back once nobody does.
 */
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { asPolyheadError } from "../base/errors.js";
import type { Identity } from "../onnx/identity.js";
import type { ValueType } from "../onnx/model.js";
import { partition, type Segment } from "../onnx/partition.js";
import { segmentModel } from "../onnx/segment-model.js";
import { templateOf } from "../onnx/template.js";
import { modelBytes } from "../onnx/write.js";
import type { SessionOptions, Step } from "../runtime/backend.js";
import type { Handle, Runtime } from "../runtime/runtime.js";
import { DTYPES } from "../tensor/dtype.js";
import { elementCount, isConcrete } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import { constantsAmong } from "./constants.js";
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
}

/** A segment with its session. */
export interface PlannedSegment {
  readonly segment: Segment;
  /** All that it computes, spelled out, and a name for that; segments of equal names have equal recipes. */
  readonly spelling: string;
  readonly key: string;
  readonly byRow: boolean;
  readonly recipe: Recipe;
  readonly session: Handle;
  readonly kept: readonly (readonly [input: string, tensor: Handle])[];
}

/** Operators whose work is worth several threads. */
const HEAVY = new Set(["Conv", "ConvTranspose", "MatMul", "QLinearConv", "ConvInteger", "Attention"]);

/** The sessions of one set of members. */
export class Plan {
  readonly #segments: readonly PlannedSegment[];
  /** The segment that makes a value. */
  readonly #makers = new Map<Identity, PlannedSegment>();
  /** Values between segments that are no list of rows. */
  readonly #rowless: ReadonlySet<Identity>;
  #users = 1;

  private constructor(
    segments: readonly PlannedSegment[],
    sources: readonly Member[],
    /** Outputs of members that depend on no input. */
    readonly constants: ReadonlyMap<Identity, Tensor>,
  ) {
    this.#segments = segments;
    const borders = new Set(segments.flatMap(({ segment }) => segment.inputs));
    this.#rowless = new Set([...borders].filter((value) => !isListOfRows(value, sources)));
    for (const each of segments) for (const value of each.segment.outputs) this.#makers.set(value, each);
  }

  /**
   * Makes and tries out the sessions; those that a living plan has already are shared with it.
   * @param heavy for segments whose work is worth several threads; the others take one
   * @throws PolyheadError LOAD_FAILED, MODEL_UNSUPPORTED; then nothing of it remains
   */
  static async build(
    members: readonly Member[],
    runtime: Runtime,
    heavy: SessionOptions,
    previous?: Plan,
  ): Promise<Plan> {
    const sources = [...new Set(members.flatMap((each) => [...each.providers, each]))];
    const segments = partition(
      members.map((each) => ({
        name: each.revision,
        graphs: [...each.providers, each].map(({ graph }) => graph),
        outputs: [...each.outputs.values()],
        needed: each.needed,
      })),
    );
    const single = singleRowNodes(sources);
    const known = new Map((previous ? previous.#segments : []).map((each) => [each.spelling, each]));
    const planned: PlannedSegment[] = [];
    try {
      for (const segment of segments) {
        const byRow = segment.nodes.some(({ key }) => single.has(key));
        const spelling = spelled(segment, byRow);
        // Most segments are those of the plan before; to name them again takes longer than all else.
        const same = known.get(spelling);
        const key = same?.key ?? bytesToHex(sha256(new TextEncoder().encode(spelling)));
        const recipe = same?.recipe ?? recipeFor(segment, key, sources, heavy);
        const isNew = !runtime.has(recipe.sessionKey);
        const session = await runtime.acquire(recipe.sessionKey, recipe.model, recipe.options);
        const kept = [...recipe.weights].map(
          ([input, value]) => [input, runtime.keep(`${key} ${input}`, value)] as const,
        );
        const made = { segment, spelling, key, byRow, recipe, session, kept };
        planned.push(made);
        if (isNew) await warmUp(made, sources, runtime);
      }
      const outputs = members.flatMap((each) => [...each.outputs.values()]);
      const constants = await constantsAmong(outputs, sources, runtime, previous?.constants ?? new Map());
      return new Plan(planned, sources, constants);
    } catch (thrown) {
      await Promise.all(planned.map(release));
      throw asPolyheadError(thrown, "LOAD_FAILED", "The model could not be loaded");
    }
  }

  /** What the sessions are for, in running order: names of members, number of nodes. */
  get segments(): { usedBy: readonly string[]; nodes: number }[] {
    return this.#segments.map(({ segment }) => ({ usedBy: segment.usedBy, nodes: segment.nodes.length }));
  }

  /** Takes the plan for a request or a generation; every call is answered by one {@link drop}. */
  hold(): this {
    this.#users++;
    return this;
  }

  /** Gives it back; the last one releases the sessions. */
  async drop(): Promise<void> {
    this.#users--;
    if (this.#users > 0) return;
    await Promise.all(this.#segments.map(release));
  }

  /** What must run to make `wanted` out of what is `given`, and no more. */
  needs(wanted: Iterable<Identity>, given: (identity: Identity) => boolean): Needs {
    const made = new Map<PlannedSegment, Set<Identity>>();
    const passing = new Set<Identity>();
    const reads = new Set<Identity>();
    const open = [...wanted].filter((each) => !given(each));
    for (let value = open.pop(); value !== undefined; value = open.pop()) {
      const maker = this.#makers.get(value);
      if (!maker) continue;
      const values = made.get(maker);
      values?.add(value);
      if (values) continue;
      made.set(maker, new Set([value]));
      for (const input of maker.segment.inputs) {
        const isMade = this.#makers.has(input);
        if (isMade) passing.add(input);
        if (isMade && !given(input)) open.push(input);
        else reads.add(input);
      }
    }
    return { made, passing, reads };
  }

  /**
   * Whether a value between segments has a row of its first dimension for each row of the inputs, so that it can be
   * taken apart: sizes and transposed values have none.
   */
  hasRows(value: Identity): boolean {
    return !this.#rowless.has(value);
  }

  /** Those of the segments that are in `needed`, in running order. */
  inOrder<T>(needed: ReadonlyMap<PlannedSegment, T>): [PlannedSegment, T][] {
    return this.#segments.flatMap((each) => {
      const found = needed.get(each);
      return found === undefined ? [] : [[each, found] as [PlannedSegment, T]];
    });
  }
}

/** What it takes to answer a request. */
export interface Needs {
  /** The segments that run, and the values that are taken from each. */
  readonly made: ReadonlyMap<PlannedSegment, ReadonlySet<Identity>>;
  /** Values that these segments take from segments, whether those run or their values are given. */
  readonly passing: ReadonlySet<Identity>;
  /** Values that are given and that these segments take. */
  readonly reads: ReadonlySet<Identity>;
}

/**
 * A segment's turn in a program.
 * @param rowsOf which rows of an input it takes; all by default
 */
export function stepFor(
  planned: PlannedSegment,
  values: Iterable<Identity>,
  rowsOf: (input: Identity) => readonly number[] | undefined = () => undefined,
): Step {
  const { segment, recipe, session, kept, byRow } = planned;
  return {
    session: session.number,
    feeds: segment.inputs.map((each) => [recipe.nameOf(each), each, rowsOf(each)] as const),
    fetches: [...values].map((each) => [recipe.nameOf(each), each] as const),
    ...(kept.length > 0 && { kept: kept.map(([input, { number }]) => [input, number] as const) }),
    ...(byRow && { byRow }),
  };
}

async function release({ session, kept }: PlannedSegment): Promise<void> {
  await Promise.all([session, ...kept.map(([, tensor]) => tensor)].map((each) => each.release()));
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
    };
  }
  const bytes = modelBytes(template.model);
  return {
    sessionKey: `template ${bytesToHex(sha256(bytes))}`,
    model: () => bytes,
    options: { threads: 1 },
    weights: template.weights,
    nameOf: (identity) => template.names.get(identity) ?? identity,
  };
}

/** Keys of the nodes that every source which has them runs for one row only; segments with such run row by row. */
function singleRowNodes(sources: readonly Member[]): ReadonlySet<string> {
  const keysOf = (members: readonly Member[]) =>
    members.flatMap(({ graph }) => graph.nodes.filter(({ varies }) => varies).map(({ key }) => key));
  const single = new Set(keysOf(sources.filter(({ batch }) => batch === 1)));
  if (single.size > 0)
    for (const key of keysOf(sources.filter(({ batch }) => batch !== 1))) single.delete(key);
  return single;
}

/** Every source that says something of its type says that it begins with one row, or with an open number of them. */
function isListOfRows(value: Identity, sources: readonly Member[]): boolean {
  const types = sources.flatMap(({ types }) => types.get(value) ?? []);
  return (
    types.length > 0 &&
    types.every(({ shape }) => {
      const [first, ...rest] = shape ?? [];
      const isOpen = typeof first === "string" && first !== "?" && !first.includes("*");
      return (first === 1 || isOpen) && !rest.some((size) => size === first && isOpen);
    })
  );
}

function isHeavy(segment: Segment): boolean {
  return segment.nodes.filter(({ node }) => HEAVY.has(node.opType)).length > 2;
}

/** What a session computes; equal ones are equal sessions. */
function spelled(segment: Segment, byRow: boolean): string {
  return JSON.stringify([segment.nodes.map(({ key }) => key), segment.inputs, segment.outputs, byRow]);
}

/** One run on zeros; left out where an input's shape is not known, or where it may hold sizes, which cannot be 0. */
async function warmUp(planned: PlannedSegment, sources: readonly Member[], runtime: Runtime): Promise<void> {
  const { inputs, outputs } = planned.segment;
  const values = new Map<Identity, Tensor>();
  for (const input of inputs) {
    const type = sources.flatMap(({ types }) => types.get(input) ?? [])[0];
    const zero = type && type.dtype !== "int64" ? zeros(type) : undefined;
    if (!zero) return;
    values.set(input, zero);
  }
  const { failures } = await runtime.run({ steps: [stepFor(planned, outputs)], results: outputs }, values);
  for (const failure of failures.values()) throw failure;
}

function zeros({ dtype, shape }: ValueType): Tensor | undefined {
  const sizes = shape?.map((size, axis) => (axis === 0 && typeof size === "string" ? 1 : size));
  if (!sizes || !isConcrete(sizes) || DTYPES[dtype].bits % 8 !== 0 || dtype === "string") return undefined;
  const count = elementCount(sizes) * (dtype.startsWith("complex") ? 2 : 1);
  return { dtype, shape: sizes, data: new DTYPES[dtype].array(count) };
}
