/**
 * What one call is beside its message: who sent it, how long its answer is wanted, when it is given up, and the id
 * under which the log tells of it.
 */
import { randomUUID } from "node:crypto";
import type { Deadline, Metadata } from "@grpc/grpc-js";
import { PolyheadError } from "../../base/errors.js";

/** A call that is under way. */
export interface Call {
  /** Name of the method. */
  readonly method: string;
  readonly requestId: string;
  readonly metadata: Metadata;
  /** Aborted when the client cancels or goes, and when its deadline passes. */
  readonly signal: AbortSignal;
  /** Milliseconds until its deadline; infinity without one. */
  timeLeft(): number;
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
  const gone = () =>
    abort.abort(new PolyheadError("ABORTED", "The call was given up before its answer was ready.", {}));
  surface.on("cancelled", gone);
  if (surface.cancelled) gone();
  return {
    method,
    requestId: requestIdOf(surface.metadata),
    metadata: surface.metadata,
    signal: abort.signal,
    timeLeft: () => Math.max(Number(surface.getDeadline()) - Date.now(), 0),
  };
}

/** The client's own id where it sent a plain one, else a new one. */
export function requestIdOf(metadata: Metadata): string {
  const [id] = metadata.get("x-request-id");
  return typeof id === "string" && /^[\w.:+/=-]{1,128}$/.test(id) ? id : randomUUID();
}

/** The `authorization` of the metadata; undefined when there is none, or more than one. */
export function authorizationOf(metadata: Metadata): string | undefined {
  const [authorization, ...others] = metadata.get("authorization");
  return typeof authorization === "string" && others.length === 0 ? authorization : undefined;
}
