/** Control of routes, images straight in, and the document of all that. */
import sharp from "sharp";
import { Compile } from "typebox/compile";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { revisionOf } from "../../../src/onnx/revision.js";
import { modelBytes } from "../../../src/onnx/write.js";
import { times } from "../protocol-models.js";
import { DOUBLE, everything, type Running, type Sent, send, start, stopAll } from "./client.js";

let at: Running;
/** Revisions by the names of the models. */
let revisions: Readonly<Record<string, string>>;
beforeAll(async () => {
  at = await start({}, await everything());
  revisions = at.service.revisions;
});
afterAll(stopAll);
const P = "/polyhead/v1";

const only = (name: string) => [{ revision: revisions[name], weight: 1 }];
const infer = (route: string) => send(at.url, `/v2/models/${route}/infer`, { body: DOUBLE });

describe("routes", () => {
  it("are listed, and shown with their shadows' comparisons", async () => {
    const { routes } = (await send(at.url, `${P}/routes`)).json() as { routes: { name: string }[] };
    expect(routes.map(({ name }) => name)).toEqual(expect.arrayContaining(["double", "negate", "colour"]));
    expect(routes).toContainEqual(expect.objectContaining({ task: "classification", labels: 3 }));
    const { third = "", negate } = revisions;
    const target = { revisions: only("negate"), shadows: [third] };
    await send(at.url, `${P}/switch`, { body: { targets: { negate: target } } });
    await infer("negate");
    expect((await send(at.url, `${P}/routes/negate`)).json()).toEqual({
      name: "negate",
      revisions: [{ revision: negate, weight: 1 }],
      shadows: [third],
      requests: 1,
      failed: 0,
      comparisons: [
        {
          revision: third,
          rows: 1,
          failed: 0,
          agreement: 0, // three times is the opposite direction of minus one time
          meanDifference: expect.closeTo((4 * (1.5 + 2)) / 2),
          maxDifference: expect.closeTo(4 * 2),
          cost: expect.any(Number),
        },
      ],
    });
  });

  it("switch together or not at all", async () => {
    const { kept = "", third = "", fourth = "" } = revisions;
    const canary = {
      revisions: [
        { revision: kept, weight: 9 },
        { revision: third, weight: 1 },
      ],
      shadows: [fourth],
      limits: { requests: 100, errorRate: 0.01, latency: 5000, agreement: 0.9 },
    };
    const body = { targets: { double: third, negate: canary }, reason: "better" };
    const { generation } = (await send(at.url, `${P}/switch`, { body })).json() as { generation: number };
    expect(at.service.target("negate")).toEqual(canary);
    expect(at.service.target("double")).toEqual({ revisions: only("third"), shadows: [] });
    const answer = (await infer("double")).json() as { parameters: { generation: number } };
    expect(answer).toMatchObject({ model_version: third, outputs: [{ data: [4.5, -6] }] });
    expect(answer.parameters.generation).toBeGreaterThanOrEqual(generation);
    for (const wrong of [
      { double: fourth, none: third },
      { double: fourth, negate: "0".repeat(64) },
    ]) {
      expect((await send(at.url, `${P}/switch`, { body: { targets: wrong } })).status).toBe(404);
      expect(at.service.target("double").revisions).toEqual(only("third"));
    }
  });

  it("are promoted, rolled back and removed, and remember it", async () => {
    const { third } = revisions;
    const holds = { generation: expect.any(Number) };
    expect((await send(at.url, `${P}/routes/negate/promote`, { method: "POST" })).json()).toEqual(holds);
    expect(at.service.target("negate").revisions).toEqual(only("third"));
    const rolled = await send(at.url, `${P}/routes/double/rollback`, { body: { reason: "worse" } });
    expect(rolled.json()).toEqual(holds);
    expect(at.service.target("double").revisions).toEqual(only("double"));
    await send(at.url, `${P}/models`, { body: { revision: third, route: "gone" } });
    const removed = await send(at.url, `${P}/routes/gone?reason=old`, { method: "DELETE" });
    expect(removed.json()).toEqual({ removed: "gone" });
    const { history } = (await send(at.url, `${P}/history?limit=4`)).json() as { history: unknown[] };
    expect(history).toMatchObject([
      {
        route: "gone",
        action: "remove",
        by: "anonymous",
        reason: "old",
        before: { revisions: only("third") },
      },
      { route: "gone", action: "add" },
      { route: "double", action: "rollback", reason: "worse", after: { revisions: only("double") } },
      { route: "negate", action: "promote" },
    ]);
    const own = (await send(at.url, `${P}/routes/negate/history`)).json() as { history: unknown[] };
    expect(own.history[0]).toMatchObject({ route: "negate", action: "promote" });
    expect((await send(at.url, `${P}/routes/gone/history`)).status).toBe(200);
    expect((await send(at.url, `${P}/routes/never/history`)).status).toBe(404);
  });
});

