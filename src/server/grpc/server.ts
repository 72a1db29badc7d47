/**
 * The gRPC server: the Open Inference Protocol's service and the standard health service on one port. Tokens are
 * looked at before a message is read. A message is held whole in memory, so models of more than the limit of a
 * request go over HTTP.
 */

import { createSecureContext } from "node:tls";
import {
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerWritableStream,
  type sendUnaryData,
  status,
  type UntypedHandleCall,
} from "@grpc/grpc-js";
import { destination, pino } from "pino";
import { asError, PolyheadError } from "../../base/errors.js";
import { DEFAULT_LIMITS, type Limits } from "../protocol/limits.js";
import { checkName } from "../protocol/names.js";
import { readPem } from "../protocol/pem.js";
import { checkExposure, type Token, Tokens } from "../protocol/tokens.js";
import type { Author, Service } from "../service.js";
import { authorizationOf, type Call, callOf, requestIdOf } from "./call.js";
import { serviceDefinition } from "./definition.js";
import { frontDoor } from "./front-door.js";
import { Health as HealthDefinition } from "./generated/health_pb.js";
import { GRPCInferenceService } from "./generated/inference_pb.js";
import { Health } from "./health.js";
import { inferenceMethods, UNIMPLEMENTED, type Unary } from "./inference.js";
import { type CallLogger, observe } from "./observe.js";
import { failure } from "./status.js";
import { streamInference } from "./stream.js";

/** Where and how to listen. */
export interface GrpcOptions {
  /** 127.0.0.1 when left out. */
  readonly host?: string | undefined;
  /** 8001 when left out; 0 for any free port. */
  readonly port?: number | undefined;
  /** Who may do what; none for everybody, on the loopback only. */
  readonly tokens?: readonly Token[] | undefined;
  /** Lets everybody who reaches the address do everything. */
  readonly allowOpen?: boolean | undefined;
  readonly limits?: Partial<Limits> | undefined;
  /** Milliseconds for calls under way when the server closes; 30,000 when left out. */
  readonly drain?: number | undefined;
  /** Milliseconds that the message of a call may take to arrive; 300,000 when left out. */
  readonly patience?: number | undefined;
  /** PEM files; without them connections are not encrypted. */
  readonly tls?: { readonly certFile: string; readonly keyFile: string } | undefined;
  /** Writes JSON to stderr when left out. */
  readonly logger?: CallLogger | undefined;
}

/** A server that listens. */
export interface GrpcServer {
  /** `host:port`, with the port that was taken. */
  readonly address: string;
  /** Takes no more calls, lets those under way finish for as long as `drain` says, and then cancels them. */
  close(): Promise<void>;
}

const DEFAULT_PORT = 8001;
const DEFAULT_DRAIN = 30_000;
const DEFAULT_PATIENCE = 300_000;
/** Milliseconds after which a connection without calls is closed; clients open it again when they need it. */
const IDLE = 600_000;
/** Calls of one connection at a time. */
const CONCURRENT_CALLS = 256;

/**
 * Serves over gRPC.
 * @throws PolyheadError INVALID_ARGUMENT for an address beyond the loopback without tokens, an address that cannot
 *   be listened on, and wrong tokens or TLS files; FILE_NOT_FOUND for TLS files
 */
export async function startGrpc(service: Service, options: GrpcOptions = {}): Promise<GrpcServer> {
  const { host = "127.0.0.1", port = DEFAULT_PORT, allowOpen = false } = options;
  const { drain = DEFAULT_DRAIN, patience = DEFAULT_PATIENCE } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const tokens = new Tokens(options.tokens ?? []);
  const logger = options.logger ?? pino({ base: null }, destination(2));
  checkExposure(host, tokens, allowOpen);
  const credentials = await credentialsOf(options.tls);
  // Channelz stays on: without it grpc-js 1.14 does not know the connections that forceShutdown has to end.
  const server = new Server({
    interceptors: [frontDoor(service, tokens, patience)],
    "grpc.max_receive_message_length": limits.bodyBytes,
    "grpc.max_send_message_length": -1,
    "grpc.max_concurrent_streams": CONCURRENT_CALLS,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.max_connection_idle_ms": IDLE,
  });
  const health = new Health(service, [GRPCInferenceService.typeName, HealthDefinition.typeName]);
  const stop = new AbortController();
  const authorOf = ({ metadata }: Call): Author => {
    const [named = "anonymous"] = metadata.get("x-polyhead-author");
    const token = tokens.authorize(authorizationOf(metadata), "control");
    return { by: token ?? checkName(named, "The metadata x-polyhead-author", limits) };
  };

  const unary = Object.entries(inferenceMethods(service, limits, authorOf)).map(
    ([method, handle]): [string, UntypedHandleCall] => [method, unaryHandler(method, handle, logger)],
  );
  const missing = [...UNIMPLEMENTED].map(([method, details]): [string, UntypedHandleCall] => [
    method,
    (_: unknown, callback: sendUnaryData<Buffer>) => callback({ code: status.UNIMPLEMENTED, details }),
  ]);
  server.addService(serviceDefinition(GRPCInferenceService), {
    ...Object.fromEntries([...unary, ...missing]),
    ModelStreamInfer: streamHandler(service, limits, stop.signal, logger),
  });
  server.addService(serviceDefinition(HealthDefinition), {
    Check: checkHandler(health),
    Watch: watchHandler(health),
  });

  const taken = await bind(server, host, port, credentials);
  return {
    address: `${bracketed(host)}:${taken}`,
    async close() {
      health.close();
      stop.abort();
      await shutDown(server, drain);
    },
  };
}

