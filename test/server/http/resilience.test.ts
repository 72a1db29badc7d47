/** Many, slow, vanishing and greedy clients; closing; TLS; an unmodified client. */
import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { request as httpsRequest } from "node:https";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { PolyheadError } from "../../../src/base/errors.js";
import { modelBytes } from "../../../src/onnx/write.js";
import { times } from "../protocol-models.js";
import { DOUBLE, everything, type Running, send, sendRaw, start, stopAll } from "./client.js";

const INFER = "/v2/models/double/infer";
const GATE = { inputs: DOUBLE.inputs };
const LIMITS = { bodyBytes: 10_000, uploadBytes: 20_000, controlBytes: 5000, tensorElements: 1000 };
let at: Running;
let impatient: Running;
beforeAll(async () => {
  at = await start({ limits: LIMITS }, await everything());
  impatient = await start({ limits: LIMITS, timeouts: { headers: 1000, request: 1500 } });
});
afterAll(stopAll);

const head = (path: string, headers: readonly string[]) =>
  [`POST ${path} HTTP/1.1`, "Host: localhost", ...headers, "", ""].join("\r\n");
const isWell = async (run = at) => (await send(run.url, INFER, { body: DOUBLE })).status === 200;

describe("many clients", () => {
  it("get each their own answer", async () => {
    const numbers = Array.from({ length: 300 }, (_, index) => index - 150.5);
    const answers = await Promise.all(
      numbers.map((number) =>
        send(at.url, INFER, {
          body: { id: String(number), inputs: [{ ...DOUBLE.inputs[0], data: [number, 1] }] },
        }),
      ),
    );
    for (const [index, number] of numbers.entries()) {
      expect(answers[index]?.json()).toMatchObject({
        id: String(number),
        outputs: [{ data: [2 * number, 2] }, { data: [1] }],
      });
    }
  });
});

describe("slow clients", () => {
  it.concurrent.each([
    ["headers", "POST /v2/models/double/infer HTTP/1.1\r\nHost: loc"],
    ["a body", `${head(INFER, ["Content-Length: 100"])}{"in`],
    ["chunks", `${head(INFER, ["Transfer-Encoding: chunked"])}3\r\n{"i\r\n`],
    ["an upload", `${head("/polyhead/v1/models", ["Content-Length: 100"])}abc`],
    [
      "a form",
      `${head(INFER, ["Content-Length: 1000", "Content-Type: multipart/form-data; boundary=b"])}--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nabc`,
    ],
  ])("that never finish %s are hung up on", async (_, bytes) => {
    const answer = await sendRaw(impatient.url, bytes);
    expect(answer).toMatch(/^HTTP\/1\.1 408 /);
    expect(await isWell(impatient)).toBe(true);
  });

  it("do not keep others from their answers", async () => {
    const { hostname, port } = new URL(impatient.url);
    const sockets = Array.from({ length: 100 }, () => connect(Number(port), hostname).on("error", () => {}));
    for (const socket of sockets) socket.write("POST / HTTP/1.1\r\nHost: x");
    expect(await isWell(impatient)).toBe(true);
    for (const socket of sockets) socket.destroy();
  });
});

describe("greedy clients", () => {
  it("are refused by the size that they announce", async () => {
    for (const path of [
      INFER,
      "/polyhead/v1/models",
      "/polyhead/v1/switch",
      "/v2/repository/models/kept/load",
    ]) {
      const answer = await sendRaw(at.url, head(path, ["Content-Length: 1000000000", "Connection: close"]));
      expect(answer).toMatch(/^HTTP\/1\.1 413 [\s\S]*"error":/);
    }
  });

  it("are refused once they have sent more than the limit", async () => {
    const chunk = `1000\r\n${"x".repeat(0x1000)}\r\n`;
    const answer = await sendRaw(
      at.url,
      head(INFER, ["Transfer-Encoding: chunked", "Connection: close"]) + chunk.repeat(5),
    );
    expect(answer).toMatch(/^HTTP\/1\.1 413 /);
  });

  it("are refused with bombs", async () => {
    for (const headers of [{}, { "inference-header-content-length": "10" }]) {
      const body = gzipSync(Buffer.alloc(9_000_000, " "));
      const answer = await send(at.url, INFER, { body, headers: { "content-encoding": "gzip", ...headers } });
      expect(answer.status).toBe(413);
      expect(answer.json()).toEqual({ error: expect.stringContaining("10000") });
    }
  });

  it("are refused with files larger than the limit, in forms too", async () => {
    const form = new FormData();
    form.set("file", new Blob([new Uint8Array(20_001)]), "m.onnx");
    const answers = await Promise.all([
      send(at.url, "/polyhead/v1/models", { body: new Uint8Array(20_001) }),
      fetch(`${at.url}/polyhead/v1/models`, { method: "POST", body: form }),
      send(at.url, "/v2/repository/models/kept/load", {
        body: { parameters: { "file:m.onnx": Buffer.alloc(20_001).toString("base64") } },
      }),
    ]);
    expect(answers.map(({ status }) => status)).toEqual([413, 413, 413]);
    expect(at.service.changes).toEqual([]);
  });

  it("are refused with large headers", async () => {
    expect((await send(at.url, "/v2", { headers: { x: "x".repeat(20_000) } })).status).toBe(431);
    expect((await send(at.url, `/v2?${"x".repeat(20_000)}`)).status).toBe(431);
  });
});

