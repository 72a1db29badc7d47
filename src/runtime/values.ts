/**
 * The values of one run of a program, by name: given, made, or failed. A backend keeps them while the program runs;
 * what depends on a failed value fails for the same reason.
 */
import { PolyheadError } from "../base/errors.js";
import { stackRows, takeRows } from "../tensor/rows.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Given, RunResult } from "./backend.js";

/** Values under way. */
export class Values {
  readonly #values: Map<string, Given>;
  readonly #failures = new Map<string, PolyheadError>();

  constructor(given: ReadonlyMap<string, Given>) {
    this.#values = new Map(given);
  }

  /**
   * A value, or some rows of it.
   * @throws PolyheadError the reason why it failed, INTERNAL when nothing made it, INPUT_MISMATCH when its pieces do
   *   not go together
   */
  get(name: string, rows?: readonly number[]): Tensor {
    const failure = this.#failures.get(name);
    if (failure) throw failure;
    const value = this.#values.get(name);
    if (!value)
      throw new PolyheadError("INTERNAL", `The program reads ${name} before anything made it.`, {
        value: name,
      });
    if (!isStack(value)) return rows ? takeRows(value, rows) : value;
    this.#values.set(name, stackRows(value));
    return this.get(name, rows);
  }

  /** A value that a step has made. */
  set(name: string, value: Tensor): void {
    this.#values.set(name, value);
  }

  /** A value that a step should have made. */
  fail(name: string, reason: PolyheadError): void {
    this.#failures.set(name, reason);
  }

  /** Those of `names` that are there, and why the others are not. */
  select(names: readonly string[]): Pick<RunResult, "values" | "failures"> {
    const failed = names.flatMap((name) => {
      const failure = this.#failures.get(name);
      return failure ? [[name, failure] as const] : [];
    });
    const failures = new Map(failed);
    const made = names.filter((name) => !failures.has(name));
    return { values: new Map(made.map((name) => [name, this.get(name)])), failures };
  }
}

function isStack(value: Given): value is readonly Tensor[] {
  return Array.isArray(value);
}
