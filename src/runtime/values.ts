/**
 * The values of one run of a program, by name: given, made, or failed. A backend keeps them while the program runs;
 * what depends on a failed value fails for the same reason.
 */
import { PolyheadError } from "../base/errors.js";
import { freeNow, keepMemory, keptMemory } from "../base/memory.js";
import { stackRows, takeRows } from "../tensor/rows.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Given, RunResult } from "./backend.js";

/** Values under way. */
export class Values {
  readonly #values: Map<string, Given>;
  readonly #failures = new Map<string, PolyheadError>();
  readonly #stacks: Tensor[] = [];
  readonly #made: Tensor[] = [];

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
    const stack = stackRows(value, keptMemory);
    this.#values.set(name, stack);
    if (value.length > 1) this.#stacks.push(stack);
    return this.get(name, rows);
  }

  /** Ends the run: memory that only it has used is kept for the next one where that can write to it, and else freed. */
  end(results: ReadonlyMap<string, Tensor>): void {
    const buffers = new Set([...results.values()].map((each) => bufferOf(each)));
    for (const stack of this.#stacks) {
      const buffer = bufferOf(stack);
      if (buffer instanceof ArrayBuffer && !buffers.has(buffer)) keepMemory(buffer);
    }
    for (const made of this.#made)
      if (ArrayBuffer.isView(made.data) && !buffers.has(made.data.buffer)) freeNow(made.data);
  }

  /** A value that a step has made, in memory of its own. */
  set(name: string, value: Tensor): void {
    this.#values.set(name, value);
    this.#made.push(value);
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

function bufferOf({ data }: Tensor): ArrayBufferLike | undefined {
  return ArrayBuffer.isView(data) ? data.buffer : undefined;
}

/** Whether it is pieces that are stacked. */
export function isStack(value: Given): value is readonly Tensor[] {
  return Array.isArray(value);
}