describe("models", () => {
  const model = times(6);
  const file = Buffer.from(modelBytes(model));
  const revision = () => revisionOf(model);

  it("are uploaded for a route, or to be kept", async () => {
    const answer = await send(at.url, `${P}/models?route=fresh&reason=new`, {
      body: file,
      headers: { "content-type": "application/octet-stream" },
    });
    expect([answer.status, answer.json()]).toEqual([201, { revision: await revision(), route: "fresh" }]);
    expect((await infer("fresh")).json()).toMatchObject({ outputs: [{ data: [9, -12] }] });
    expect(at.service.history("fresh")).toMatchObject([{ by: "anonymous", reason: "new", action: "add" }]);
    expect((await send(at.url, `${P}/models`, { body: file })).json()).toEqual({
      revision: await revision(),
    });
  });

  it("are given back by their revision, byte for byte", async () => {
    const answer = await fetch(`${at.url}${P}/models/${await revision()}`);
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "application/octet-stream"]);
    expect(Buffer.from(await answer.arrayBuffer()).equals(file)).toBe(true);
  });

  it("are uploaded in forms", async () => {
    const form = new FormData();
    form.set("route", "formed");
    form.set("file", new Blob([file]), "model.onnx");
    const answer = await fetch(`${at.url}${P}/models`, { method: "POST", body: form });
    expect(await answer.json()).toEqual({ revision: await revision(), route: "formed" });
  });

  it("that the store has are given to routes by their revision", async () => {
    const { fourth } = revisions;
    const answer = await send(at.url, `${P}/models`, { body: { revision: fourth, route: "again" } });
    expect([answer.status, answer.json()]).toEqual([201, { revision: fourth, route: "again" }]);
    expect((await infer("again")).json()).toMatchObject({ outputs: [{ data: [6, -8] }] });
    for (const [body, status] of [
      [{ revision: "0".repeat(64), route: "again" }, 404],
      [{ revision: "../x", route: "again" }, 400],
      [{ revision: fourth, route: "a/b" }, 400],
      [{ revision: fourth }, 400],
      [{ revision: fourth, route: "again", path: "/etc/passwd" }, 400],
      [{ revision: fourth, route: "again", reason: "x".repeat(2 ** 20) }, 413],
    ] as const)
      expect((await send(at.url, `${P}/models`, { body })).status, JSON.stringify(body).slice(0, 80)).toBe(
        status,
      );
  });

  it("without a route are known by the title of their file", async () => {
    const trunk = await at.service.modelFile(revisions.trunk ?? "");
    const other = await start();
    const answer = await send(other.url, `${P}/models?title=spine.onnx`, { body: trunk });
    expect(answer.status).toBe(201);
    expect((await send(other.url, "/v2/models/spine")).json()).toMatchObject({ outputs: [{ name: "mean" }] });
    expect((await send(other.url, `${P}/models?title=..%2Fx`, { body: trunk })).status).toBe(400);
  });
});

