/** A server around a deployment of small models, and requests to it over real sockets. */
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { pino } from "pino";
import { type HttpOptions, type HttpServer, startHttp } from "../../../src/server/http/start-http.js";
import { GATE, ObservedService } from "../observed-service.js";
import { CARRIED, colour, echo, means, middle, times } from "../protocol-models.js";
import { backbone, endDeployments, head } from "../small-deployment.js";

export interface Running {
  readonly service: ObservedService;
  readonly server: HttpServer;
  readonly url: string;
}

const running: HttpServer[] = [];

/**
 * Routes `double` (of `x`, with a `count`), `negate` and one that waits at the gate; without a route `kept`, `third` and
 * `fourth`, which multiply by 7, 3 and 4.
 */
export function arithmetic(): Promise<ObservedService> {
  return ObservedService.of(
    { double: times(2, true), negate: times(-1), [GATE]: times(2) },
    { kept: times(7), third: times(3), fourth: times(4) },
  );
}

/**
 * The same with `echo_DTYPE` for each dtype, `echo_several` of three, `colour`, `middle` and `means` of images, and a
 * `head` on a backbone.
 */
export async function everything(): Promise<ObservedService> {
  const trunk = await backbone();
  return ObservedService.of(
    {
      double: times(2, true),
      negate: times(-1),
      [GATE]: times(2),
      ...Object.fromEntries(CARRIED.map((dtype) => [`echo_${dtype}`, echo(dtype)])),
      echo_several: echo("uint32", "int8", "bool"),
      colour: colour(),
      middle: middle(),
      means: means(),
      head: head(trunk, [1, 0, 0, 1]),
    },
    { trunk, kept: times(7), third: times(3), fourth: times(4) },
  );
}

/** A server on any free port, quiet. */
export async function start(options: HttpOptions = {}, given?: ObservedService): Promise<Running> {
  const service = given ?? (await arithmetic());
  const server = await startHttp(service, { port: 0, logger: pino({ level: "silent" }), ...options });
  running.push(server);
  return { service, server, url: server.address };
}

/** Stops all servers of a test file, and their deployments. */
export async function stopAll(): Promise<void> {
  await Promise.all(running.splice(0).map((server) => server.close()));
  await endDeployments();
}

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
  /** The body as JSON, to be compared with `toEqual` or `toMatchObject`. */
  json(): unknown;
}

export interface Sent {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array | object;
}

/** Sends a request exactly as given; the path is not normalised. Objects are sent as JSON. */
export function send(url: string, path: string, { method, headers = {}, body }: Sent = {}): Promise<Answer> {
  const { hostname, port } = new URL(url);
  const isBytes = typeof body === "string" || body instanceof Uint8Array;
  const bytes =
    body === undefined ? undefined : Buffer.from(isBytes ? (body as string) : JSON.stringify(body));
  const type = body === undefined || isBytes ? {} : { "content-type": "application/json" };
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      {
        host: hostname,
        port,
        path,
        method: method ?? (bytes ? "POST" : "GET"),
        headers: { ...type, ...(bytes && { "content-length": String(bytes.length) }), ...headers },
      },
      (response) => {
        const parts: Buffer[] = [];
        response.on("data", (part: Buffer) => parts.push(part));
        response.on("error", reject);
        response.on("end", () => {
          const all = Buffer.concat(parts);
          const { statusCode: status = 0 } = response;
          resolve({ status, headers: response.headers, body: all, json: () => JSON.parse(all.toString()) });
        });
      },
    );
    request.on("error", reject);
    request.end(bytes);
  });
}

/** Sends bytes to the server's socket and gives all it answers until it hangs up. */
export function sendRaw(url: string, bytes: string | Uint8Array): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(bytes));
    let text = "";
    socket.on("data", (part) => {
      text += part.toString("latin1");
    });
    socket.on("close", () => resolve(text));
    socket.on("error", (error: Error & { code?: string }) =>
      error.code === "ECONNRESET" ? resolve(text) : reject(error),
    );
  });
}

/** A request for `double` of two numbers. */
export const DOUBLE = {
  inputs: [{ name: "x", shape: [1, 2], datatype: "FP32", data: [1.5, -2] }],
};
