/** Messages between a {@link TrialProcess} and its process. Every request is answered once, under its number. */
import type { Request, Response } from "../../runtime/node/protocol.js";

/** What a task may take; a process that takes more says so and ends itself. */
export interface Allowance {
  /** Processor time of all threads. */
  readonly seconds: number;
  /** Resident memory of the process. */
  readonly bytes: number;
}

/** A task for the process's worker. */
export interface TrialRequest extends Request {
  readonly allowance: Allowance;
}

/** The answer to it. */
export type TrialResponse = Response;
