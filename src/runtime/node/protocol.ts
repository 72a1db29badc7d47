/** Messages between an {@link OrtWorker} and its thread. Every request is answered once, under its number. */
import { type ErrorCode, PolyheadError } from "../../base/errors.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { Given, Program, RunResult, SessionOptions, Variable } from "../backend.js";

/** What the thread is asked to do. */
export type Task =
  | {
      readonly kind: "create";
      readonly session: number;
      /** Its bytes, or the path of its file, which may have external data beside it. */
      readonly model: Uint8Array | string;
      readonly options: SessionOptions;
    }
  | { readonly kind: "keep"; readonly tensor: number; readonly value: Tensor }
  | { readonly kind: "keep variable"; readonly variable: number; readonly value: Variable }
  | {
      readonly kind: "run";
      readonly program: Program;
      readonly values: ReadonlyMap<string, Given>;
      /** Memory of values that moves to the thread, and back with the answer. */
      readonly taken: readonly ArrayBuffer[];
    }
  | { readonly kind: "release"; readonly number: number }
  | { readonly kind: "close" };

/** A task with its number. */
export interface Request {
  readonly id: number;
  readonly task: Task;
}

/** An error on its way between threads, which keep no classes. */
export interface PlainError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/** An error as it is sent. */
export function plain({ code, message, details }: PolyheadError): PlainError {
  return { code, message, details };
}

/** An error as it was before it was sent. */
export function revived({ code, message, details }: PlainError): PolyheadError {
  return new PolyheadError(code, message, details);
}

/** A run's result on its way between threads. */
export interface PlainResult extends Omit<RunResult, "failures"> {
  readonly failures: readonly (readonly [value: string, error: PlainError])[];
}

/** The answer to a request. */
export type Response = { readonly id: number; readonly taken: readonly ArrayBuffer[] } & (
  | { readonly result?: PlainResult | undefined }
  | { readonly error: PlainError }
);