describe("images", () => {
  /** Five by four pixels of one colour, most of it green. */
  const picture = (format: "jpeg" | "png" | "webp") =>
    sharp({ create: { width: 5, height: 4, channels: 3, background: { r: 51, g: 255, b: 102 } } })
      .toFormat(format, { quality: 100 })
      .toBuffer();
  const green = { label: "green", index: 1, score: expect.closeTo(1, 1) };
  const blue = { label: "blue", index: 2, score: expect.closeTo(0.4, 1) };
  const red = { label: "red", index: 0, score: expect.closeTo(0.2, 1) };

  it.each([
    ["image/jpeg", "jpeg"],
    ["image/png", "png"],
    ["image/webp", "webp"],
    ["IMAGE/PNG; x=y", "png"],
  ] as const)("of %s are answered by all routes asked for", async (type, format) => {
    const query = "?routes=middle,means&top=2&threshold=0.3&key=me&timeout=5000000&cache=false&id=7";
    const answer = await send(at.url, `/v2/models/colour/infer${query}`, {
      body: await picture(format),
      headers: { "content-type": type },
    });
    expect(answer.json()).toEqual({
      model_name: "colour",
      model_version: revisions.colour,
      id: "7",
      generation: at.service.generation,
      cached: false,
      image: { width: 5, height: 4 },
      routes: {
        colour: { revision: revisions.colour, classes: [green, blue] },
        middle: {
          revision: revisions.middle,
          detections: [
            {
              label: "thing",
              index: 0,
              score: 0.5,
              box: { x1: expect.closeTo(1.25), y1: 1, x2: expect.closeTo(3.75), y2: 3 },
            },
          ],
        },
        means: {
          revision: revisions.means,
          outputs: [
            {
              name: "means",
              datatype: "FP32",
              shape: [1, 3, 1, 1],
              data: [red, green, blue].map(({ score }) => score),
            },
          ],
        },
      },
    });
    expect(at.service.requests.at(-1)).toMatchObject({
      top: 2,
      threshold: 0.3,
      key: "me",
      timeout: 5000,
      cache: false,
    });
  });

  it("come in forms with fields", async () => {
    const form = new FormData();
    form.set("top", "1");
    form.set("image", new Blob([new Uint8Array(await picture("png"))]), "x.png");
    form.set("routes", "middle");
    const answer = await fetch(`${at.url}/v2/models/colour/infer`, { method: "POST", body: form });
    expect(await answer.json()).toMatchObject({
      routes: { colour: { classes: [green] }, middle: { detections: [{ label: "thing" }] } },
    });
  });

  it("that are none, or for routes of tensors, are refused", async () => {
    for (const [route, body] of [
      ["colour", Uint8Array.of(1, 2, 3)],
      ["colour", (await picture("png")).subarray(0, 60)],
      ["double", await picture("png")],
    ] as const) {
      const headers = { "content-type": "image/png" };
      expect((await send(at.url, `/v2/models/${route}/infer`, { body, headers })).status).toBe(400);
    }
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
    const double = { body: DOUBLE };
    const pixels = sharp({ create: { width: 5, height: 4, channels: 3, background: "white" } });
    const image: Sent = { body: await pixels.png().toBuffer(), headers: { "content-type": "image/png" } };
    const kept = { body: { revision: revisions.fourth, route: "documented" } };
    const cases: readonly (readonly [string, string, string, Sent?])[] = [
      ["/v2", "get", "/v2"],
      ["/v2/health/live", "get", "/v2/health/live"],
      ["/v2/health/ready", "get", "/v2/health/ready"],
      ["/v2/models/{model}", "get", "/v2/models/echo_bool"],
      ["/v2/models/{model}/ready", "get", "/v2/models/echo_bool/ready"],
      ["/v2/models/{model}/infer", "post", "/v2/models/double/infer", double],
      ["/v2/models/{model}/infer", "post", "/v2/models/colour/infer", image],
      ["/v2/models/stats", "get", "/v2/models/stats"],
      ["/v2/repository/index", "post", "/v2/repository/index", { method: "POST" }],
      [`${P}/routes`, "get", `${P}/routes`],
      [`${P}/routes/{route}`, "get", `${P}/routes/double`],
      [`${P}/history`, "get", `${P}/history`],
      [`${P}/routes/{route}/history`, "get", `${P}/routes/double/history`],
      [`${P}/models`, "post", `${P}/models`, kept],
      [`${P}/switch`, "post", `${P}/switch`, { body: { targets: { double: revisions.double } } }],
      [`${P}/routes/{route}/rollback`, "post", `${P}/routes/double/rollback`, { method: "POST" }],
    ];
    for (const [path, method, url, sent] of cases) {
      const answer = await send(at.url, url, sent);
      expect([200, 201], url).toContain(answer.status);
      const schema = paths[path]?.[method]?.responses?.[answer.status]?.content?.["application/json"]?.schema;
      expect(schema, path).toBeDefined();
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
