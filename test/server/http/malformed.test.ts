/**
 * Malformed requests: a list of over 300 that are wrong in one known way each, and as many random ones. All get a
 * status of 4xx with a reason; the server, which runs real models, is well afterwards and its routes are what they were.
 */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Answer, DOUBLE, everything, type Running, send, sendRaw, start, stopAll } from "./client.js";
import { CASES, CONTROL, ECHO, FULL, INFER, isRefusal, LIMITS, replaced } from "./malformed-cases.js";

let at: Running;
beforeAll(async () => {
  at = await start({ limits: LIMITS }, await everything());
});
afterAll(stopAll);

async function expectWell(): Promise<void> {
  const answer = await send(at.url, INFER, { body: DOUBLE });
  expect(answer.json()).toMatchObject({ outputs: [{ data: [3, -4] }, {}] });
}

describe("malformed requests", () => {
  it("are more than 300", () => {
    expect(CASES.length).toBeGreaterThan(300);
    expect(new Set(CASES.map(({ path, sent }) => path + JSON.stringify(sent))).size).toBeGreaterThan(300);
  });

  it("get a status of 4xx and a reason, one by one", async () => {
    const before = await at.service.store.routes();
    const wrong: string[] = [];
    for (const { name, path, sent } of CASES) {
      const answer = await send(at.url, path, sent);
      if (!isRefusal(answer)) wrong.push(`${name}: ${answer.status} ${answer.body.toString().slice(0, 200)}`);
    }
    expect(wrong).toEqual([]);
    expect(await at.service.store.routes()).toEqual(before);
    await expectWell();
  });

  it("get it at once, too", async () => {
    const answers = await Promise.all(CASES.map(({ path, sent }) => send(at.url, path, sent)));
    expect(CASES.filter((_, index) => !isRefusal(answers[index] as Answer)).map(({ name }) => name)).toEqual(
      [],
    );
    await expectWell();
  });
});

describe("random requests", () => {
  const never500 = (answer: Answer) => {
    expect(answer.status, answer.body.toString().slice(0, 300)).toBeLessThan(500);
    if (answer.status >= 400) expect(isRefusal(answer)).toBe(true);
  };

  it("of random JSON are refused", async () => {
    await fc.assert(
      fc.asyncProperty(fc.json(), async (body) => {
        expect(isRefusal(await send(at.url, INFER, { body }))).toBe(true);
      }),
      { numRuns: 200 },
    );
    await expectWell();
  });

  it("of a valid request with random values in it never break the server", async () => {
    const place = fc.constantFrom(
      ["inputs", 0, "data"],
      ["inputs", 0, "data", 0],
      ["inputs", 0, "shape"],
      ["inputs", 0, "shape", 0],
      ["inputs", 0, "datatype"],
      ["inputs", 0, "name"],
      ["inputs", 0, "parameters"],
      ["inputs", 0],
      ["parameters"],
      ["parameters", "routes"],
      ["outputs", 0, "name"],
      ["id"],
    );
    await fc.assert(
      fc.asyncProperty(place, fc.jsonValue(), async (path, value) =>
        never500(await send(at.url, INFER, { body: JSON.stringify(replaced(FULL, path, value)) })),
      ),
      { numRuns: 300 },
    );
    await expectWell();
  });

  it("of random bytes as body, whatever they are said to be, never break the server", async () => {
    const type = fc.constantFrom(
      "application/json",
      "application/octet-stream",
      "image/png",
      "multipart/form-data; boundary=b",
      "text/plain",
      "x",
    );
    const headers = fc.constantFrom(
      {},
      { "content-encoding": "gzip" },
      { "inference-header-content-length": "0" },
      { "inference-header-content-length": "3" },
    );
    const path = fc.constantFrom(
      INFER,
      ECHO,
      `${CONTROL}/switch`,
      "/v2/repository/models/double/load",
      "/v2/repository/index",
    );
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 200 }),
        type,
        headers,
        path,
        async (body, contentType, more, to) =>
          never500(await send(at.url, to, { body, headers: { "content-type": contentType, ...more } })),
      ),
      { numRuns: 300 },
    );
    await expectWell();
  });

  it("of random paths never break the server", async () => {
    const part = fc.oneof(
      fc.constantFrom(
        "v2",
        "models",
        "double",
        "infer",
        "versions",
        "ready",
        "polyhead",
        "v1",
        "routes",
        "..",
        "%2e%2e",
        "%2F",
        "%",
        "",
      ),
      fc.string({ maxLength: 10 }).map(encodeURIComponent),
      fc.webFragments({ size: "small" }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(part, { maxLength: 8 }),
        fc.constantFrom("GET", "POST", "DELETE"),
        async (parts, method) =>
          never500(await send(at.url, `/x/../${parts.join("/")}`.replace("/x/../", "/"), { method })),
      ),
      { numRuns: 300 },
    );
    await expectWell();
  });

  it("of random bytes instead of HTTP are answered with 400", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 100 }), async (bytes) => {
        const answer = await sendRaw(at.url, Buffer.concat([bytes, Buffer.from("\u0000\r\n\r\n")]));
        expect(answer).toMatch(/^HTTP\/1\.1 4\d\d [\s\S]*"error":/);
      }),
      { numRuns: 100 },
    );
    for (const request of [
      "GET / HTTP/1.1\r\n\r\n",
      "GET /v2 HTTP/9.9\r\nHost: localhost\r\n\r\n",
      "POST /v2/models/double/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: x\r\n\r\n",
      "POST /v2/models/double/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "POST /v2/models/double/infer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      `GET /v2 HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(40_000)}\r\n\r\n`,
    ]) {
      expect(await sendRaw(at.url, request), request.slice(0, 100)).toMatch(/^HTTP\/1\.1 4\d\d /);
    }
    await expectWell();
  });
});