function unaryHandler(method: string, handle: Unary, logger: CallLogger): handleUnaryCall<Buffer, Buffer> {
  return (surface, callback) => {
    const call = callOf(method, surface);
    const observed = observe(call, surface.metadata, logger);
    observed
      .run(() => handle(surface.request, call))
      .then(
        (bytes) => {
          callback(null, bytes);
          observed.end();
        },
        (thrown: unknown) => {
          const failed = failure(thrown, call.requestId);
          callback(failed.status);
          observed.end(failed);
        },
      );
  };
}

function streamHandler(
  service: Service,
  limits: Limits,
  stop: AbortSignal,
  logger: CallLogger,
): UntypedHandleCall {
  return (stream: ServerDuplexStream<Buffer, Buffer>) => {
    const call = callOf("ModelStreamInfer", stream);
    const observed = observe(call, stream.metadata, logger);
    const fail = (thrown: unknown) => {
      const failed = failure(thrown, call.requestId);
      stream.emit("error", failed.status);
      observed.end(failed);
    };
    observed
      .run(() => streamInference(stream, call, service, limits, stop, observed.failed))
      .then(() => {
        if (call.signal.aborted) return fail(call.signal.reason);
        if (stop.aborted) return fail(new PolyheadError("CLOSED", "The server shuts down.", {}));
        stream.end();
        observed.end();
      }, fail);
  };
}

function checkHandler(health: Health): handleUnaryCall<Buffer, Buffer> {
  return (surface, callback) => {
    try {
      const answer = health.check(surface.request);
      if (answer) callback(null, answer);
      else callback({ code: status.NOT_FOUND, details: "There is no service of this name." });
    } catch (thrown) {
      callback(failure(thrown, requestIdOf(surface.metadata)).status);
    }
  };
}

function watchHandler(health: Health): UntypedHandleCall {
  return (stream: ServerWritableStream<Buffer, Buffer>) => {
    try {
      health.watch(stream);
    } catch (thrown) {
      stream.emit("error", failure(thrown, requestIdOf(stream.metadata)).status);
    }
  };
}

async function credentialsOf(tls: GrpcOptions["tls"]): Promise<ServerCredentials> {
  if (!tls) return ServerCredentials.createInsecure();
  const [certificate, key] = await Promise.all([readPem(tls.certFile), readPem(tls.keyFile)]);
  try {
    createSecureContext({ cert: certificate, key });
  } catch (thrown) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The TLS files do not fit: ${asError(thrown).message}. Expected a certificate and its own key, in PEM.`,
      { ...tls },
    );
  }
  return ServerCredentials.createSsl(null, [{ cert_chain: certificate, private_key: key }]);
}

async function bind(
  server: Server,
  host: string,
  port: number,
  credentials: ServerCredentials,
): Promise<number> {
  try {
    return await new Promise<number>((resolve, reject) => {
      server.bindAsync(`${bracketed(host)}:${port}`, credentials, (error, taken) => {
        if (error) reject(error);
        else resolve(taken);
      });
    });
  } catch (thrown) {
    server.forceShutdown();
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Cannot listen on ${bracketed(host)}:${port}: ${asError(thrown).message}. Choose another address, or port 0 for any free one.`,
      { host, port },
    );
  }
}

async function shutDown(server: Server, drain: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  await new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      server.forceShutdown();
      resolve();
    }, drain);
    server.tryShutdown(() => resolve());
  });
  clearTimeout(timer);
}

function bracketed(host: string): string {
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}
