/** How `serve` ends: signals to real processes with requests under way, idle, silent and stuck clients. */
import { mkdtemp, rm } from "node:fs/promises";
import { Agent } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { grpcClient, httpClient, send } from "../../bench/served/clients.js";
import { makeWorld } from "../../bench/served/models.js";
import { type ServerProcess, startServer } from "../../bench/served/process.js";
import { readModel } from "../../src/onnx/read.js";
import { routeTo, Store } from "../../src/store/index.js";

let folder: string;
let server: ServerProcess;
const sockets: Socket[] = [];
const clients: { close(): void }[] = [];
const world = await makeWorld({ heads: 1, side: 256, width: 32, depth: 16 });
const [input = new Float32Array()] = world.inputs;
const ask = { routes: ["scores"], input, side: world.side, parameters: { cache: false } };

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "stop-"));
  const store = await Store.open(join(folder, "store"));
  await store.put(await readModel(world.backbone));
  const revision = await store.put(await readModel(world.heads[0]?.file ?? new Uint8Array()));
  await store.change((routes) => routes.set("scores", routeTo(revision)), { by: "test", reason: "test" });
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const client of clients.splice(0)) client.close();
  server.signal("SIGKILL");
  await server.ended();
  await rm(folder, { recursive: true, force: true });
});

async function start(...flags: string[]): Promise<void> {
  server = await startServer({
    store: join(folder, "store"),
    flags: ["--queue-milliseconds", "60000", ...flags],
  });
}

/** Requests over both protocols, all let in, many of them in the queue; needs a server that runs them one by one. */
async function queueUp(
  count: number,
): Promise<{ readonly answers: Promise<{ readonly status: number | string }[]> }> {
  const [http, grpc] = [httpClient(server.http), grpcClient(server.grpc)];
  clients.push(http, grpc);
  await Promise.all([http.infer(ask), grpc.infer(ask)]);
  const answers = Array.from({ length: count }, (_, at) => (at % 2 ? grpc : http).infer(ask));
  await expect.poll(() => metric("polyhead_queued_requests"), { timeout: 40_000 }).toBeGreaterThan(count / 4);
  return { answers: Promise.all(answers) };
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${server.http}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\d+)`, "m").exec(text)?.[1]);
}

async function silent(bytes = ""): Promise<Socket> {
  const { hostname, port } = new URL(server.http);
  const socket = connect(Number(port), hostname)
    .on("error", () => {})
    .resume();
  sockets.push(socket);
  await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
  if (bytes !== "") await new Promise<void>((resolve) => socket.write(bytes, () => resolve()));
  return socket;
}

describe("the first signal", () => {
  it("says not ready while the server still answers, lets all that is queued finish, and ends with 0", async () => {
    await start("--notice-milliseconds", "4000", "--batch-rows", "1");
    const { answers } = await queueUp(24);
    server.signal("SIGTERM");
    await expect
      .poll(async () => (await send(server.http, { method: "GET", path: "/v2/health/ready" })).status)
      .not.toBe(200);
    const late = httpClient(server.http);
    clients.push(late);
    expect((await late.infer(ask)).status).toBe(200);
    const statuses = (await answers).map(({ status }) => status);
    expect(new Set(statuses)).toEqual(new Set([200, 0]));
    expect(await server.ended()).toEqual({ status: 0, signal: null });
    expect((await send(server.http, { method: "GET", path: "/v2/health/live" })).status).toBe("ECONNREFUSED");
  });

  it("does not wait for connections that are idle or never spoke", async () => {
    await start("--notice-milliseconds", "0");
    const agent = new Agent({ keepAlive: true });
    await send(server.http, { method: "GET", path: "/v2", agent });
    await silent();
    server.signal("SIGTERM");
    // The grace is 30 seconds, and the headers' timeout 10; the file of the process says what it waited for.
    expect(await server.ended()).toEqual({ status: 0, signal: null });
    expect(server.log()).not.toContain("stuck");
    agent.destroy();
  });

  it("hangs up on clients that are stuck once the grace is over", async () => {
    await start("--notice-milliseconds", "0", "--grace-milliseconds", "500");
    const head = "POST /v2/models/scores/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{";
    const stuck = await silent(head);
    const closed = new Promise((resolve) => stuck.once("close", resolve));
    await expect.poll(() => metric("polyhead_routes")).toBe(1); // behind the stuck one's bytes
    server.signal("SIGTERM");
    await closed;
    expect(await server.ended()).toEqual({ status: 0, signal: null });
  });
});

describe("the second signal", () => {
  it.each(["SIGTERM", "SIGINT"] as const)("%s ends the server at once, by itself", async (signal) => {
    await start("--notice-milliseconds", "100000", "--grace-milliseconds", "100000");
    server.signal(signal);
    await expect
      .poll(async () => (await send(server.http, { method: "GET", path: "/v2/health/ready" })).status)
      .not.toBe(200);
    server.signal(signal);
    expect(await server.ended()).toEqual({ status: null, signal });
  });
});
