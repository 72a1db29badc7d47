/**
 * The sessions for a set of loaded models: their partition, one session a segment; linear heads of one form are
 * one session and a table of tensors each. A plan is built aside, warmed up, and then never changes; requests hold
 * it while they run, and its sessions are given back once nobody does.
 */
import { asPolyheadError } from "../base/errors.js";
import type { Identity } from "../onnx/identity.js";
import { partition, type Segment } from "../onnx/partition.js";
import type { SessionOptions } from "../runtime/backend.js";
import type { Runtime } from "../runtime/runtime.js";
import type { Tensor } from "../tensor/tensor.js";
import { computeConstants } from "./constants.js";
import type { Member } from "./member.js";
import { SegmentSession, spelled } from "./segment-session.js";

/** A segment with what runs it. */
export interface PlannedSegment {
  readonly segment: Segment;
  readonly session: SegmentSession;
}

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
    const known = new Map(
      (previous ? previous.#segments : []).map(({ session }) => [session.spelling, session]),
    );
    const planned: PlannedSegment[] = [];
    try {
      for (const segment of segments) {
        const byRow = segment.nodes.some(({ key }) => single.has(key));
        const spelling = spelled(segment, byRow);
        const session =
          known.get(spelling)?.hold() ??
          (await SegmentSession.make({ segment, spelling, byRow }, sources, runtime, heavy));
        planned.push({ segment, session });
      }
      const values = members.flatMap((each) => each.constants);
      const constants = await computeConstants(values, sources, runtime, previous?.constants ?? new Map());
      return new Plan(planned, sources, constants);
    } catch (thrown) {
      await Promise.all(planned.map(({ session }) => session.drop()));
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
    await Promise.all(this.#segments.map(({ session }) => session.drop()));
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
