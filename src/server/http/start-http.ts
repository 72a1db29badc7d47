/** The REST server: from a socket to a {@link Service}. */
import type { AddressInfo, Socket } from "node:net";
import multipart from "@fastify/multipart";
import fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from "fastify";
import { destination, pino } from "pino";
import { asError, PolyheadError } from "../../base/errors.js";
import { DEFAULT_LIMITS, type Limits } from "../protocol/limits.js";
import { readPem } from "../protocol/pem.js";
import { checkExposure, isLoopback, type Token, Tokens } from "../protocol/tokens.js";
import type { Service } from "../service.js";
import { guard } from "./access.js";
import { readBodies } from "./body.js";
import { addControlRoutes } from "./control-routes.js";
import { addDocumentationRoutes, collectDocumentation } from "./documentation.js";
import { answerBrokenClient, answerError, answerNotFound } from "./errors.js";
import { addInferenceRoutes } from "./inference-routes.js";
import { addModelRoutes } from "./model-routes.js";
import { addRepositoryRoutes } from "./repository-routes.js";
import { observe, requestId } from "./requests.js";
import { addSharedMemoryRoutes } from "./shared-memory-routes.js";

/** How long the server waits for clients, in milliseconds. */
export interface HttpTimeouts {
  /** For all headers of a request. */
  readonly headers: number;
  /** For a whole request. */
  readonly request: number;
  /** For the next request of an idle connection. */
  readonly keepAlive: number;
  /** For requests under way when the server closes. */
  readonly drain: number;
}

/** Timeouts that let uploads of some hundred megabytes through a slow line. */
export const DEFAULT_HTTP_TIMEOUTS: HttpTimeouts = {
  headers: 10_000,
  request: 300_000,
  keepAlive: 75_000,
  drain: 30_000,
};

/** Where and how to listen. */
export interface HttpOptions {
  /** 127.0.0.1 when left out. */
  readonly host?: string | undefined;
  /** 8000 when left out; 0 for any free port. */
  readonly port?: number | undefined;
  /** Who may do what; none for everybody, on the loopback only. */
  readonly tokens?: readonly Token[] | undefined;
  /** Lets everybody who reaches the address do everything. */
  readonly allowOpen?: boolean | undefined;
  /** Origins of web pages that may call the server: `https://example.org`; none when left out. */
  readonly origins?: readonly string[] | undefined;
  readonly limits?: Partial<Limits> | undefined;
  readonly timeouts?: Partial<HttpTimeouts> | undefined;
  /** Connections at once; 4096 when left out. */
  readonly connections?: number | undefined;
  /** PEM files, for https. */
  readonly tls?: { readonly certFile: string; readonly keyFile: string } | undefined;
  /** Writes JSON to stderr when left out. */
  readonly logger?: FastifyBaseLogger | undefined;
}

/** A server that listens. */
export interface HttpServer {
  /** `http://127.0.0.1:8000` */
  readonly address: string;
  /** Stops accepting, lets requests under way finish for as long as `drain` says, and then hangs up. */
  close(): Promise<void>;
}

const DEFAULT_PORT = 8000;
const DEFAULT_CONNECTIONS = 4096;
/** How often Node looks for slow clients, at most. */
const SLOWNESS_CHECK = 1000;

/**
 * Serves a service over HTTP.
 * @throws PolyheadError INVALID_ARGUMENT for an address beyond the loopback without tokens, an address that cannot
 *   be listened on, and wrong tokens; FILE_NOT_FOUND for TLS files
 */
