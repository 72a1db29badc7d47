/**
 * The gRPC server: the Open Inference Protocol's service and the standard health service on one port. Tokens are
 * looked at before a message is read. A message is held whole in memory, so models of more than the limit of a
 * request go over HTTP.
 */
import {
  type handleUnaryCall,
  type Metadata,
  ResponderBuilder,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  ServerInterceptingCall,
  type ServerInterceptor,
  ServerListenerBuilder,
  type ServerWritableStream,
  type sendUnaryData,
  status,
  type UntypedHandleCall,
} from "@grpc/grpc-js";
import { asError, PolyheadError } from "../../base/errors.js";
import { DEFAULT_LIMITS, type Limits } from "../protocol/limits.js";
import { checkExposure, Tokens } from "../protocol/tokens.js";
import type { Author, Service } from "../service.js";
import { authorizationOf, type Call, type CallRecord, callOf, recordOf, requestIdOf } from "./call.js";
import { serviceDefinition } from "./definition.js";
import { Health as HealthDefinition } from "./generated/health_pb.js";
import { GRPCInferenceService } from "./generated/inference_pb.js";
import { Health } from "./health.js";
import { inferenceMethods, SCOPES, UNIMPLEMENTED, type Unary } from "./inference.js";
import { type Failure, failure } from "./status.js";
import { streamInference } from "./stream.js";

/** How the server listens, and what it allows. */
export interface GrpcOptions {
  /** Host name or address; the loopback by default. */
  readonly host?: string | undefined;
  /** 0 takes a free one; 8001 by default, as Triton has it. */
  readonly port?: number | undefined;
  readonly limits?: Limits | undefined;
  /** None lets everybody who reaches the address do everything; see `isOpen`. */
  readonly tokens?: Tokens | undefined;
  /** Allows listening beyond the loopback without tokens. */
  readonly isOpen?: boolean | undefined;
  /** Contents of PEM files; without them the connection is not encrypted. */
  readonly tls?: { readonly certificate: Buffer; readonly key: Buffer } | undefined;
  /** Told of every call that ended, for logs and metrics. */
  readonly onCall?: ((record: CallRecord) => void) | undefined;
}

/** A server that listens. */
export interface GrpcServer {
  /** `host:port`, with the port that was taken. */
  readonly address: string;
  /**
   * Takes no more calls and waits for those under way.
   * @param grace milliseconds after which what is left is cancelled; 30,000 by default
   */
  close(grace?: number): Promise<void>;
}

const DEFAULT_PORT = 8001;
const DEFAULT_GRACE = 30_000;
/** Calls of one connection at a time. */
const CONCURRENT_CALLS = 256;
/** Bytes that a client may send ahead of what was read; gRPC's 64 KiB make large tensors wait for the network. */
const FLOW_CONTROL_WINDOW = 8 * 2 ** 20;

/**
 * Serves over gRPC.
 * @throws PolyheadError INVALID_ARGUMENT when the address, its exposure or the TLS files are wrong
 */
export async function startGrpc(service: Service, options: GrpcOptions = {}): Promise<GrpcServer> {
  const { host = "127.0.0.1", port = DEFAULT_PORT, limits = DEFAULT_LIMITS } = options;
  const tokens = options.tokens ?? new Tokens([]);
  checkExposure(host, tokens, options.isOpen === true);
  // Channelz stays on: without it grpc-js 1.14 does not know the connections that forceShutdown has to end.
  const server = new Server({
    interceptors: [frontDoor(tokens)],
    "grpc.max_receive_message_length": limits.bodyBytes,
    "grpc.max_send_message_length": -1,
    "grpc.max_concurrent_streams": CONCURRENT_CALLS,
    "grpc-node.flow_control_window": FLOW_CONTROL_WINDOW,
    "grpc.keepalive_time_ms": 60_000,
  });
  const health = new Health(service, [GRPCInferenceService.typeName, HealthDefinition.typeName]);
  const stop = new AbortController();
  const authorOf = (call: Call): Author => ({
    by: tokens.authorize(call.authorization, "control") ?? "anonymous",
    reason: `gRPC ${call.method}`,
  });
  const told = options.onCall ?? (() => undefined);

  const unary = Object.entries(inferenceMethods(service, limits, authorOf)).map(
    ([method, handle]): [string, UntypedHandleCall] => [method, unaryHandler(method, handle, told)],
  );
  const missing = [...UNIMPLEMENTED].map(([method, details]): [string, UntypedHandleCall] => [
    method,
    (_: unknown, callback: sendUnaryData<Buffer>) => callback({ code: status.UNIMPLEMENTED, details }),
  ]);
  server.addService(serviceDefinition(GRPCInferenceService), {
    ...Object.fromEntries([...unary, ...missing]),
    ModelStreamInfer: streamHandler(service, limits, stop.signal, told),
  });
  server.addService(serviceDefinition(HealthDefinition), {
    Check: checkHandler(health),
    Watch: watchHandler(health),
  });

  const taken = await bind(server, host, port, options.tls);
  return {
    address: `${bracketed(host)}:${taken}`,
    async close(grace = DEFAULT_GRACE) {
      health.close();
      stop.abort();
      await shutDown(server, grace);
    },
  };
}

