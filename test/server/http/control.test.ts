/** Control of routes, images straight in, and the document of all that. */
import { createHash } from "node:crypto";
import { Compile } from "typebox/compile";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DOUBLE, type Running, type Sent, send, start, stopAll } from "./client.js";

let at: Running;
beforeAll(async () => {
  at = await start();
});
afterAll(stopAll);
const P = "/polyhead/v1";

describe("routes", () => {
  it("are listed, and shown with their shadows' comparisons", async () => {
    const { routes } = (await send(at.url, `${P}/routes`)).json() as { routes: unknown[] };
    expect(routes).toHaveLength(4);
    at.service.targets.set("negate", { revisions: [{ revision: "negate-1", weight: 1 }], shadows: ["s"] });
    expect((await send(at.url, `${P}/routes/negate`)).json()).toEqual({
      name: "negate",
      revisions: [{ revision: "negate-1", weight: 1 }],
      shadows: ["s"],
      task: "arithmetic",
      requests: 5,
      failed: 0,
      comparisons: [{ revision: "s", rows: 9, agreement: 1, cost: 0.25, failed: 0 }],
    });
  });

  it("switch together or not at all", async () => {
    const canary = {
      revisions: [
        { revision: "a", weight: 9 },
        { revision: "b", weight: 1 },
      ],
      shadows: ["c"],
      limits: { requests: 100, errorRate: 0.01, latency: 50, agreement: 0.9 },
    };
    const body = { targets: { double: "d2", negate: canary }, reason: "better" };
    const { generation } = at.service;
    expect((await send(at.url, `${P}/switch`, { body })).json()).toEqual({ generation: generation + 1 });
    expect(at.service.targets.get("negate")).toEqual(canary);
    expect(at.service.targets.get("double")).toEqual({
      revisions: [{ revision: "d2", weight: 1 }],
      shadows: [],
      limits: undefined,
    });
    const wrong = { targets: { double: "d3", none: "x" } };
    expect((await send(at.url, `${P}/switch`, { body: wrong })).status).toBe(404);
    expect(at.service.targets.get("double")?.revisions[0]?.revision).toBe("d2");
  });

  it("are promoted, rolled back and removed, and remember it", async () => {
    const { generation } = at.service;
    const promoted = await send(at.url, `${P}/routes/negate/promote`, { method: "POST" });
    expect(promoted.json()).toEqual({ generation: generation + 1 });
    const rolled = await send(at.url, `${P}/routes/negate/rollback`, { body: { reason: "worse" } });
    expect(rolled.json()).toEqual({ generation: generation + 2 });
    at.service.targets.set("gone", { revisions: [{ revision: "g", weight: 1 }], shadows: [] });
    const removed = await send(at.url, `${P}/routes/gone?reason=old`, { method: "DELETE" });
    expect(removed.json()).toEqual({ removed: "gone" });
    expect(at.service.changes.slice(-3)).toMatchObject([
      { what: "promote", name: "negate" },
      { what: "rollback", author: { reason: "worse" } },
      { what: "remove", name: "gone", author: { reason: "old" } },
    ]);
    const { history } = (await send(at.url, `${P}/history?limit=2`)).json() as { history: unknown[] };
    expect(history).toMatchObject([{ by: "anonymous", reason: "old" }, { reason: "worse" }]);
    expect((await send(at.url, `${P}/routes/negate/history`)).status).toBe(200);
    expect((await send(at.url, `${P}/routes/gone/history`)).status).toBe(404);
  });
});

describe("models", () => {
  const file = Buffer.from(Array.from({ length: 5000 }, (_, index) => index % 256));
  const revision = createHash("sha256").update(file).digest("hex");

  it("are uploaded as they are, byte for byte", async () => {
    const answer = await send(at.url, `${P}/models?route=fresh&reason=new`, {
      body: file,
      headers: { "content-type": "application/octet-stream" },
    });
    expect([answer.status, answer.json()]).toEqual([201, { revision, route: "fresh" }]);
    expect(at.service.changes.at(-1)).toMatchObject({
      name: "fresh",
      author: { by: "anonymous", reason: "new" },
    });
    expect((await send(at.url, `${P}/models`, { body: file })).json()).toEqual({ revision });
  });

  it("are given back by their revision", async () => {
    const answer = await fetch(`${at.url}${P}/models/${revision}`);
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "application/octet-stream"]);
    expect(await answer.text()).toBe(revision);
  });

  it("are uploaded in forms", async () => {
    const form = new FormData();
    form.set("route", "formed");
    form.set("file", new Blob([file]), "model.onnx");
    const answer = await fetch(`${at.url}${P}/models`, { method: "POST", body: form });
    expect(await answer.json()).toEqual({ revision, route: "formed" });
  });
});

