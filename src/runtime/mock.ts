/**
 * A backend without ONNX, for tests: a model is the UTF-8 name of a plain function, and whoever tests decides when
 * a call goes on and whether it fails. It is stricter than a real one: what breaks the contract of a
 * {@link Backend} is kept as a fault, for the test to look at.
 */
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import { elementCount } from "../tensor/shape.js";
import { float32, type Tensor } from "../tensor/tensor.js";
import type {
  Backend,
  Change,
  Given,
  Program,
  RunResult,
  SessionOptions,
  StartBackend,
  Step,
  Variable,
} from "./backend.js";
import { interpret } from "./kernel.js";
import { Values } from "./values.js";

/** What a mock session computes: tensors by input name to tensors by output name. */
export type MockFunction = (inputs: ReadonlyMap<string, Tensor>) => Record<string, Tensor>;

/** A call that a backend is about to perform. */
export interface MockCall {
  readonly kind: "start" | "create" | "keep" | "run" | "release" | "close";
  readonly backend: MockBackend;
  /** The session that is made or freed; the first one of a program. */
  readonly session?: number | undefined;
  /** What is made: the model's name. */
  readonly model?: string | undefined;
}

/** Called before each call; what it waits for delays the call, what it throws fails it. */
export type MockGate = (call: MockCall) => Promise<void> | void;

/** The backends of one test. */
export class MockMachine {
  /** All that were ever started, in order. */
  readonly backends: MockBackend[] = [];
  /** Breaches of the contract, in words. A correct caller makes none. */
  readonly faults: string[] = [];
  readonly functions: ReadonlyMap<string, MockFunction>;
  gate: MockGate;

  constructor(functions: Readonly<Record<string, MockFunction>>, gate: MockGate = () => {}) {
    this.functions = new Map(Object.entries(functions));
    this.gate = gate;
  }

  /** Starts a backend. */
  readonly start: StartBackend = async () => {
    const backend = new MockBackend(this);
    await this.gate({ kind: "start", backend });
    this.backends.push(backend);
    return backend;
  };

  /** Those that have neither died nor been closed. */
  get living(): MockBackend[] {
    return this.backends.filter(({ state }) => state === "alive");
  }
}

/** A backend in memory. Calls are performed one at a time in the order they came, as a worker thread does. */
export class MockBackend implements Backend {
  readonly lost: Promise<Error>;
  /** Sessions that are there now, by number. */
  readonly sessions = new Map<number, string>();
  /** Tensors and variables that are kept now, by number. */
  readonly tensors = new Map<number, Tensor>();
  readonly #arenas = new Map<number, string>();
  state: "alive" | "dead" | "closed" = "alive";
  readonly #machine: MockMachine;
  readonly #death: Promise<never>;
  readonly #kill: (reason: PolyheadError) => void;
  #last: Promise<unknown> = Promise.resolve();