/** Refuses before a message is read, and names the request in what is sent back. */
function frontDoor(tokens: Tokens): ServerInterceptor {
  return ({ path }, call) => {
    const scope = path.startsWith(`/${GRPCInferenceService.typeName}/`)
      ? SCOPES.get(path.slice(path.lastIndexOf("/") + 1))
      : undefined;
    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((metadata: Metadata, next) => {
        try {
          if (scope !== undefined) tokens.authorize(authorizationOf(metadata), scope);
        } catch (thrown) {
          call.sendStatus(failure(thrown, requestIdOf(metadata)).status);
          return;
        }
        next(metadata);
      })
      .build();
    return new ServerInterceptingCall(
      call,
      new ResponderBuilder().withStart((next) => next(listener)).build(),
    );
  };
}

function unaryHandler(
  method: string,
  handle: Unary,
  told: (record: CallRecord) => void,
): handleUnaryCall<Buffer, Buffer> {
  return (surface, callback) => {
    const call = callOf(method, surface);
    const start = performance.now();
    const end = (failed: Failure | undefined) => told(recordOf(call, start, failed));
    handle(surface.request, call).then(
      (bytes) => {
        callback(null, bytes);
        end(undefined);
      },
      (thrown: unknown) => {
        const failed = failure(thrown, call.requestId);
        callback(failed.status);
        end(failed);
      },
    );
  };
}

function streamHandler(
  service: Service,
  limits: Limits,
  stop: AbortSignal,
  told: (record: CallRecord) => void,
): UntypedHandleCall {
  return (stream: ServerDuplexStream<Buffer, Buffer>) => {
    const call = callOf("ModelStreamInfer", stream);
    const start = performance.now();
    const failed = (each: Failure) => told(recordOf(call, start, each));
    streamInference(stream, call, service, limits, stop, failed).then(
      () => {
        if (stop.aborted) {
          stream.emit("error", { code: status.UNAVAILABLE, details: "The server shuts down." });
        } else {
          stream.end();
          told(recordOf(call, start, undefined));
        }
      },
      (thrown: unknown) => stream.emit("error", failure(thrown, call.requestId).status),
    );
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

async function bind(server: Server, host: string, port: number, tls: GrpcOptions["tls"]): Promise<number> {
  try {
    const credentials = tls
      ? ServerCredentials.createSsl(null, [{ cert_chain: tls.certificate, private_key: tls.key }])
      : ServerCredentials.createInsecure();
    return await new Promise<number>((resolve, reject) => {
      server.bindAsync(`${bracketed(host)}:${port}`, credentials, (error, taken) => {
        if (error) reject(error);
        else resolve(taken);
      });
    });
  } catch (thrown) {
    server.forceShutdown();
    const cause = asError(thrown);
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `gRPC cannot listen on ${bracketed(host)}:${port}: ${cause.message}. Choose an address of this machine and a free port${tls ? ", and a certificate with its own key" : ""}.`,
      { host, port },
      { cause },
    );
  }
}

async function shutDown(server: Server, grace: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  await new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      server.forceShutdown();
      resolve();
    }, grace);
    server.tryShutdown(() => resolve());
  });
  clearTimeout(timer);
}

function bracketed(host: string): string {
  return host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
}