export async function startHttp(service: Service, options: HttpOptions = {}): Promise<HttpServer> {
  const { host = "127.0.0.1", port = DEFAULT_PORT, allowOpen = false } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const timeouts = { ...DEFAULT_HTTP_TIMEOUTS, ...options.timeouts };
  const tokens = new Tokens(options.tokens ?? []);
  checkExposure(host, tokens, allowOpen);
  const app = await createApp(options, limits, timeouts);
  app.server.maxConnections = options.connections ?? DEFAULT_CONNECTIONS;
  readBodies(app);
  await app.register(multipart);
  await collectDocumentation(app, service);
  hangUpWhenClosing(app, service);
  observe(app);
  guard(app, { tokens, origins: options.origins ?? [], isLoopback: isLoopback(host) });
  app.setErrorHandler((thrown, request, reply) => answerError(thrown, request, reply));
  app.setNotFoundHandler((request, reply) => answerNotFound(request, reply));
  addModelRoutes(app, service, limits);
  addInferenceRoutes(app, service, limits);
  addRepositoryRoutes(app, service, limits);
  addSharedMemoryRoutes(app);
  addControlRoutes(app, service, limits);
  addDocumentationRoutes(app);
  await listen(app, host, port);
  return { address: addressOf(app, options.tls !== undefined), close: () => close(app, timeouts.drain) };
}

async function createApp(
  options: HttpOptions,
  limits: Limits,
  timeouts: HttpTimeouts,
): Promise<FastifyInstance> {
  const server = {
    headersTimeout: timeouts.headers,
    maxHeaderSize: limits.headerBytes,
    connectionsCheckingInterval: Math.min(SLOWNESS_CHECK, timeouts.headers, timeouts.request),
  };
  const { tls } = options;
  const common = {
    loggerInstance: options.logger ?? pino({ base: null }, destination(2)),
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: requestId,
    requestIdHeader: false,
    bodyLimit: limits.controlBytes,
    requestTimeout: timeouts.request,
    keepAliveTimeout: timeouts.keepAlive,
    // A client that neither reads nor writes; longer than any answer takes.
    connectionTimeout: limits.timeout + timeouts.request,
    forceCloseConnections: "idle",
    // The protocol's check of names tells what is wrong with long ones; this is for the router's own sake.
    routerOptions: { maxParamLength: limits.headerBytes, ignoreTrailingSlash: true },
    clientErrorHandler: answerBrokenClient,
    frameworkErrors: answerError,
    // Else it loads compilers of its own, a hundred files, before it is given those below.
    schemaController: { compilersFactory: { buildValidator: notAsked, buildSerializer: notAsked } },
  } as const;
  const app = tls
    ? fastify({
        ...common,
        https: { ...server, cert: await readPem(tls.certFile), key: await readPem(tls.keyFile) },
      })
    : fastify({ ...common, http: server });
  // Routes check what they take themselves, by the schemas that they are documented with.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  return app as FastifyInstance;
}

function notAsked(): never {
  throw new PolyheadError(
    "INTERNAL",
    "A compiler of schemas was asked for that the server does without.",
    {},
  );
}

/**
 * So that connections whose last request is under way, and those that never sent one, do not stay until they have
 * been idle for long. Clients of a server that is not ready any more are asked to connect elsewhere.
 */
function hangUpWhenClosing(app: FastifyInstance, service: Service): void {
  const sockets = new Set<Socket>();
  app.server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  let isClosing = false;
  app.addHook("preClose", async () => {
    isClosing = true;
    for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy();
  });
  app.addHook("onSend", async (_request, reply) => {
    if (isClosing || !service.isReady()) reply.header("connection", "close");
  });
}

async function listen(app: FastifyInstance, host: string, port: number): Promise<void> {
  try {
    await app.listen({ host, port, listenTextResolver: (address) => `HTTP at ${address}` });
  } catch (thrown) {
    await app.close();
    if (thrown instanceof PolyheadError) throw thrown;
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Cannot listen on ${host}:${port}: ${asError(thrown).message}. Choose another address, or port 0 for any free one.`,
      { host, port },
    );
  }
}

function addressOf(app: FastifyInstance, isTls: boolean): string {
  const { address, port, family } = app.server.address() as AddressInfo;
  return `${isTls ? "https" : "http"}://${family === "IPv6" ? `[${address}]` : address}:${port}`;
}

async function close(app: FastifyInstance, drain: number): Promise<void> {
  const closed = app.close();
  const timer = setTimeout(() => app.server.closeAllConnections(), drain);
  try {
    await closed;
  } finally {
    clearTimeout(timer);
  }
}
