/** Tokens and scopes for every route, web pages, addresses, what errors reveal. */
import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { Writable } from "node:stream";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ErrorCode, PolyheadError } from "../../../src/base/errors.js";
import { modelBytes } from "../../../src/onnx/write.js";
import { startHttp } from "../../../src/server/http/start-http.js";
import { times } from "../protocol-models.js";
import { DOUBLE, type Running, type Sent, send, start, stopAll } from "./client.js";

const READ = "read-secret-0123456789";
const CONTROL = "control-secret-0123456789";
const NONE = "nothing-secret-0123456789";
const TOKENS = [
  { name: "reader", secret: READ, scopes: ["read"] },
  { name: "operator", secret: CONTROL, scopes: ["control"] },
  { name: "nobody", secret: NONE, scopes: [] },
] as const;

let at: Running;
beforeAll(async () => {
  at = await start({ tokens: TOKENS, origins: ["https://good.example"] });
});
afterAll(stopAll);

const P = "/polyhead/v1";
/** Every route of the server, with a request that it takes. */
const ROUTES: readonly (readonly [
  method: string,
  path: string,
  scope: "open" | "read" | "control",
  sent?: Sent,
])[] = [
  ["GET", "/v2/health/live", "open"],
  ["GET", "/v2/health/ready", "open"],
  ["GET", "/openapi.json", "open"],
  ["GET", "/docs", "open"],
  ["GET", "/v2", "read"],
  ["GET", "/metrics", "read"],
  ["GET", "/v2/models/double", "read"],
  ["GET", "/v2/models/double/versions/DOUBLE", "read"],
  ["GET", "/v2/models/double/ready", "read"],
  ["GET", "/v2/models/double/versions/DOUBLE/ready", "read"],
  ["GET", "/v2/models/double/config", "read"],
  ["GET", "/v2/models/double/versions/DOUBLE/config", "read"],
  ...["system", "cuda"].flatMap((kind): (readonly [string, string, "read"])[] => [
    ["GET", `/v2/${kind}sharedmemory/status`, "read"],
    ["GET", `/v2/${kind}sharedmemory/region/r/status`, "read"],
    ["POST", `/v2/${kind}sharedmemory/region/r/register`, "read"],
    ["POST", `/v2/${kind}sharedmemory/region/r/unregister`, "read"],
    ["POST", `/v2/${kind}sharedmemory/unregister`, "read"],
  ]),
  ["GET", "/v2/models/stats", "read"],
  ["GET", "/v2/models/double/stats", "read"],
  ["GET", "/v2/models/double/versions/DOUBLE/stats", "read"],
  ["POST", "/v2/models/double/infer", "read", { body: DOUBLE }],
  ["POST", "/v2/models/double/versions/DOUBLE/infer", "read", { body: DOUBLE }],
  ["POST", "/v2/repository/index", "read"],
  ["GET", `${P}/routes`, "read"],
  ["GET", `${P}/routes/double`, "read"],
  ["GET", `${P}/history`, "read"],
  ["GET", `${P}/routes/double/history`, "read"],
  ["POST", "/v2/repository/models/kept/load", "control"],
  ["POST", "/v2/repository/models/kept/unload", "control"],
  [
    "POST",
    `${P}/models?route=new`,
    "control",
    { body: modelBytes(times(12)), headers: { "content-type": "application/octet-stream" } },
  ],
  ["GET", `${P}/models/DOUBLE`, "control"],
  ["POST", `${P}/routes/negate/promote`, "control"],
  ["POST", `${P}/switch`, "control", { body: { targets: { negate: "THIRD" } } }],
  ["POST", `${P}/routes/negate/rollback`, "control"],
  ["DELETE", `${P}/routes/new`, "control"],
];
/** With the revisions that some of these name. */
const filled = (text: string) =>
  text
    .replace("DOUBLE", at.service.revisions.double ?? "")
    .replace("THIRD", at.service.revisions.third ?? "");