describe("too many requests", () => {
  it("are turned away before their bodies are read, with the time to come again", async () => {
    const { url, service } = await start();
    service.refusal = new PolyheadError("OVERLOADED", "Too many are waiting already.", { retryAfter: 3 });
    const answer = await sendRaw(url, head(INFER, ["Content-Length: 1000", "Connection: close"]));
    expect(answer).toMatch(/^HTTP\/1\.1 503 [\s\S]*retry-after: 3\r\n[\s\S]*"Too many/i);
    expect(service.requests).toEqual([]);
    expect((await send(url, "/v2/models/double")).status).toBe(200);
    service.refusal = undefined;
    expect((await send(url, INFER, { body: DOUBLE })).status).toBe(200);
  });

  it("leave their connection in use, with a body of any size behind them", async () => {
    const { url, service } = await start();
    service.refusal = new PolyheadError("OVERLOADED", "Too many are waiting already.", {});
    const body = "x".repeat(3_000_000);
    const request = `${head(INFER, [`Content-Length: ${body.length}`])}${body}`;
    const answer = await sendRaw(url, `${request}${head("/v2/nothing", ["Connection: close"])}`);
    expect(answer).toMatch(/^HTTP\/1\.1 503 [\s\S]*HTTP\/1\.1 404 /);
  });
});

describe("clients that go", () => {
  it("abort their request's work, and nobody else's", async () => {
    const before = at.service.aborted;
    const bytes = Buffer.from(JSON.stringify(GATE));
    const { hostname, port } = new URL(at.url);
    const staying = send(at.url, "/v2/models/gate/infer", { body: GATE });
    const going = connect(Number(port), hostname);
    going.write(head("/v2/models/gate/infer", [`Content-Length: ${bytes.length}`]));
    going.write(bytes);
    await vi.waitFor(() => expect(at.service.waiting.size).toBe(2));
    going.destroy();
    await vi.waitFor(() => expect(at.service.aborted).toBe(before + 1));
    expect(at.service.waiting.size).toBe(1);
    at.service.open();
    expect((await staying).status).toBe(200);
  });

  it("while they send leave the server well", async () => {
    const { hostname, port } = new URL(at.url);
    for (const type of ["application/json", "image/png", "multipart/form-data; boundary=b"]) {
      const socket = connect(Number(port), hostname);
      await new Promise<void>((resolve) =>
        socket.write(`${head(INFER, ["Content-Length: 100", `Content-Type: ${type}`])}--b\r\n`, () =>
          resolve(),
        ),
      );
      socket.destroy();
    }
    expect(await isWell()).toBe(true);
  });
});

describe("closing", () => {
  it("lets requests under way finish and takes no others", async () => {
    const { url, server, service } = await start();
    const underWay = send(url, "/v2/models/gate/infer", { body: GATE });
    await vi.waitFor(() => expect(service.waiting.size).toBe(1));
    const closed = server.close();
    await vi.waitFor(() => expect(send(url, "/v2")).rejects.toThrow("ECONNREFUSED"));
    service.open();
    expect((await underWay).json()).toMatchObject({ outputs: [{ data: [3, -4] }] });
    await closed;
  });

  it("does not wait for ever", async () => {
    const { url, server, service } = await start({ timeouts: { drain: 50 } });
    const underWay = send(url, "/v2/models/gate/infer", { body: GATE }).catch((error: Error) => error);
    await vi.waitFor(() => expect(service.waiting.size).toBe(1));
    await server.close();
    expect(await underWay).toBeInstanceOf(Error);
    await vi.waitFor(() => expect(service.aborted).toBe(1));
  });

  it("does not wait for idle connections", async () => {
    const { url, server } = await start();
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    socket.write("GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await new Promise((resolve) => socket.once("data", resolve));
    await server.close();
  });
});

describe("TLS", () => {
  const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;
  it.skipIf(!hasOpenssl)("is spoken with a certificate from files (needs openssl)", async () => {
    const folder = mkdtempSync(join(tmpdir(), "polyhead-tls-"));
    const [certFile, keyFile] = [join(folder, "cert.pem"), join(folder, "key.pem")];
    await promisify(execFile)("openssl", [
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-subj",
      "/CN=localhost",
      "-keyout",
      keyFile,
      "-out",
      certFile,
      "-days",
      "2",
    ]);
    const { url } = await start({ tls: { certFile, keyFile } });
    expect(url).toMatch(/^https:/);
    const status = await new Promise((resolve, reject) => {
      const options = {
        ca: readFileSync(certFile),
        servername: "localhost",
        checkServerIdentity: () => undefined,
      };
      httpsRequest(`${url}/v2`, options, (answer) => resolve(answer.statusCode))
        .on("error", reject)
        .end();
    });
    expect(status).toBe(200);
    await expect(start({ tls: { certFile, keyFile: join(folder, "none.pem") } })).rejects.toMatchObject({
      code: "FILE_NOT_FOUND",
    });
    rmSync(folder, { recursive: true });
  });
});

describe("an unmodified client", () => {
  const hasCurl = spawnSync("curl", ["--version"]).status === 0;
  it.skipIf(!hasCurl)("infers from tensors, binary data and an image, and uploads (needs curl)", async () => {
    const folder = mkdtempSync(join(tmpdir(), "polyhead-curl-"));
    const file = (name: string, content: string | Uint8Array) => {
      writeFileSync(join(folder, name), content);
      return join(folder, name);
    };
    const curl = async (...words: string[]) =>
      (
        await promisify(execFile)("curl", ["--silent", "--show-error", "--fail-with-body", ...words], {
          encoding: "buffer",
        })
      ).stdout;
    const json = async (...words: string[]): Promise<unknown> =>
      JSON.parse((await curl(...words)).toString());
    const outputs = [{ data: [3, -4] }, { data: [1] }];
    expect(await json(`${at.url}${INFER}`, "-d", JSON.stringify(DOUBLE))).toMatchObject({ outputs });
    const zipped = file("request.json.gz", gzipSync(JSON.stringify(DOUBLE)));
    expect(
      await json(`${at.url}${INFER}`, "-H", "Content-Encoding: gzip", "--data-binary", `@${zipped}`),
    ).toMatchObject({ outputs });
    const head = JSON.stringify({
      inputs: [{ name: "x", shape: [1, 2], datatype: "FP32", parameters: { binary_data_size: 8 } }],
    });
    const binary = file(
      "request.bin",
      Buffer.concat([Buffer.from(head), Buffer.from([0, 0, 192, 63, 0, 0, 0, 192])]),
    );
    expect(
      await json(
        `${at.url}${INFER}`,
        "-H",
        `Inference-Header-Content-Length: ${head.length}`,
        "--data-binary",
        `@${binary}`,
      ),
    ).toMatchObject({ outputs });
    const pixels = sharp({ create: { width: 8, height: 6, channels: 3, background: "lime" } });
    const image = file("image.png", await pixels.png().toBuffer());
    const colour = "/v2/models/colour/infer";
    const classes = [{ label: "green", index: 1, score: 1 }];
    const sent = { routes: { colour: { revision: at.service.revisions.colour, classes } } };
    expect(
      await json(`${at.url}${colour}?top=1`, "-H", "Content-Type: image/png", "--data-binary", `@${image}`),
    ).toMatchObject(sent);
    expect(await json(`${at.url}${colour}`, "-F", `image=@${image}`, "-F", "top=1")).toMatchObject(sent);
    const model = file("model.onnx", modelBytes(times(10)));
    expect(
      await json(
        `${at.url}/polyhead/v1/models?route=curled`,
        "-H",
        "Content-Type: application/octet-stream",
        "--data-binary",
        `@${model}`,
      ),
    ).toMatchObject({ route: "curled" });
    expect(await json(`${at.url}/v2/models/curled/infer`, "-d", JSON.stringify(DOUBLE))).toMatchObject({
      outputs: [{ data: [15, -20] }],
    });
    rmSync(folder, { recursive: true });
  });
});

describe("connections", () => {
  it("are as many as allowed", async () => {
    const { url } = await start({ connections: 2 });
    const { hostname, port } = new URL(url);
    const held = [0, 1].map(() => connect(Number(port), hostname));
    await Promise.all(held.map((socket) => new Promise((resolve) => socket.once("connect", resolve))));
    await new Promise<void>((resolve, reject) => {
      httpRequest(`${url}/v2`, () => reject(new Error("a third one was answered")))
        .on("error", () => resolve())
        .end();
    });
    for (const socket of held) socket.destroy();
    await vi.waitFor(async () => expect((await send(url, "/v2")).status).toBe(200));
  });
});