describe("images", () => {
  const image = (type: string, query: string) =>
    send(at.url, `/v2/models/double/infer${query}`, {
      body: Uint8Array.of(1, 2, 3),
      headers: { "content-type": type },
    });

  it.each(["image/jpeg", "image/png", "image/webp", "IMAGE/PNG; x=y"])(
    "of %s are answered by all routes asked for",
    async (type) => {
      const answer = await image(
        type,
        "?routes=negate,echo&top=2&threshold=0.25&key=me&timeout=1000&cache=false&id=7",
      );
      expect(answer.json()).toEqual({
        model_name: "double",
        model_version: "double-1",
        id: "7",
        generation: at.service.generation,
        cached: false,
        image: { width: 4, height: 5 },
        routes: {
          double: {
            revision: "double-1",
            classes: [
              { label: "sum 6", index: 0, score: 1 },
              { label: "sum 6", index: 1, score: 0.9 },
            ],
          },
          negate: {
            revision: "negate-1",
            detections: [{ label: "bytes", index: 7, score: 0.5, box: { x1: 1, y1: 2, x2: 3.5, y2: 3 } }],
          },
          echo: {
            revision: "echo-1",
            outputs: [{ name: "length", datatype: "INT64", shape: [1], data: [3] }],
          },
        },
      });
      expect(at.service.requests.at(-1)).toMatchObject({
        top: 2,
        threshold: 0.25,
        key: "me",
        timeout: 1,
        cache: false,
      });
    },
  );

  it("come in forms with fields", async () => {
    const form = new FormData();
    form.set("top", "1");
    form.set("image", new Blob([Uint8Array.of(5, 6)]), "x.jpg");
    form.set("routes", "negate");
    const answer = await fetch(`${at.url}/v2/models/double/infer`, { method: "POST", body: form });
    expect(await answer.json()).toMatchObject({
      routes: { double: { classes: [{ label: "sum 11" }] }, negate: {} },
    });
  });
});

describe("the document", () => {
  interface Operation {
    readonly summary?: string;
    readonly responses?: Readonly<
      Record<string, { readonly content?: Readonly<Record<string, { readonly schema: object }>> }>
    >;
  }
  const document = async () =>
    (await send(at.url, "/openapi.json")).json() as {
      openapi: string;
      paths: Record<string, Record<string, Operation>>;
    };

  it("describes every operation", async () => {
    const { openapi, paths } = await document();
    expect(openapi).toMatch(/^3\./);
    for (const [path, item] of Object.entries(paths)) {
      for (const operation of Object.values(item)) expect(operation.summary, path).toBeTruthy();
    }
  });

  it("says of answers what they are", async () => {
    const { paths } = await document();
    at.service.targets.set("double", { revisions: [{ revision: "double-1", weight: 1 }], shadows: [] });
    const infer = { body: DOUBLE };
    const image: Sent = { body: "x", headers: { "content-type": "image/png" } };
    const cases: readonly (readonly [string, string, string, Sent?])[] = [
      ["/v2", "get", "/v2"],
      ["/v2/health/live", "get", "/v2/health/live"],
      ["/v2/health/ready", "get", "/v2/health/ready"],
      ["/v2/models/{model}", "get", "/v2/models/echo"],
      ["/v2/models/{model}/ready", "get", "/v2/models/echo/ready"],
      ["/v2/models/{model}/infer", "post", "/v2/models/double/infer", infer],
      ["/v2/models/{model}/infer", "post", "/v2/models/double/infer", image],
      ["/v2/models/stats", "get", "/v2/models/stats"],
      ["/v2/repository/index", "post", "/v2/repository/index", { method: "POST" }],
      [`${P}/routes`, "get", `${P}/routes`],
      [`${P}/routes/{route}`, "get", `${P}/routes/double`],
      [`${P}/history`, "get", `${P}/history`],
      [`${P}/routes/{route}/rollback`, "post", `${P}/routes/double/rollback`, { method: "POST" }],
    ];
    for (const [path, method, url, sent] of cases) {
      const schema = paths[path]?.[method]?.responses?.["200"]?.content?.["application/json"]?.schema;
      expect(schema, path).toBeDefined();
      const answer = await send(at.url, url, sent);
      expect(answer.status, url).toBe(200);
      expect(Compile(schema ?? {}).Errors(answer.json()), url).toEqual([]);
    }
    const refusal = paths["/v2"]?.get?.responses?.["4XX"]?.content?.["application/json"]?.schema;
    expect(Compile(refusal ?? {}).Errors((await send(at.url, "/nothing")).json())).toEqual([]);
  });

  it("is a page that loads nothing from elsewhere and runs nothing", async () => {
    const page = await send(at.url, "/docs");
    const html = page.body.toString();
    expect(page.headers["content-type"]).toContain("text/html");
    expect(page.headers["content-security-policy"]).toContain("default-src 'none'");
    const { paths } = await document();
    for (const path of Object.keys(paths)) expect(html).toContain(path);
    expect(html).not.toMatch(/<script|<link|<img|https?:\/\//i);
  });
});
