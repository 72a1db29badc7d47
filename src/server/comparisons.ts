/**
 * How shadows follow the revisions that answer, and canaries the main revision: outputs of both on the same features,
 * compared row by row. Numbers only grow; they begin anew with the process.
 */
import type { Answer } from "../engine/index.js";
import type { Metadata } from "../onnx/metadata.js";
import { sameShape } from "../tensor/shape.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";
import type { Comparison } from "./service.js";

/** What was compared of one revision of one route. */
export interface ComparisonAccount {
  readonly route: string;
  readonly revision: string;
  readonly rows: number;
  readonly failed: number;
  /** Rows that an agreement is known of, and the sum of their agreements. */
  readonly judged: number;
  readonly agreed: number;
  /** Elements that were compared, and their differences. */
  readonly elements: number;
  readonly difference: number;
  readonly largest: number;
  /** Milliseconds of what ran for the comparison alone, its share of a batch. */
  readonly milliseconds: number;
}

type Account = { -readonly [Name in keyof ComparisonAccount]: ComparisonAccount[Name] };

/** Rows that two revisions answered alike or not, and the sum of their agreements, each from 0 to 1. */
export interface Agreement {
  readonly compared: number;
  readonly agreed: number;
}

/**
 * How two rows agree. `class`: 1 where the first class is the same, else 0. `cosine`: the cosine of the angle between them, 0
 * where it is negative.
 */
export type AgreementMeasure = "class" | "cosine";

/**
 * How rows of a head agree; undefined where one number cannot say it, as for boxes. A head without a task that has labels is
 * taken for a classifier, one without labels for an embedding.
 */
export function agreementMeasure({ task, labels }: Metadata): AgreementMeasure | undefined {
  if (task === "classification" || (task === undefined && labels)) return "class";
  return task === "embedding" || task === undefined ? "cosine" : undefined;
}

/** Comparisons by route and revision. */
export class Comparisons {
  readonly #accounts = new Map<string, Map<string, Account>>();

  /** An answer with what ran beside it. @returns how a canary that answered agrees with the main revision */
  add(route: string, answer: Answer, rows: number, measure: AgreementMeasure | undefined): Agreement {
    const { revision, outputs, shadows, reference } = answer.routes[route] ?? NOTHING;
    for (const shadow of shadows) {
      const account = this.#of(route, shadow.revision);
      account.milliseconds += costOf(answer, shadow.revision, revision, rows);
      account.rows += rows;
      if (shadow.outputs) compare(account, outputs, shadow.outputs, measure);
      else account.failed += rows;
    }
    if (!reference) return { compared: 0, agreed: 0 };
    const account = this.#of(route, revision);
    const { judged, agreed } = account;
    account.milliseconds += costOf(answer, reference.revision, revision, rows);
    account.rows += rows;
    // That the main revision failed is no fault of the canary: there is nothing to compare it with.
    if (reference.outputs) compare(account, reference.outputs, outputs, measure);
    return { compared: account.judged - judged, agreed: account.agreed - agreed };
  }

  /** What is known of some of a route's revisions. */
  report(route: string, revisions: readonly string[]): Comparison[] {
    return revisions.map((revision) => shown(this.#of(route, revision)));
  }

  /** Everything that was compared since the process began. */
  get all(): readonly ComparisonAccount[] {
    return [...this.#accounts.values()].flatMap((accounts) => [...accounts.values()]);
  }

  #of(route: string, revision: string): Account {
    const accounts = this.#accounts.get(route) ?? new Map<string, Account>();
    this.#accounts.set(route, accounts);
    const known = accounts.get(revision);
    if (known) return known;
    const made = {
      route,
      revision,
      rows: 0,
      failed: 0,
      judged: 0,
      agreed: 0,
      elements: 0,
      difference: 0,
      largest: 0,
      milliseconds: 0,
    };
    accounts.set(revision, made);
    return made;
  }
}

const NOTHING = { revision: "", outputs: {}, shadows: [], reference: undefined };

function shown(account: ComparisonAccount): Comparison {
  const { revision, rows, failed, judged, agreed, elements, difference, largest, milliseconds } = account;
  return {
    revision,
    rows,
    failed,
    cost: rows > 0 ? milliseconds / rows : 0,
    ...(judged > 0 && { agreement: agreed / judged }),
    ...(elements > 0 && { meanDifference: difference / elements, maxDifference: largest }),
  };
}

/** Milliseconds of the segments that ran for one revision and not for the one that answers. */
function costOf({ ran, batchRows }: Answer, revision: string, answering: string, rows: number): number {
  if (batchRows === 0) return 0;
  const own = ran.filter(({ usedBy }) => usedBy.includes(revision) && !usedBy.includes(answering));
  return own.reduce((sum, { milliseconds }) => sum + (milliseconds * rows) / batchRows, 0);
}

function compare(
  account: Account,
  expected: Readonly<Record<string, Tensor>>,
  got: Readonly<Record<string, Tensor>>,
  measure: AgreementMeasure | undefined,
): void {
  for (const [name, value] of Object.entries(got)) compareTensor(account, expected[name], value, measure);
}

function compareTensor(
  account: Account,
  expected: Tensor | undefined,
  got: Tensor,
  measure: AgreementMeasure | undefined,
): void {
  const isNumeric = ArrayBuffer.isView(got.data) && expected?.dtype === got.dtype;
  if (!expected || !isNumeric || !sameShape(expected.shape, got.shape)) return;
  const [left, right] = [toNumbers(expected), toNumbers(got)];
  for (const [at, value] of left.entries()) {
    const difference = Math.abs(value - (right[at] ?? Number.NaN));
    if (!Number.isFinite(difference)) continue;
    account.elements++;
    account.difference += difference;
    account.largest = Math.max(account.largest, difference);
  }
  const [rows = 0, width = 0] = got.shape;
  if (!measure || got.shape.length !== 2 || width < 2) return;
  for (let row = 0; row < rows; row++) {
    const [start, end] = [row * width, (row + 1) * width];
    const [a, b] = [left.subarray(start, end), right.subarray(start, end)];
    account.judged++;
    account.agreed += measure === "cosine" ? cosine(a, b) : Number(firstClass(a) === firstClass(b));
  }
}

/** From 0 to 1; of equal rows 1, even where all is zero; 0 where something is no number. */
function cosine(a: Float64Array, b: Float64Array): number {
  let [product, left, right] = [0, 0, 0];
  for (const [at, value] of a.entries()) {
    const other = b[at] ?? Number.NaN;
    product += value * other;
    left += value * value;
    right += other * other;
  }
  if (left === 0 && right === 0) return 1;
  const angle = product / Math.sqrt(left * right);
  return angle > 0 ? Math.min(1, angle) : 0;
}

function firstClass(scores: Float64Array): number {
  return scores.reduce(
    (best, score, at) => (score > (scores[best] ?? Number.NEGATIVE_INFINITY) ? at : best),
    0,
  );
}
