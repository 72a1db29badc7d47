/** A server around the fake service, and requests to it over real sockets. */
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { pino } from "pino";
import { type HttpOptions, type HttpServer, startHttp } from "../../../src/server/http/start-http.js";
import { FakeService } from "./fake-service.js";

export interface Running {
  readonly service: FakeService;
  readonly server: HttpServer;
  readonly url: string;
}

const running: HttpServer[] = [];

/** A server on any free port, quiet. */
export async function start(options: HttpOptions = {}, service = new FakeService()): Promise<Running> {
  const server = await startHttp(service, { port: 0, logger: pino({ level: "silent" }), ...options });
  running.push(server);
  return { service, server, url: server.address };
}

/** Stops all servers of a test file. */
export async function stopAll(): Promise<void> {
  await Promise.all(running.splice(0).map((server) => server.close()));
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
