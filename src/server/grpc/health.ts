/**
 * The standard health service: `SERVING` while the server wants requests. It knows the whole server (the empty
 * name) and the services by name; models are asked for by ModelReady.
 */
import { type ServerWritableStream, status } from "@grpc/grpc-js";
import type { Service } from "../service.js";
import {
  HealthCheckRequestSchema,
  HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "./generated/health_pb.js";
import { decode, encode } from "./messages.js";

type Watcher = ServerWritableStream<Buffer, Buffer>;

/** How often those who watch are told of changes, in milliseconds. */
const PERIOD = 500;

/** Answers checks, and tells those who watch of changes. */
export class Health {
  readonly #service: Pick<Service, "isReady">;
  readonly #known: ReadonlySet<string>;
  readonly #watchers = new Map<Watcher, { service: string; last: ServingStatus }>();
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** @param names of the services that are there */
  constructor(service: Pick<Service, "isReady">, names: readonly string[]) {
    this.#service = service;
    this.#known = new Set(["", ...names]);
  }

  /**
   * The answer to one check; undefined for a service that is not there.
   * @throws PolyheadError INVALID_ARGUMENT
   */
  check(bytes: Buffer): Buffer | undefined {
    const now = this.#statusOf(decode(HealthCheckRequestSchema, bytes).service);
    return now === ServingStatus.SERVICE_UNKNOWN
      ? undefined
      : encode(HealthCheckResponseSchema, { status: now });
  }

  /**
   * Tells of the status now and whenever it changes, until the client goes.
   * @throws PolyheadError INVALID_ARGUMENT
   */
  watch(stream: Watcher): void {
    const { service } = decode(HealthCheckRequestSchema, stream.request);
    const last = this.#statusOf(service);
    stream.write(encode(HealthCheckResponseSchema, { status: last }));
    this.#watchers.set(stream, { service, last });
    stream.on("cancelled", () => this.#leave(stream));
    if (this.#isClosed) this.close();
    this.#timer ??= setInterval(() => this.update(), PERIOD).unref();
  }

  /** Tells those who watch what has changed. */
  update(): void {
    for (const [stream, watched] of this.#watchers) {
      const now = this.#statusOf(watched.service);
      if (now === watched.last) continue;
      watched.last = now;
      stream.write(encode(HealthCheckResponseSchema, { status: now }));
    }
  }

  /** Says that nothing is served any more, and ends all streams. */
  close(): void {
    this.#isClosed = true;
    this.update();
    for (const stream of this.#watchers.keys()) {
      stream.emit("error", { code: status.UNAVAILABLE, details: "The server shuts down." });
      this.#leave(stream);
    }
  }

  #statusOf(service: string): ServingStatus {
    if (!this.#known.has(service)) return ServingStatus.SERVICE_UNKNOWN;
    return !this.#isClosed && this.#service.isReady() ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
  }

  #leave(stream: Watcher): void {
    this.#watchers.delete(stream);
    if (this.#watchers.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
