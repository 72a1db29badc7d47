/**
 * What one call is beside its message: who sent it, how long its answer is wanted, when it is given up, and the id
 * under which the log tells of it.
 */
import { randomUUID } from "node:crypto";
import type { Deadline, Metadata } from "@grpc/grpc-js";
import type { Failure } from "./status.js";

/** A call that is under way. */
export interface Call {
  /** Name of the method. */
  readonly method: string;
  readonly requestId: string;
  /** The `authorization` of its metadata. */
  readonly authorization: string | undefined;
  /** Aborted when the client cancels or goes, and when its deadline passes. */
  readonly signal: AbortSignal;
  /** Milliseconds until its deadline; infinity without one. */
  timeLeft(): number;
}

/** A call that has ended, for logs and metrics. */
export interface CallRecord {
  readonly method: string;
  readonly requestId: string;
  /** Name of the gRPC status. */
  readonly status: string;
  readonly milliseconds: number;
  /** What went wrong, with all that the client is not told. */
  readonly error: Error | undefined;
}

/** What grpc-js has of a call, of whatever kind. */
interface SurfaceCall {
  readonly metadata: Metadata;
  readonly cancelled: boolean;
  getDeadline(): Deadline;
  on(event: "cancelled", listener: () => void): unknown;
}

/** The call behind one of grpc-js. */
export function callOf(method: string, surface: SurfaceCall): Call {
  const abort = new AbortController();
  surface.on("cancelled", () => abort.abort());
  if (surface.cancelled) abort.abort();
  return {
    method,
    requestId: requestIdOf(surface.metadata),
    authorization: authorizationOf(surface.metadata),
    signal: abort.signal,
    timeLeft: () => Math.max(Number(surface.getDeadline()) - Date.now(), 0),
  };
}

/** The client's own id where it sent a plain one, else a new one. */
export function requestIdOf(metadata: Metadata): string {
  const [id] = metadata.get("x-request-id");
  return typeof id === "string" && /^[\w.-]{1,64}$/.test(id) ? id : randomUUID();
}

/** The `authorization` of the metadata; undefined when there is none, or more than one. */
export function authorizationOf(metadata: Metadata): string | undefined {
  const [authorization, ...others] = metadata.get("authorization");
  return typeof authorization === "string" && others.length === 0 ? authorization : undefined;
}

/** The record of a call that began at `start` of `performance.now()`. */
export function recordOf(
  { method, requestId }: Pick<Call, "method" | "requestId">,
  start: number,
  failed: Failure | undefined,
): CallRecord {
  return {
    method,
    requestId,
    status: failed?.name ?? "OK",
    milliseconds: performance.now() - start,
    error: failed?.public.error,
  };
}
