/** A store's routes behind HTTP and gRPC, from the settings to addresses, and back to nothing. */
import { availableParallelism } from "node:os";
import { setTimeout } from "node:timers/promises";
import { destination, pino } from "pino";
import { asPolyheadError, PolyheadError } from "../../base/errors.js";
import { openEngine } from "../../index.js";
import { Deployment } from "../../server/deployment.js";
import { startGrpc } from "../../server/grpc/server.js";
import { startHttp } from "../../server/http/start-http.js";
import { checkExposure, Tokens } from "../../server/protocol/tokens.js";
import { watchFolder } from "../../server/watch-folder.js";
import { Store } from "../../store/index.js";
import { manifest } from "../manifest.js";
import type { ServeConfig } from "./config.js";

/** A server that is ready. */
export interface Serving {
  /** `http://127.0.0.1:8000` */
  readonly http: string;
  /** `127.0.0.1:8001` */
  readonly grpc: string;
  /** Folder of the store. */
  readonly store: string;
  readonly routes: number;
  /**
   * Not ready any more at once, and closed to new requests after the notice; ends when everything under way has been
   * answered, or the time for that is over.
   */
  drain(): Promise<void>;
  /** Milliseconds that {@link drain} may take, if nothing is stuck. */
  readonly patience: number;
}

const HTTP = "127.0.0.1:8000";
const GRPC = "127.0.0.1:8001";
/** One computes while what another needs comes and goes. */
const WORKERS = 2;
/** What is queued is answered within about this time, or is not let in. */
const QUEUE_MILLISECONDS = 5000;
const NOTICE_MILLISECONDS = 1000;
const GRACE_MILLISECONDS = 30_000;
/** For the engine to end after its last request. */
const LAST_MILLISECONDS = 10_000;
const HIGHEST_PORT = 65_535;

/**
 * Starts serving; logs to standard error.
 * @throws PolyheadError what is wrong with the settings, the store or the addresses; then nothing remains open
 */
export async function startServing(config: ServeConfig): Promise<Serving> {
  const logger = pino({ base: null, level: config.logLevel ?? "info" }, destination({ fd: 2, sync: true }));
  const [http, grpc] = [addressOf(config.http ?? HTTP), addressOf(config.grpc ?? GRPC)];
  const { tokens = [], allowOpen = false, origins = [], limits = {}, tlsCert, tlsKey } = config;
  // Before anything takes long.
  for (const { host } of [http, grpc]) checkExposure(host, new Tokens(tokens), allowOpen);
  const tls =
    tlsCert !== undefined && tlsKey !== undefined ? { certFile: tlsCert, keyFile: tlsKey } : undefined;
  const common = { tokens, allowOpen, limits, tls, logger };
  const { noticeMilliseconds = NOTICE_MILLISECONDS, graceMilliseconds = GRACE_MILLISECONDS } = config;

  const log = ({ level, ...event }: Readonly<Record<string, unknown>>) =>
    level === "error" ? logger.error(event) : level === "warn" ? logger.warn(event) : logger.info(event);
  const store =
    config.store === undefined
      ? await openDefaultStore((line) => logger.info(line))
      : await Store.open(config.store);
  const opened: (() => Promise<void>)[] = [];
  try {
    const { workers = Math.min(WORKERS, availableParallelism()) } = config;
    const engine = await openEngine({ queueMilliseconds: QUEUE_MILLISECONDS, ...config, workers });
    opened.push(() => engine.close());
    const deployment = await Deployment.open(store, engine, {
      version: manifest.version,
      imagePixels: limits.imagePixels,
      log,
    });
    opened.push(() => deployment.close());
    const endWatch =
      config.watch === undefined ? undefined : await watchFolder(config.watch, deployment, log);
    if (endWatch) opened.push(endWatch);
    const rest = await startHttp(deployment, {
      ...common,
      ...http,
      origins,
      timeouts: { drain: graceMilliseconds },
    });
    opened.push(() => rest.close());
    const rpc = await startGrpc(deployment, { ...common, ...grpc, drain: graceMilliseconds });
    return {
      http: rest.address,
      grpc: rpc.address,
      store: store.directory,
      routes: deployment.routes().length,
      patience: noticeMilliseconds + graceMilliseconds + LAST_MILLISECONDS,
      drain: async () => {
        deployment.drain();
        logger.info({ noticeMilliseconds, graceMilliseconds }, "draining");
        await setTimeout(noticeMilliseconds);
        await Promise.all([rest.close(), rpc.close(), endWatch?.()]);
        await deployment.close();
      },
    };
  } catch (thrown) {
    for (const close of opened.reverse()) await close();
    throw asPolyheadError(thrown, "INTERNAL", "The server could not be started");
  }
}

/** What makes the demo's models is loaded for them only: a server has no use for it afterwards. */
async function openDefaultStore(say: (line: string) => void): Promise<Store> {
  const { defaultStoreFolder, putDemo } = await import("./default-store.js");
  const store = await Store.open(defaultStoreFolder());
  await putDemo(store, manifest.version, say);
  return store;
}

/** @throws PolyheadError INVALID_ARGUMENT */
function addressOf(text: string): { readonly host: string; readonly port: number } {
  const end = text.lastIndexOf(":");
  const host = text.slice(0, end).replace(/^\[(.*)\]$/, "$1");
  const port = Number(text.slice(end + 1));
  if (port <= HIGHEST_PORT) return { host, port };
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `${text} has the port ${port}; expected at most ${HIGHEST_PORT}, or 0 for any free one.`,
    { address: text },
  );
}
