/**
 * The contract of a backend: something that holds compiled models and runs them. It is small on purpose; order,
 * sharing, draining and errors are the business of {@link Runtime}, which wraps any backend. A backend runs
 * whole programs, so that values which pass from one session to the next never leave it.
 */
import type { PolyheadError } from "../base/errors.js";
import type { Optimisation } from "../onnx/runner.js";
import type { Shape } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Kernel } from "./kernel.js";

/** How a session is made. */
export interface SessionOptions {
  /** Threads inside one operator; 1 by default. */
  readonly threads?: number;
  /** Whether threads that wait for work keep the processor rather than sleep; false by default. */
  readonly spinning?: boolean;
  /** `all` by default; `off` computes node by node as the file says. */
  readonly optimisation?: Optimisation;
  /**
   * Whether runs after the first take memory for all values in one piece; true by default. The memory of the first run
   * stays as well, so that graphs with large values take nearly twice as much.
   */
  readonly memoryPattern?: boolean;
}

/** A value that a program is given: a tensor, or pieces that are stacked along the first dimension. */
export type Given = Tensor | readonly Tensor[];

/** A session's input, the name of the value it is given, and which rows of it; all of them by default. */
export type Feed = readonly [input: string, value: string, rows?: readonly number[] | undefined];

/** One session's turn in a program. */
export interface Step {
  readonly session: number;
  readonly feeds: readonly Feed[];
  /** Session output, and the name under which its value is kept. */
  readonly fetches: readonly (readonly [output: string, value: string])[];
  /** Session input, and the number of the tensor or variable that the backend keeps for it. */
  readonly kept?: readonly (readonly [input: string, tensor: number])[];
  /** Run once for each row of the first dimension and stack the results: for graphs that take one row only. */
  readonly byRow?: boolean;
}

/** A kept float32 tensor that programs change. */
export interface Variable {
  readonly shape: Shape;
  /** What it begins with; zeros where nothing is said. */
  readonly start?: Tensor | undefined;
  /** Variables that are written together by one kernel have the same. */
  readonly arena: string;
}

/** A change of variables in place. */
export interface Change {
  readonly kernel: Kernel;
  /** Variables by number, and values of the program by name, which are only read; in the kernel's order. */
  readonly operands: readonly (number | string)[];
  /** In the kernel's order; the name of a value stands for its first element. */
  readonly numbers: readonly (number | string)[];
}

/** Steps in running order, and the values to hand back. */
export interface Program {
  readonly steps: readonly Step[];
  readonly results: readonly string[];
  /**
   * What happens to variables, in order, after the steps; nothing where a step failed. Each backend has variables of its own,
   * and one that replaces a dead one begins with what they began with; so this is for runtimes of one worker
   * whose caller begins anew after WORKER_LOST.
   */
  readonly changes?: readonly Change[];
  /** Kept tensors and variables, as they are after the changes, that are copied into values for `results`. */
  readonly reads?: readonly (readonly [tensor: number, value: string])[];
}

/** What a run gives: the values asked for, and the time that each step took. */
export interface RunResult {
  readonly values: ReadonlyMap<string, Tensor>;
  /** Why values that were asked for are missing: a step that fails takes with it what depends on it, and no more. */
  readonly failures: ReadonlyMap<string, PolyheadError>;
  /** Milliseconds of each step of the program. */
  readonly stepTimes: readonly number[];
}

/** Holds sessions and tensors by number and runs programs over them, one at a time, in the order it is asked. */
export interface Backend {
  /** Compiles a model. Rejects with LOAD_FAILED. The backend may take the memory of `model`, which nobody reads afterwards. */
  create(session: number, model: Uint8Array, options: SessionOptions): Promise<void>;
  /** Keeps a tensor for steps that name it. `value` may be kept but not changed. */
  keep(tensor: number, value: Tensor): Promise<void>;
  /** Keeps a variable. */
  keepVariable(variable: number, value: Variable): Promise<void>;
  /**
   * Runs a program over the given values. Rejects when not even its values can be used.
   * @param taken memory of values that the backend may take rather than copy; nobody reads it afterwards
   */
  run(
    program: Program,
    values: ReadonlyMap<string, Given>,
    taken?: readonly ArrayBuffer[],
  ): Promise<RunResult>;
  /** Frees a session, a tensor or a variable that nothing runs. */
  release(number: number): Promise<void>;
  /** Frees everything. Called once, when nothing runs. */
  close(): Promise<void>;
  /** Resolves when the backend has died by itself; calls that were under way have rejected with WORKER_LOST. */
  readonly lost: Promise<Error>;
}

/** Starts a backend. */
export type StartBackend = () => Promise<Backend>;
