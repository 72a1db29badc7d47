/**
 * The sessions for a set of loaded models: their partition, one session a segment. A plan is built aside, warmed
 * up, and then never changes; requests hold it while they run, and its sessions are given back once nobody does.
 */
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { asPolyheadError } from "../base/errors.js";
import type { Identity } from "../onnx/identity.js";
import type { ValueType } from "../onnx/model.js";
import { partition, type Segment } from "../onnx/partition.js";
import { segmentModel } from "../onnx/segment-model.js";
import { modelBytes } from "../onnx/write.js";
import type { Program, Step } from "../runtime/backend.js";
import type { Runtime, SessionHandle } from "../runtime/runtime.js";
import { DTYPES } from "../tensor/dtype.js";
import { elementCount, isConcrete } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Member } from "./member.js";

/** A segment with its session. */
interface PlannedSegment {
  readonly segment: Segment;
  readonly key: string;
  readonly byRow: boolean;
  readonly handle: SessionHandle;
}

/** Operators whose work is worth several threads. */
const HEAVY = new Set(["Conv", "ConvTranspose", "MatMul", "QLinearConv", "ConvInteger", "Attention"]);

/** The sessions of one set of members. */
export class Plan {
  readonly #segments: readonly PlannedSegment[];
  /** The segment that makes a value. */
  readonly #makers = new Map<Identity, PlannedSegment>();
  #users = 1;

  private constructor(segments: readonly PlannedSegment[]) {
    this.#segments = segments;
    for (const each of segments) for (const value of each.segment.outputs) this.#makers.set(value, each);
  }

  /**
   * Makes and tries out the sessions; those that a living plan has already are shared with it.
   * @throws PolyheadError LOAD_FAILED, MODEL_UNSUPPORTED; then nothing of it remains
   */
  static async build(
    members: readonly Member[],
    runtime: Runtime,
    threads: number,
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
    const known = new Set(previous?.keys);
    const planned: PlannedSegment[] = [];
    try {
      for (const segment of segments) {
        const byRow = segment.nodes.some(({ key }) => single.has(key));
        const key = keyOf(segment, byRow);
        const options = { threads: isHeavy(segment) ? threads : 1 };
        const handle = await runtime.acquire(key, () => modelBytes(segmentModel(segment, sources)), options);
        planned.push({ segment, key, byRow, handle });
        if (!known.has(key)) await warmUp(segment, handle, sources, runtime);
      }
      return new Plan(planned);
    } catch (thrown) {
      await Promise.all(planned.map(({ handle }) => handle.release()));
      throw asPolyheadError(thrown, "LOAD_FAILED", "The model could not be loaded");
    }
  }

  /** Keys of the sessions. */
  get keys(): string[] {
    return this.#segments.map(({ key }) => key);
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
    await Promise.all(this.#segments.map(({ handle }) => handle.release()));
  }

  /**
   * The steps that make `wanted` out of what is `given`, and no others. Results are the wanted values and those
   * that pass between segments.
   */
  program(wanted: Iterable<Identity>, given: (identity: Identity) => boolean): PlannedProgram {
    const needed = new Map<PlannedSegment, Set<Identity>>();
    const open = [...wanted].filter((each) => !given(each));
    const passing = new Set<Identity>();
    for (let value = open.pop(); value !== undefined; value = open.pop()) {
      const maker = this.#makers.get(value);
      if (!maker) continue;
      const values = needed.get(maker);
      values?.add(value);
      if (values) continue;
      needed.set(maker, new Set([value]));
      for (const input of maker.segment.inputs) {
        if (!this.#makers.has(input)) continue;
        passing.add(input);
        if (!given(input)) open.push(input);
      }
    }
    const used = this.#segments.filter((each) => needed.has(each));
    return {
      steps: used.map((each) => stepFor(each, needed.get(each) ?? new Set())),
      usedBy: used.map(({ segment }) => segment.usedBy),
      made: new Set([...needed.values()].flatMap((values) => [...values])),
      passing,
    };
  }
}

/** What it takes to answer a request. */
export interface PlannedProgram extends Pick<Program, "steps"> {
  /** The members that need each step. */
  readonly usedBy: readonly (readonly string[])[];
  /** Values that the steps hand out. */
  readonly made: ReadonlySet<Identity>;
  /** Values that steps take from other segments, made or given. */
  readonly passing: ReadonlySet<Identity>;
}

function stepFor({ segment, handle, byRow }: PlannedSegment, values: ReadonlySet<Identity>): Step {
  return {
    session: handle.session,
    feeds: segment.inputs.map((each) => [each, each] as const),
    fetches: [...values].map((each) => [each, each] as const),
    ...(byRow && { byRow }),
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

function isHeavy(segment: Segment): boolean {
  return segment.nodes.filter(({ node }) => HEAVY.has(node.opType)).length > 2;
}

/** Names what a session computes; equal keys are equal sessions. */
function keyOf(segment: Segment, byRow: boolean): string {
  const parts = [segment.nodes.map(({ key }) => key), segment.inputs, segment.outputs, byRow];
  return bytesToHex(sha256(new TextEncoder().encode(JSON.stringify(parts))));
}

/** One run on zeros; left out where the shape of an input is not known. */
async function warmUp(
  segment: Segment,
  handle: SessionHandle,
  sources: readonly Member[],
  runtime: Runtime,
): Promise<void> {
  const values = new Map<Identity, Tensor>();
  for (const input of segment.inputs) {
    const type = sources.flatMap(({ types }) => types.get(input) ?? [])[0];
    const zero = type && zeros(type);
    if (!zero) return;
    values.set(input, zero);
  }
  const step: Step = {
    session: handle.session,
    feeds: segment.inputs.map((each) => [each, each] as const),
    fetches: segment.outputs.map((each) => [each, each] as const),
  };
  await runtime.run({ steps: [step], results: [] }, values);
}

function zeros({ dtype, shape }: ValueType): Tensor | undefined {
  const sizes = shape?.map((size, axis) => (axis === 0 && typeof size === "string" ? 1 : size));
  if (!sizes || !isConcrete(sizes) || DTYPES[dtype].bits % 8 !== 0 || dtype === "string") return undefined;
  const count = elementCount(sizes) * (dtype.startsWith("complex") ? 2 : 1);
  return { dtype, shape: sizes, data: new DTYPES[dtype].array(count) };
}
