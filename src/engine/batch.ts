/**
 * Requests that run together. Their inputs are stacked; a segment runs on the rows of those requests that need it,
 * and what it makes is taken apart again. Requests for the same input, known by its digest, share their rows.
 * Whether requests may run together is for their callers to know: rows must not depend on each other.
 */
import { PolyheadError } from "../base/errors.js";
import type { Identity } from "../onnx/identity.js";
import type { Program, RunResult } from "../runtime/backend.js";
import { sliceRows } from "../tensor/rows.js";
import { formatShape } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Needs, Plan, PlannedSegment } from "./plan.js";

/** One request in a batch. */
export interface Part {
  readonly wanted: ReadonlySet<Identity>;
  /** Inputs, and features that the cache had. */
  readonly given: ReadonlyMap<Identity, Tensor>;
  readonly needs: Needs;
  /** Rows of its inputs; undefined for a request that runs by itself. */
  readonly rows: number | undefined;
  /** Names the content of its inputs. */
  readonly digest: string | undefined;
}

/** What a batch made of one request. */
export interface PartResult {
  /** Wanted values, and those between segments that may be kept for later. */
  readonly values: ReadonlyMap<Identity, Tensor>;
  readonly failures: ReadonlyMap<Identity, PolyheadError>;
  /** The segments that ran for it. */
  readonly ran: readonly { readonly usedBy: readonly string[]; readonly milliseconds: number }[];
}

/** Rows of one input, whoever asked for them. */
interface Source {
  readonly given: ReadonlyMap<Identity, Tensor>;
  readonly rows: number;
}

/** What a segment does in a batch. */
interface Turn {
  readonly values: ReadonlySet<Identity>;
  /** The sources whose rows it takes, ascending. */
  readonly sources: readonly number[];
}

/**
 * Requests of equal keys may share a batch: they read the same values, of shapes that differ in the first dimension
 * at most. Undefined for a request that runs by itself.
 */
export function batchKey({ rows, needs, given }: Part): string | undefined {
  if (rows === undefined) return undefined;
  const reads = [...needs.reads].sort();
  const shapes = reads.map((each) => [given.get(each)?.dtype, given.get(each)?.shape.slice(1)]);
  return JSON.stringify([reads, shapes]);
}

/** Several requests as one program. */
export class Batch {
  readonly #parts: readonly Part[];
  readonly #sources: Source[] = [];
  /** For each part its source. */
  readonly #sourceOf: number[] = [];
  readonly #turns: readonly [PlannedSegment, Turn][];
  readonly #turnOf = new Map<Identity, Turn>();

  /** @param parts of one plan and, if there are several, of one key */
  constructor(plan: Plan, parts: readonly Part[]) {
    this.#parts = parts;
    const byDigest = new Map<string, number>();
    const turns = new Map<PlannedSegment, { values: Set<Identity>; sources: Set<number> }>();
    for (const { given, rows = 1, digest, needs } of parts) {
      const known = digest === undefined ? undefined : byDigest.get(digest);
      const source = known ?? this.#sources.push({ given, rows }) - 1;
      if (digest !== undefined) byDigest.set(digest, source);
      this.#sourceOf.push(source);
      for (const [segment, values] of needs.made) {
        const turn = turns.get(segment) ?? { values: new Set(), sources: new Set() };
        turns.set(segment, turn);
        turn.sources.add(source);
        for (const value of values) turn.values.add(value);
      }
    }
    this.#turns = plan
      .inOrder(turns)
      .map(([segment, { values, sources }]) => [
        segment,
        { values, sources: [...sources].sort((a, b) => a - b) },
      ]);
    for (const [, turn] of this.#turns) for (const value of turn.values) this.#turnOf.set(value, turn);
  }

  /** Rows that run. */
  get rows(): number {
    return this.#sources.reduce((sum, { rows }) => sum + rows, 0);
  }

  /** The steps, and what they are to hand back: wanted values, and others where a digest says that they may be kept. */
  get program(): Program {
    const steps = this.#turns.map(([segment, turn]) =>
      segment.session.step(turn.values, (input) => this.#rowsOf(input, turn)),
    );
    const results = new Set<Identity>();
    for (const { wanted, digest, needs } of this.#parts) {
      for (const values of needs.made.values())
        for (const value of values)
          if (wanted.has(value) || (digest !== undefined && needs.passing.has(value))) results.add(value);
    }
    return { steps, results: [...results] };
  }

  /** What the steps read: for each value its pieces. */
  get values(): Map<Identity, Tensor | readonly Tensor[]> {
    const reads = new Set(this.#parts.flatMap(({ needs }) => [...needs.reads]));
    return new Map(
      [...reads].map((value) => {
        const pieces = this.#sources.flatMap(({ given }) => given.get(value) ?? []);
        const [only] = pieces;
        return [value, only && pieces.length === 1 ? only : pieces];
      }),
    );
  }

  /** The result of the program, part by part. */
  split({ values, failures, stepTimes }: RunResult): PartResult[] {
    return this.#parts.map(({ needs, wanted, given }, at) => {
      const source = this.#sourceOf[at] ?? 0;
      const own = new Map<Identity, Tensor>();
      const failed = new Map<Identity, PolyheadError>();
      for (const value of wanted) {
        const known = given.get(value);
        if (known) own.set(value, known);
      }
      for (const made of needs.made.values()) {
        for (const value of made) {
          const whole = values.get(value);
          const failure = failures.get(value);
          if (whole) own.set(value, this.#piece(value, whole, source));
          else if (failure) failed.set(value, failure);
        }
      }
      const ran = this.#turns.flatMap(([planned], step) =>
        needs.made.has(planned)
          ? [{ usedBy: planned.segment.usedBy, milliseconds: stepTimes[step] ?? 0 }]
          : [],
      );
      return { values: own, failures: failed, ran };
    });
  }

  /** Which rows of a value a turn takes; undefined for all that there are. */
  #rowsOf(value: Identity, { sources }: Turn): number[] | undefined {
    const from = this.#turnOf.get(value)?.sources ?? [...this.#sources.keys()];
    if (from.length === sources.length) return undefined;
    return sources.flatMap((source) => {
      const [start, end] = this.#range(from, source);
      return Array.from({ length: end - start }, (_, at) => start + at);
    });
  }

  #piece(value: Identity, whole: Tensor, source: number): Tensor {
    const sources = this.#turnOf.get(value)?.sources ?? [];
    if (sources.length === 1) return whole;
    const rows = sources.reduce((sum, each) => sum + (this.#sources[each]?.rows ?? 0), 0);
    const factor = (whole.shape[0] ?? 0) / rows; // an output may have several rows for each of the input's
    if (!Number.isInteger(factor)) {
      throw new PolyheadError(
        "INTERNAL",
        `A batch of ${rows} rows made a value of shape ${formatShape(whole.shape)}, which cannot be divided among them.`,
        { rows, shape: whole.shape },
      );
    }
    const [start, end] = this.#range(sources, source);
    return sliceRows(whole, start * factor, end * factor);
  }

  /** Where the rows of a source are among those of several. */
  #range(sources: readonly number[], source: number): [start: number, end: number] {
    let start = 0;
    for (const each of sources) {
      if (each === source) break;
      start += this.#sources[each]?.rows ?? 0;
    }
    return [start, start + (this.#sources[source]?.rows ?? 0)];
  }
}