  constructor(machine: MockMachine) {
    this.#machine = machine;
    let kill: (reason: PolyheadError) => void = () => {};
    this.#death = new Promise<never>((_, reject) => {
      kill = reject;
    });
    this.#kill = kill;
    this.lost = this.#death.catch((reason: Error) => reason);
  }

  /** Ends it: calls under way and calls to come reject with WORKER_LOST. */
  die(): void {
    if (this.state !== "alive") return;
    this.state = "dead";
    this.sessions.clear();
    this.tensors.clear();
    this.#kill(new PolyheadError("WORKER_LOST", "A mock worker died.", {}));
  }

  create(session: number, model: Uint8Array, _options: SessionOptions): Promise<void> {
    const name = new TextDecoder().decode(model);
    return this.#perform({ kind: "create", backend: this, session, model: name }, () => {
      if (this.sessions.has(session)) this.#fault(`session ${session} is made twice`);
      if (!this.#machine.functions.has(name))
        throw new PolyheadError("LOAD_FAILED", `No function ${JSON.stringify(name)}.`, {});
      this.sessions.set(session, name);
    });
  }

  keep(tensor: number, value: Tensor): Promise<void> {
    return this.#perform({ kind: "keep", backend: this }, () => {
      if (this.tensors.has(tensor)) this.#fault(`tensor ${tensor} is kept twice`);
      this.tensors.set(tensor, value);
    });
  }

  keepVariable(variable: number, { shape, start, arena }: Variable): Promise<void> {
    return this.#perform({ kind: "keep", backend: this }, () => {
      if (this.tensors.has(variable)) this.#fault(`variable ${variable} is kept twice`);
      const elements = new Float32Array(elementCount(shape));
      if (start?.data instanceof Float32Array) elements.set(start.data);
      this.tensors.set(variable, float32(shape, elements));
      this.#arenas.set(variable, arena);
    });
  }

  run(
    program: Program,
    values: ReadonlyMap<string, Given>,
    taken: readonly ArrayBuffer[] = [],
  ): Promise<RunResult> {
    const given = taken.length > 0 ? structuredClone(values, { transfer: [...taken] }) : values;
    const [first] = program.steps;
    return this.#perform({ kind: "run", backend: this, session: first?.session }, () => {
      const values = new Values(given);
      let hasFailed = false;
      for (const step of program.steps) {
        const compute = this.#machine.functions.get(this.sessions.get(step.session) ?? "");
        if (!compute) {
          this.#fault(`session ${step.session} runs and is not there`);
          throw new PolyheadError("CLOSED", `Session ${step.session} is not there.`, {});
        }
        try {
          const made = new Map(Object.entries(compute(this.#inputsOf(step, values))));
          for (const [output, name] of step.fetches) values.set(name, require(made, output));
        } catch (thrown) {
          const error = asPolyheadError(thrown, "RUN_FAILED", "A mock function failed");
          for (const [, name] of step.fetches) values.fail(name, error);
          hasFailed = true;
        }
      }
      if (!hasFailed) for (const change of program.changes ?? []) this.#change(change, values);
      for (const [tensor, name] of program.reads ?? []) values.set(name, structuredClone(this.#kept(tensor)));
      return { ...values.select(program.results), stepTimes: program.steps.map(() => 0) };
    });
  }

  release(number: number): Promise<void> {
    return this.#perform({ kind: "release", backend: this, session: number }, () => {
      if (!this.sessions.delete(number) && !this.tensors.delete(number))
        this.#fault(`${number} is freed and is not there`);
    });
  }

  close(): Promise<void> {
    return this.#perform({ kind: "close", backend: this }, () => {
      this.sessions.clear();
      this.tensors.clear();
      this.state = "closed";
    });
  }

  #inputsOf({ feeds, kept = [] }: Step, values: Values): Map<string, Tensor> {
    const given = feeds.map(([input, name, rows]) => [input, values.get(name, rows)] as const);
    return new Map([...given, ...kept.map(([input, tensor]) => [input, this.#kept(tensor)] as const)]);
  }

  #change({ kernel, operands, numbers }: Change, values: Values): void {
    const written = kernel.writes.map(([place]) => this.#arenas.get(Number(operands[place])));
    if (written.includes(undefined) || new Set(written).size > 1)
      this.#fault(`what ${operands.join(", ")} become is not written into variables of one arena`);
    const arrays = operands.map((each) => {
      const { data } = typeof each === "number" ? this.#kept(each) : values.get(each);
      return data instanceof Float32Array ? data : new Float32Array(0);
    });
    const each = numbers.map((one) => (typeof one === "number" ? one : Number(values.get(one).data[0])));
    interpret(kernel, arrays, each);
  }

  #kept(tensor: number): Tensor {
    const value = this.tensors.get(tensor);
    if (value) return value;
    this.#fault(`tensor ${tensor} is read and is not kept`);
    throw new PolyheadError("CLOSED", `Tensor ${tensor} is not kept.`, {});
  }

  #perform<T>(call: MockCall, act: () => T): Promise<T> {
    if (this.state === "closed") this.#fault(`${call.kind} after close`);
    const done = this.#last.then(async () => {
      if (!this.#isDead()) await this.#machine.gate(call);
      return this.#isDead() ? this.#death : act();
    });
    this.#last = done.catch(() => {});
    return Promise.race([done, this.#death]);
  }

  #isDead(): boolean {
    return this.state === "dead";
  }

  #fault(what: string): void {
    this.#machine.faults.push(`backend ${this.#machine.backends.indexOf(this)}: ${what}`);
  }
}

function require(values: ReadonlyMap<string, Tensor>, name: string): Tensor {
  const value = values.get(name);
  if (value) return value;
  throw new PolyheadError("RUN_FAILED", `No value ${JSON.stringify(name)}.`, {});
}
