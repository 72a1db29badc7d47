/** How shadows follow the revisions that answer: outputs of both on the same features, compared row by row. */
import type { Answer } from "../engine/index.js";
import { sameShape } from "../tensor/shape.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";
import type { Comparison } from "./service.js";

interface Account {
  rows: number;
  failed: number;
  /** Rows of classifiers, and those with the same first class. */
  classified: number;
  agreed: number;
  /** Elements that were compared, and their differences. */
  elements: number;
  difference: number;
  largest: number;
  /** Milliseconds of what ran for the shadow alone, its share of a batch. */
  milliseconds: number;
}

/** Comparisons by route and shadow. */
export class Comparisons {
  readonly #accounts = new Map<string, Map<string, Account>>();

  /** An answer with what its shadows made. */
  add(route: string, { ran, batchRows, routes }: Answer, rows: number): void {
    const answer = routes[route];
    if (!answer) return;
    const { revision: main, outputs } = answer;
    for (const { revision, outputs: made } of answer.shadows) {
      const account = this.#of(route, revision);
      for (const { usedBy, milliseconds } of ran) {
        const isOwn = usedBy.includes(revision) && !usedBy.includes(main);
        if (isOwn && batchRows > 0) account.milliseconds += (milliseconds * rows) / batchRows;
      }
      account.rows += rows;
      if (!made) account.failed += rows;
      for (const [name, value] of Object.entries(made ?? {})) compare(account, outputs[name], value);
    }
  }

  /** What is known of a route's shadows; forgotten for revisions that are none any more. */
  report(route: string, shadows: readonly string[]): Comparison[] {
    return shadows.map((revision) => {
      const account = this.#of(route, revision);
      const { rows, failed, classified, agreed, elements, difference, largest, milliseconds } = account;
      return {
        revision,
        rows,
        failed,
        cost: rows > 0 ? milliseconds / rows : 0,
        ...(classified > 0 && { agreement: agreed / classified }),
        ...(elements > 0 && { meanDifference: difference / elements, maxDifference: largest }),
      };
    });
  }

  #of(route: string, revision: string): Account {
    const accounts = this.#accounts.get(route) ?? new Map<string, Account>();
    this.#accounts.set(route, accounts);
    const known = accounts.get(revision);
    if (known) return known;
    const made = {
      rows: 0,
      failed: 0,
      classified: 0,
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

function compare(account: Account, expected: Tensor | undefined, got: Tensor): void {
  const isNumeric = ArrayBuffer.isView(got.data) && expected?.dtype === got.dtype;
  if (!expected || !isNumeric || !sameShape(expected.shape, got.shape)) return;
  const [left, right] = [toNumbers(expected), toNumbers(got)];
  for (const [at, value] of left.entries()) {
    const difference = Math.abs(value - (right[at] ?? Number.NaN));
    account.difference += difference;
    account.largest = Math.max(account.largest, difference);
  }
  account.elements += left.length;
  const [rows = 0, classes = 0] = got.shape;
  if (got.shape.length !== 2 || classes < 2) return;
  for (let row = 0; row < rows; row++) {
    account.classified++;
    const [start, end] = [row * classes, (row + 1) * classes];
    if (firstClass(left.subarray(start, end)) === firstClass(right.subarray(start, end))) account.agreed++;
  }
}

function firstClass(scores: Float64Array): number {
  return scores.reduce(
    (best, score, at) => (score > (scores[best] ?? Number.NEGATIVE_INFINITY) ? at : best),
    0,
  );
}
