/** ONNX Runtime behind a gate: a test decides when runs go on and when a worker dies. */
import { PolyheadError } from "../../src/base/errors.js";
import type {
  Backend,
  Program,
  RunResult,
  SessionOptions,
  StartBackend,
  Variable,
} from "../../src/runtime/backend.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import type { Tensor } from "../../src/tensor/tensor.js";

/** All workers of a test. */
export class Gate {
  readonly workers: GatedWorker[] = [];
  /** Programs that wait. */
  waiting = 0;
  #open: Promise<void> = Promise.resolve();
  #release: () => void = () => {};

  readonly start: StartBackend = async () => {
    const worker = new GatedWorker(await OrtWorker.start(), this);
    this.workers.push(worker);
    return worker;
  };

  /** From here on runs wait, as they would behind a long one. */
  shut(): void {
    this.#open = new Promise((resolve) => {
      this.#release = resolve;
    });
  }

  /** Lets them go. */
  open(): void {
    this.#release();
  }

  /** Until the gate is open. */
  async pass(): Promise<void> {
    this.waiting++;
    await this.#open;
    this.waiting--;
  }
}

/** A worker thread whose calls keep their order although runs may have to wait. */
class GatedWorker implements Backend {
  readonly lost: Promise<Error>;
  readonly kept: number[] = [];
  creations = 0;
  readonly #inner: OrtWorker;
  readonly #gate: Gate;
  readonly #death: Promise<never>;
  #kill: (reason: PolyheadError) => void = () => {};
  #dead = false;
  #last: Promise<unknown> = Promise.resolve();

  constructor(inner: OrtWorker, gate: Gate) {
    this.#inner = inner;
    this.#gate = gate;
    this.#death = new Promise<never>((_, reject) => {
      this.#kill = reject;
    });
    this.lost = this.#death.catch((reason: Error) => reason);
  }

  /** Ends it as a crash would. */
  die(): void {
    this.#dead = true;
    this.#kill(new PolyheadError("WORKER_LOST", "The test ended this worker.", {}));
    void this.#last.catch(() => {}).then(() => this.#inner.close());
  }

  create(session: number, model: Uint8Array, options: SessionOptions): Promise<void> {
    this.creations++;
    return this.#inOrder(() => this.#inner.create(session, model, options));
  }

  keep(tensor: number, value: Tensor): Promise<void> {
    this.kept.push(tensor);
    return this.#inOrder(() => this.#inner.keep(tensor, value));
  }

  keepVariable(variable: number, value: Variable): Promise<void> {
    return this.#inOrder(() => this.#inner.keepVariable(variable, value));
  }

  run(
    program: Program,
    values: ReadonlyMap<string, Tensor>,
    taken?: readonly ArrayBuffer[],
  ): Promise<RunResult> {
    return this.#inOrder(async () => {
      await this.#gate.pass();
      return this.#inner.run(program, values, taken);
    });
  }

  release(number: number): Promise<void> {
    return this.#inOrder(() => this.#inner.release(number));
  }

  close(): Promise<void> {
    return this.#dead ? Promise.resolve() : this.#inOrder(() => this.#inner.close());
  }

  #inOrder<T>(act: () => Promise<T>): Promise<T> {
    const done = this.#last.then(() => (this.#dead ? this.#death : act()));
    this.#last = done.catch(() => {});
    return Promise.race([done, this.#death]);
  }
}
