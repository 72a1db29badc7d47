/** Mock machines with a hand on every call, and the small programs that the tests of the runtime run. */

import type { Program } from "../../src/runtime/backend.js";
import { type MockCall, MockMachine } from "../../src/runtime/mock.js";
import { float32, type Tensor, toNumbers } from "../../src/tensor/tensor.js";

/** What the mock's models compute. */
export const FUNCTIONS = {
  double: (inputs: ReadonlyMap<string, Tensor>) => ({ y: mapped(inputs, (x) => 2 * x) }),
  negate: (inputs: ReadonlyMap<string, Tensor>) => ({ y: mapped(inputs, (x) => -x) }),
  fail: (): Record<string, Tensor> => {
    throw new Error("computed nonsense");
  },
};

function mapped(inputs: ReadonlyMap<string, Tensor>, change: (x: number) => number): Tensor {
  const { x } = Object.fromEntries(inputs);
  if (!x) throw new Error("no x");
  return float32(x.shape, toNumbers(x).map(change));
}

/** A call that waits for the test. */
export interface HeldCall extends MockCall {
  /** Lets it happen. */
  readonly pass: () => void;
  /** Lets it fail. */
  readonly fail: (reason: Error) => void;
}

/** A machine whose calls of some kinds wait until the test lets them go. */
export class HeldMachine extends MockMachine {
  readonly held: HeldCall[] = [];

  constructor(...kinds: MockCall["kind"][]) {
    super(FUNCTIONS);
    this.hold(...kinds);
  }

  /** From now on calls of these kinds wait, and no others. */
  hold(...kinds: MockCall["kind"][]): void {
    this.gate = (call) => {
      if (!kinds.includes(call.kind)) return;
      return new Promise((pass, fail) => {
        this.held.push({ ...call, pass, fail });
      });
    };
  }

  /** Takes the calls that wait. */
  async take(count: number): Promise<HeldCall[]> {
    await settle();
    if (this.held.length !== count) throw new Error(`${this.held.length} calls wait, not ${count}`);
    return this.held.splice(0);
  }

  /** Takes the one call that waits. */
  async takeOne(): Promise<HeldCall> {
    const [call] = await this.take(1);
    if (!call) throw new Error("no call waits");
    return call;
  }
}

/** Until everything that can go on without the test has gone on. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A model of a mock machine. */
export function mockModel(name: string): () => Uint8Array {
  return () => new TextEncoder().encode(name);
}

/** Sessions one after the other: `x` in, `y` out. */
export function chain(...sessions: number[]): Program {
  return {
    steps: sessions.map((session, at) => ({
      session,
      feeds: [["x", at === 0 ? "in" : `mid${at}`]] as const,
      fetches: [["y", at === sessions.length - 1 ? "out" : `mid${at + 1}`]] as const,
    })),
    results: ["out"],
  };
}

/** The value that {@link chain} reads. */
export function given(...numbers: number[]): Map<string, Tensor> {
  return new Map([["in", float32([numbers.length], numbers)]]);
}

/** The numbers that {@link chain} made. */
export function numbersOf(result: { values: ReadonlyMap<string, Tensor> }): number[] {
  const out = result.values.get("out");
  return out ? [...toNumbers(out)] : [];
}

/** How a promise stands once everything has gone on that can: `waiting`, `done` or the code of its failure. */
export async function stateOf(promise: Promise<unknown>): Promise<string> {
  let state = "waiting";
  promise.then(
    () => {
      state = "done";
    },
    (error: { code?: string }) => {
      state = error.code ?? String(error);
    },
  );
  await settle();
  return state;
}