const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` });

describe("tokens", () => {
  it("are asked for by all routes that there are", async () => {
    const document = (await send(at.url, "/openapi.json")).json() as {
      paths: Record<string, Record<string, unknown>>;
    };
    const documentedRoutes = Object.entries(document.paths).flatMap(([path, item]) =>
      Object.keys(item).map((method) => `${method.toUpperCase()} ${path}`),
    );
    const pattern = (path: string) =>
      path
        .replace(/\?.*/, "")
        .replace(/\/versions\/[^/]+/, "/versions/{version}")
        .replace(/\/models\/(?!stats)[^/]+/, "/models/{model}")
        .replace("/v1/models/{model}", "/v1/models/{revision}")
        .replace(/\/routes\/[^/]+/, "/routes/{route}")
        .replace(/\/region\/[^/]+/, "/region/{region}");
    expect([...new Set(ROUTES.map(([method, path]) => `${method} ${pattern(path)}`))].sort()).toEqual(
      documentedRoutes.sort(),
    );
  });

  it.each(ROUTES.map(([method, path, scope, sent = {}]) => ({ method, path, scope, sent })))(
    "guard $method $path by the scope $scope",
    async ({ method, path, scope, sent }) => {
      if (path.endsWith("/promote")) {
        const { third = "", fourth = "" } = at.service.revisions;
        const revisions = [third, fourth].map((revision) => ({ revision, weight: 1 }));
        await at.service.setTargets({ negate: { revisions, shadows: [] } }, { by: "test" });
      }
      const body =
        sent.body === undefined || sent.body instanceof Uint8Array
          ? sent.body
          : filled(JSON.stringify(sent.body));
      const statusFor = async (headers: Record<string, string>) => {
        const all = { ...(body && { "content-type": "application/json" }), ...sent.headers, ...headers };
        return (await send(at.url, filled(path), { method, ...(body && { body }), headers: all })).status;
      };
      const isOpen = scope === "open";
      // There are no regions of shared memory, whoever asks.
      const lets = path.includes("/region/") ? [200, 400, 404] : [200, 201];
      expect(await statusFor({})).toBe(isOpen ? 200 : 401);
      for (const wrong of [
        "Bearer wrong-secret-0123456789",
        "Bearer ",
        READ,
        `Basic ${READ}`,
        `Bearer ${READ}x`,
        `Bearer ${READ} x`,
        "Bearer \u00e4",
      ]) {
        expect(await statusFor({ authorization: wrong })).toBe(isOpen ? 200 : 401);
      }
      expect(await statusFor(bearer(NONE))).toBe(isOpen ? 200 : 403);
      if (scope === "control") expect(await statusFor(bearer(READ))).toBe(403);
      else expect(lets).toContain(await statusFor(bearer(READ)));
      expect(lets).toContain(await statusFor(bearer(CONTROL)));
    },
  );

  it("are asked for before a body is read", async () => {
    const body = Buffer.alloc(2_000_000);
    const answer = await send(at.url, `${P}/switch`, { body, headers: { "content-encoding": "gzip" } });
    expect(answer.status).toBe(401);
    expect(answer.headers["www-authenticate"]).toContain("Bearer");
  });

  it("give history its names, and the header does where there are none", async () => {
    const sent = {
      body: { reason: "why not" },
      headers: { ...bearer(CONTROL), "x-polyhead-author": "mallory" },
    };
    await send(at.url, `${P}/routes/double/rollback`, sent);
    expect(at.service.changes.at(-1)?.author).toEqual({ by: "operator", reason: "why not" });
    const open = await start();
    await send(open.url, `${P}/routes/double/rollback`, {
      method: "POST",
      headers: { "x-polyhead-author": "alice" },
    });
    expect(open.service.changes.at(-1)?.author.by).toBe("alice");
    await send(open.url, `${P}/routes/double/rollback`, { method: "POST" });
    expect(open.service.changes.at(-1)?.author.by).toBe("anonymous");
  });

  it.each([
    [[{ name: "a", secret: "short", scopes: [] }]],
    [[{ name: "a", secret: "with space 0123456789", scopes: [] }]],
    [[TOKENS[0], { ...TOKENS[1], name: "reader" }]],
    [[TOKENS[0], { ...TOKENS[1], secret: READ }]],
  ])("that cannot be told apart or guessed are refused: %j", async (tokens) => {
    await expect(startHttp(at.service, { port: 0, tokens })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });
});

describe("addresses", () => {
  it.each(["0.0.0.0", "::", "192.0.2.1", "example.org"])(
    "beyond the loopback need tokens: %s",
    async (host) => {
      await expect(startHttp(at.service, { host, port: 0 })).rejects.toMatchObject({
        code: "INVALID_ARGUMENT",
      });
    },
  );

  it("beyond the loopback are listened on with tokens, or by the operator's word", async () => {
    for (const options of [{ tokens: TOKENS }, { allowOpen: true }]) {
      const { url } = await start({ host: "0.0.0.0", ...options });
      expect((await send(url.replace("0.0.0.0", "127.0.0.1"), "/v2/health/live")).status).toBe(200);
    }
  });

  it("that are taken are told", async () => {
    const port = Number(new URL(at.url).port);
    await expect(startHttp(at.service, { port })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining(String(port)),
    });
  });
});

describe("web pages", () => {
  it("may not call, whatever they ask", async () => {
    for (const sent of [
      { body: "{}", headers: { "content-type": "text/plain" } },
      {},
      { method: "OPTIONS" },
    ]) {
      const headers = { ...bearer(CONTROL), ...sent.headers, origin: "https://evil.example" };
      const answer = await send(at.url, `${P}/switch`, { ...sent, headers });
      expect(answer.status).toBe(403);
      expect(answer.headers["access-control-allow-origin"]).toBeUndefined();
    }
  });

  it("may call when they are listed, after asking", async () => {
    const origin = "https://good.example";
    const asked = await send(at.url, "/v2/models/double/infer", {
      method: "OPTIONS",
      headers: { origin, "access-control-request-method": "POST" },
    });
    expect(asked.status).toBe(204);
    expect(asked.headers["access-control-allow-origin"]).toBe(origin);
    expect(asked.headers["access-control-allow-headers"]).toContain("authorization");
    const answer = await send(at.url, "/v2", { headers: { origin, ...bearer(READ) } });
    expect([answer.status, answer.headers["access-control-allow-origin"]]).toEqual([200, origin]);
    expect((await send(at.url, "/v2", { headers: { origin } })).status).toBe(401);
  });

  it("cannot reach an open server by a name of their own", async () => {
    const { url } = await start();
    const { port } = new URL(url);
    for (const [host, status] of [
      ["evil.example", 403],
      [`evil.example:${port}`, 403],
      [`localhost:${port}`, 200],
      ["127.0.0.1", 200],
      [`[::1]:${port}`, 200],
    ] as const) {
      expect((await send(url, "/v2", { headers: { host } })).status).toBe(status);
    }
    expect((await send(url, "/v2", { headers: { origin: url } })).status).toBe(200);
  });
});

describe("errors", () => {
  const infer = (run: Running) => send(run.url, "/v2/models/double/infer", { body: DOUBLE });

  it.each([
    ["INPUT_MISMATCH", 400],
    ["NOT_FOUND", 404],
    ["LIMIT_EXCEEDED", 413],
    ["RUN_FAILED", 500],
    ["DEADLINE_EXCEEDED", 504],
    ["OVERLOADED", 503],
    ["CLOSED", 503],
    ["WORKER_LOST", 503],
    ["HEAD_MISMATCH", 409],
  ] as const)("of the code %s have the status %d and the message", async (code: ErrorCode, status) => {
    const run = await start();
    run.service.failure = new PolyheadError(code, "Just so, because.", {});
    const answer = await infer(run);
    expect([answer.status, answer.json()]).toEqual([status, { error: "Just so, because." }]);
    expect(answer.headers["retry-after"]).toBe(status === 503 ? "1" : undefined);
  });

  it("that nobody foresaw tell nothing but the request's id, under which the log tells all", async () => {
    const written: string[] = [];
    const sink = new Writable({
      write(chunk, _, done) {
        written.push(String(chunk));
        done();
      },
    });
    const run = await start({ logger: pino({}, sink) });
    run.service.failure = new TypeError(`cannot read ${tmpdir()}/secret/file.onnx`);
    const answer = await send(run.url, "/v2/models/double/infer", {
      body: DOUBLE,
      headers: { "x-request-id": "my-id" },
    });
    expect(answer.status).toBe(500);
    expect(answer.headers["x-request-id"]).toBe("my-id");
    expect(answer.body.toString()).toContain("my-id");
    expect(answer.body.toString()).not.toContain("secret");
    const log = written.join("");
    expect(log).toContain("secret/file.onnx");
    const lines = log
      .trim()
      .split("\n")
      .map((line): unknown => JSON.parse(line));
    expect(lines).toContainEqual(expect.objectContaining({ reqId: "my-id", status: 500, method: "POST" }));
  });

  it("never reveal a path of the host or a stack", async () => {
    const run = await start();
    const folders = readdirSync("/").filter((name) => /^[a-z]+$/.test(name));
    for (const code of [
      "RUN_FAILED",
      "LOAD_FAILED",
      "FILE_NOT_FOUND",
      "FILE_NOT_WRITTEN",
      "PATH_REFUSED",
      "MODEL_MALFORMED",
    ] as const) {
      for (const folder of folders) {
        const path = `/${folder}/some where/deep.onnx`;
        run.service.failure = new PolyheadError(
          code,
          `Bad "${path}", (/${folder}/some/deep.onnx) at file:///${folder}/x/deep.onnx\n    at run (/${folder}/a.js:1:2)`,
          {},
        );
        const text = (await infer(run)).body.toString();
        expect(text).not.toMatch(/deep\.onnx|\.js:1/);
        expect(text).not.toContain(`/${folder}/`);
      }
    }
    run.service.failure = new PolyheadError(
      "RUN_FAILED",
      'The value "/layer1/conv/Conv_output_0" failed.',
      {},
    );
    expect((await infer(run)).body.toString()).toContain("/layer1/conv/Conv_output_0");
  });

  it("have their code beside the message on the control paths", async () => {
    const answer = await send(at.url, `${P}/routes/none`, { headers: bearer(READ) });
    expect([answer.status, answer.json()]).toEqual([
      404,
      { error: expect.stringContaining("none"), code: "NOT_FOUND" },
    ]);
  });
});

describe("request ids", () => {
  it("are the client's when sane, else new ones", async () => {
    const { url } = await start();
    const idFor = async (id: string) =>
      (await send(url, "/v2", { headers: { "x-request-id": id } })).headers["x-request-id"];
    expect(await idFor("a-b_c.1:2")).toBe("a-b_c.1:2");
    for (const id of ["", " ", "a b", "x".repeat(200), '{"a":1}', "\u00e4"])
      expect(await idFor(id)).toMatch(/^[0-9a-f-]{36}$/);
    expect((await send(url, "/nothing")).headers["x-request-id"]).toMatch(/^[0-9a-f-]{36}$/);
  });
});
