/**
 * Random sequences of everything that can happen to a runtime, against a plain account of who holds what. The order
 * in which backends answer is random too. Whatever happens: each session and each tensor is in every living worker
 * exactly while somebody holds or runs it, every promise is answered, and no backend is misused.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { MockMachine } from "../../src/runtime/mock.js";
import { type Handle, Runtime } from "../../src/runtime/runtime.js";
import { float32 } from "../../src/tensor/tensor.js";
import { chain, FUNCTIONS, given, mockModel, numbersOf, settle } from "./machine.js";

type Command =
  | { readonly do: "acquire"; readonly key: string }
  | { readonly do: "keep"; readonly key: string }
  | { readonly do: "release tensor"; readonly which: number }
  | { readonly do: "release" | "run" | "run and give up" | "abort" | "die"; readonly which: number }
  | { readonly do: "answer"; readonly which: number; readonly how: "pass" | "fail" };

const which = fc.nat(20);
const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("acquire"),
      key: fc.constantFrom("a", "a", "b", "b", "c", "bad"),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("keep"), key: fc.constantFrom("k", "l") }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "release",
        "run",
        "run",
        "run",
        "run and give up",
        "run and give up",
        "abort",
        "abort",
      ),
      which,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("release tensor"), which }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("die"), which }) },
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("answer"),
      which,
      how: fc.constantFrom("pass", "pass", "pass", "pass", "pass", "fail"),
    }),
  },
);

interface Waiting {
  readonly kind: string;
  readonly pass: () => void;
  readonly fail: () => void;
}

class Scenario {
  readonly machine = new MockMachine(FUNCTIONS);
  readonly waiting: Waiting[] = [];
  readonly handles: Handle[] = [];
  readonly tensors: Handle[] = [];
  readonly aborts: AbortController[] = [];
  readonly promises: Promise<unknown>[] = [];
  readonly surprises: unknown[] = [];
  unanswered = 0;
  runtime: Runtime | undefined;

  async open(workers: number): Promise<Runtime> {
    this.runtime = await Runtime.open(this.machine.start, { workers, queueLimit: 5 });
    this.machine.gate = ({ kind }) =>
      new Promise<void>((pass, reject) => {
        const fail = () =>
          reject(new PolyheadError(kind === "create" ? "LOAD_FAILED" : "RUN_FAILED", "told to fail"));
        this.waiting.push({ kind, pass, fail });
      });
    return this.runtime;
  }

  /** Every promise must be answered, and only by what the catalogue foresees. */
  watch(promise: Promise<unknown>, ...expected: string[]): void {
    this.unanswered++;
    this.promises.push(
      promise.then(
        () => this.unanswered--,
        (error: { code?: string }) => {
          this.unanswered--;
          if (!expected.includes(error.code ?? "")) this.surprises.push(error);
        },
      ),
    );
  }

  perform(step: Command): void {
    const { runtime } = this;
    if (!runtime) return;
    if (step.do === "acquire") {
      const model = mockModel(step.key === "bad" ? "nothing" : "double");
      const load = runtime.acquire(step.key, model).then((handle) => this.handles.push(handle));
      this.watch(load, "LOAD_FAILED", "WORKER_LOST");
    } else if (step.do === "keep") {
      this.tensors.push(runtime.keep(step.key, float32([1], [1])));
    } else if (step.do === "release tensor") {
      const [tensor] = this.tensors.splice(step.which % Math.max(1, this.tensors.length), 1);
      if (tensor) this.watch(tensor.release());
    } else if (step.do === "answer") {
      const [call] = this.waiting.splice(step.which % Math.max(1, this.waiting.length), 1);
      // A backend that cannot keep, free or be closed is no part of its contract.
      if (step.how === "fail" && (call?.kind === "create" || call?.kind === "run")) call.fail();
      else call?.pass();
    } else if (step.do === "die") {
      this.machine.living[step.which % Math.max(1, this.machine.living.length)]?.die();
    } else if (step.do === "abort") {
      this.aborts[step.which % Math.max(1, this.aborts.length)]?.abort();
    } else {
      const [handle] = this.handles.slice(step.which % Math.max(1, this.handles.length));
      if (!handle) return;
      if (step.do === "release") {
        this.handles.splice(this.handles.indexOf(handle), 1);
        this.watch(handle.release());
        return;
      }
      const abort = new AbortController();
      if (step.do === "run and give up") this.aborts.push(abort);
      const kept = this.tensors.map(({ number }, at) => [`k${at}`, number] as const);
      const program = chain(handle.number);
      const steps = program.steps.map((each) => ({ ...each, kept }));
      const run = runtime.run({ ...program, steps }, given(3), abort.signal).then((result) => {
        if (numbersOf(result)[0] !== 6) this.surprises.push(numbersOf(result));
      });
      this.watch(run, "RUN_FAILED", "WORKER_LOST", "OVERLOADED", "ABORTED");
    }
  }

  /** From here on every call passes. */
  async finish(): Promise<void> {
    this.machine.gate = () => {};
    while (this.waiting.length > 0) {
      for (const { pass } of this.waiting.splice(0)) pass();
      await settle();
    }
    await settle();
  }
}

describe("after any sequence of events", () => {
  it("sessions live where they are held, and all promises are answered", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.array(fc.tuple(command, fc.boolean()), { minLength: 30, maxLength: 100, size: "max" }),
        async (workers, steps) => {
          const scenario = new Scenario();
          const runtime = await scenario.open(workers);
          for (const [step, pause] of steps) {
            scenario.perform(step);
            if (pause) await settle();
          }
          await scenario.finish();

          const held = new Set(scenario.handles.map(({ number }) => number));
          const kept = new Set(scenario.tensors.map(({ number }) => number));
          expect(scenario.surprises).toEqual([]);
          expect(scenario.unanswered).toBe(0);
          expect(scenario.machine.faults).toEqual([]);
          expect(runtime.stats).toMatchObject({ sessions: held.size + kept.size, queued: 0, running: 0 });
          for (const { sessions, tensors } of scenario.machine.living) {
            expect(new Set(sessions.keys())).toEqual(held);
            expect(new Set(tensors.keys())).toEqual(kept);
          }

          for (const handle of [...scenario.handles, ...scenario.tensors]) await handle.release();
          for (const { sessions, tensors } of scenario.machine.living)
            expect(sessions.size + tensors.size).toBe(0);
          await runtime.close();
          expect(scenario.machine.living).toEqual([]);
          expect(scenario.machine.faults).toEqual([]);
        },
      ),
      { numRuns: 300 },
    );
  });

  it("closing in the middle answers everybody and leaves no worker", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.array(fc.tuple(command, fc.boolean()), { minLength: 10, maxLength: 60, size: "max" }),
        fc.array(command, { maxLength: 10 }),
        async (workers, before, after) => {
          const scenario = new Scenario();
          const runtime = await scenario.open(workers);
          for (const [step, pause] of before) {
            scenario.perform(step);
            if (pause) await settle();
          }
          const closing = runtime.close();
          scenario.watch(closing);
          for (const step of after) if (step.do === "answer" || step.do === "die") scenario.perform(step);
          await scenario.finish();
          expect(scenario.surprises.filter((each) => (each as { code?: string }).code !== "CLOSED")).toEqual(
            [],
          );
          expect(scenario.unanswered).toBe(0);
          expect(scenario.machine.living).toEqual([]);
          expect(scenario.machine.faults).toEqual([]);
        },
      ),
      { numRuns: 300 },
    );
  });
});
