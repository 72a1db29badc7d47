/** All that is not inference: metadata, configuration, statistics, the repository, health, who may do what. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { credentials, status } from "@grpc/grpc-js";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { PolyheadError } from "../../../src/base/errors.js";
import { modelBytes } from "../../../src/onnx/write.js";
import { type GrpcOptions, type GrpcServer, startGrpc } from "../../../src/server/grpc/server.js";
import { DEFAULT_LIMITS } from "../../../src/server/protocol/limits.js";
import type { ObservedService } from "../observed-service.js";
import { food } from "../protocol-models.js";
import { endDeployments } from "../small-deployment.js";
import { served } from "./served.js";
import { entry, floats, message, number, numbers, packed, parts, read, text, WireClient } from "./wire.js";

let service: ObservedService;
let server: GrpcServer;
let client: WireClient;
const silent = { info: () => undefined, error: () => undefined };
const opened: { close(): unknown }[] = [];
async function start(options: GrpcOptions = {}) {
  server = await startGrpc(service, { port: 0, drain: 10_000, logger: silent, ...options });
  client = new WireClient(server.address);
  opened.push(client, { close: () => server.close() });
}
beforeEach(async () => {
  service = await served();
});
afterEach(async () => {
  for (const each of opened.splice(0)) await each.close();
  await endDeployments();
});

const IMAGE = message([1, "image"], [2, "FP32"], [3, packed([1, 3])]);
const FOOD = message([1, "food"], [5, IMAGE], [7, floats([1, 2, 3])]);
const HEALTH = "/grpc.health.v1.Health/";

describe("models", () => {
  beforeEach(() => start());

  it("tells of the server", async () => {
    expect(number(await client.ok("ServerLive", message()), 1)).toBe(1);
    expect(number(await client.ok("ServerReady", message()), 1)).toBe(1);
    service.ready = false;
    expect(number(await client.ok("ServerReady", message()), 1)).toBe(0);
    const metadata = await client.ok("ServerMetadata", message());
    expect([text(metadata, 1), text(metadata, 2)]).toEqual(["polyhead", "1.2.3"]);
    expect(parts(metadata, 3).map(String)).toContain("model_repository");
  });

  it("tells of models", async () => {
    const ready = async (name: string, version = "") =>
      number(await client.ok("ModelReady", message([1, name], [2, version])), 1);
    expect(await ready("food")).toBe(1);
    const { twice = "", food: once = "" } = service.revisions;
    expect(await ready("food", once)).toBe(1);
    expect(await ready("food", "0".repeat(64))).toBe(0);
    expect(await ready("nothing")).toBe(0);

    const food = await client.ok("ModelMetadata", message([1, "food"]));
    expect(parts(food, 2).map(String)).toEqual([twice, once]);
    expect(text(food, 3)).toBe("onnxruntime_onnx");
    const tensors = [...parts(food, 4), ...parts(food, 5)].map(read);
    expect(tensors.map((tensor) => [text(tensor, 1), text(tensor, 2), numbers(tensor, 3)])).toEqual([
      ["image", "FP32", [-1, 3]],
      ["scores", "FP32", [-1, 3]],
      ["names", "BYTES", [-1]],
    ]);
    expect((await client.call("ModelMetadata", message([1, "nothing"]))).code).toBe(status.NOT_FOUND);
  });

  it("configures models as Triton's clients read it", async () => {
    const config = read(parts(await client.ok("ModelConfig", message([1, "food"])), 1)[0] ?? Buffer.alloc(0));
    expect([text(config, 1), text(config, 2), text(config, 17)]).toEqual([
      "food",
      "onnxruntime_onnx",
      "onnxruntime",
    ]);
    // Three elements in a row.
    expect(number(config, 4)).toBe(Math.floor(DEFAULT_LIMITS.tensorElements / 3));
    const [input] = parts(config, 5).map(read);
    expect(input && [text(input, 1), number(input, 2), numbers(input, 4)]).toEqual(["image", 11, [3]]);
    const outputs = parts(config, 6).map(read);
    expect(outputs.map((output) => [text(output, 1), number(output, 2), numbers(output, 3)])).toEqual([
      ["scores", 11, [3]],
      ["names", 13, []],
    ]);
  });

  it("counts", async () => {
    const two = message([1, "image"], [2, "FP32"], [3, packed([2, 3])]);
    await client.ok("ModelInfer", FOOD);
    await client.ok("ModelInfer", message([1, "food"], [5, two], [7, floats([1, 2, 3, 4, 5, 6])]));
    const one = await client.ok("ModelStatistics", message([1, "food"]));
    expect(parts(one, 1)).toHaveLength(1);
    const food = read(parts(one, 1)[0] ?? Buffer.alloc(0));
    const [told] = service.statistics("food");
    expect([4, 5].map((field) => number(food, field))).toEqual([3, 2]);
    expect(number(food, 3)).toBe(told?.lastInference);
    const durations = read(parts(food, 6)[0] ?? Buffer.alloc(0));
    const pairs = [1, 2, 3, 4, 5, 6, 7, 8].map((field) => {
      const duration = read(parts(durations, field)[0] ?? Buffer.alloc(0));
      return { count: number(duration, 1) ?? 0, ns: number(duration, 2) ?? 0 };
    });
    const { success, fail, queue, computeInput, computeInfer, computeOutput, cacheHit, cacheMiss } =
      told ?? expect.fail();
    expect(pairs).toEqual([
      success,
      fail,
      queue,
      computeInput,
      computeInfer,
      computeOutput,
      cacheHit,
      cacheMiss,
    ]);
    expect(success.count).toBe(2);
    const batches = parts(food, 7).map(read);
    expect(batches.map((batch) => number(batch, 1)).sort()).toEqual([1, 2]);
    for (const batch of batches)
      expect(number(read(parts(batch, 3)[0] ?? Buffer.alloc(0)), 2)).toBeGreaterThan(0);
    expect(parts(await client.ok("ModelStatistics", message()), 1)).toHaveLength(1);
  });

  it("says what it does not have, and lets clients tidy up", async () => {
    for (const method of [
      "SystemSharedMemoryRegister",
      "CudaSharedMemoryRegister",
      "TraceSetting",
      "LogSettings",
    ]) {
      const { code, details } = await client.call(method, message([1, "region"]));
      expect([code, details.length > 20]).toEqual([status.UNIMPLEMENTED, true]);
    }
    for (const kind of ["System", "Cuda"]) {
      expect((await client.ok(`${kind}SharedMemoryStatus`, message())).size).toBe(0);
      await client.ok(`${kind}SharedMemoryUnregister`, message());
    }
  });
});

describe("the repository", () => {
  beforeEach(() => start());
  const index = async (ready: boolean) =>
    parts(await client.ok("RepositoryIndex", message([2, ready])), 1)
      .map(read)
      .map((entry) => [text(entry, 1), text(entry, 3), text(entry, 4)]);

  it("unloads and loads models", async () => {
    await client.ok("RepositoryModelUnload", message([2, "food"]));
    expect(await index(false)).toContainEqual(["food", "UNAVAILABLE", "unloaded"]);
    expect((await index(true)).map(([name]) => name)).not.toContain("food");
    expect((await client.call("ModelInfer", FOOD)).code).toBe(status.NOT_FOUND);
    await client.ok("RepositoryModelLoad", message([2, "food"]));
    expect(await index(true)).toContainEqual(["food", "READY", ""]);
    expect((await client.call("RepositoryModelLoad", message([2, "nothing"]))).code).toBe(status.NOT_FOUND);
    expect((await client.call("RepositoryModelUnload", message([2, "nothing"]))).code).toBe(status.NOT_FOUND);
  });

  it("keeps who asked, where no token says it", async () => {
    await client.ok("RepositoryModelUnload", message([2, "food"]), { "x-polyhead-author": "ann" });
    expect(service.history("food")[0]).toMatchObject({ action: "remove", by: "ann" });
  });

  it("loads the file that a client sends", async () => {
    const file = Buffer.from(modelBytes(food(5)));
    const parameters = message(
      [3, entry("config", message([3, "{}"]))],
      [3, entry("file:1/model.onnx", message([4, file]))],
    );
    await client.ok("RepositoryModelLoad", Buffer.concat([message([2, "food"]), parameters]));
    expect(service.history("food")[0]).toMatchObject({ action: "switch", by: "anonymous" });
    const answer = await client.ok("ModelInfer", FOOD);
    expect(parts(answer, 6)[0]).toEqual(floats([5, 10, 15]));
  });

  it.each([
    [
      "a configuration alone",
      message([2, "food"], [3, entry("config", message([3, "{}"]))]),
      status.INVALID_ARGUMENT,
    ],
    [
      "a file as text",
      message([2, "food"], [3, entry("file:a.onnx", message([3, "x"]))]),
      status.INVALID_ARGUMENT,
    ],
    [
      "two files",
      message([2, "food"], [3, entry("file:a", message([4, "x"]))], [3, entry("file:b", message([4, "x"]))]),
      status.INVALID_ARGUMENT,
    ],
    ["another repository", message([1, "/etc"], [2, "food"]), status.NOT_FOUND],
    ["a path", message([2, "../../etc/passwd"]), status.INVALID_ARGUMENT],
  ])("refuses %s", async (_, bytes, code) => {
    expect((await client.call("RepositoryModelLoad", bytes)).code).toBe(code);
    expect(service.changes).toEqual([]);
  });
});

describe("health", () => {
  const serving = (bytes: Buffer) => number(read(bytes), 1);

  it("tells live from ready, for the server and for each service", async () => {
    await start();
    for (const name of ["", "inference.GRPCInferenceService"]) {
      expect(serving((await client.call(`${HEALTH}Check`, message([1, name]))).bytes)).toBe(1);
    }
    expect((await client.call(`${HEALTH}Check`, message([1, "other"]))).code).toBe(status.NOT_FOUND);
    service.ready = false;
    expect(serving((await client.call(`${HEALTH}Check`, message())).bytes)).toBe(2);
  });

  it("tells those who watch of changes, and of the end", async () => {
    await start();
    const watch = (name: string) =>
      client.client.makeServerStreamRequest(
        `${HEALTH}Watch`,
        (bytes: Buffer) => bytes,
        (bytes: Buffer) => serving(bytes),
        message([1, name]),
      );
    const seen: number[] = [];
    const stream = watch("");
    const unknown = watch("other");
    const ended = new Promise<number>((resolve) => {
      stream.on("error", ({ code }: { code: number }) => resolve(code));
    });
    unknown.on("error", () => undefined);
    const next = (expected: number) =>
      new Promise<void>((resolve) => {
        stream.once("data", (value: number) => {
          seen.push(value);
          expect(value).toBe(expected);
          resolve();
        });
      });
    await next(1);
    expect(await new Promise((resolve) => unknown.once("data", resolve))).toBe(3);
    service.ready = false;
    await next(2);
    service.ready = true;
    await next(1);
    stream.on("data", (value: number) => seen.push(value));
    await server.close();
    expect(await ended).toBe(status.UNAVAILABLE);
    expect(seen).toEqual([1, 2, 1, 2]);
  });
});

describe("tokens", () => {
  const READ = { authorization: "Bearer read-token-0123456789" };
  const CONTROL = { authorization: "Bearer control-token-0123456789" };
  beforeEach(() =>
    start({
      tokens: [
        { name: "reader", secret: "read-token-0123456789", scopes: ["read"] },
        { name: "admin", secret: "control-token-0123456789", scopes: ["control"] },
      ],
    }),
  );

  it("are asked for, except for health", async () => {
    for (const method of [
      "ModelInfer",
      "ModelMetadata",
      "ServerMetadata",
      "RepositoryIndex",
      "RepositoryModelLoad",
    ]) {
      expect((await client.call(method, FOOD)).code, method).toBe(status.UNAUTHENTICATED);
      const wrong = { authorization: "Bearer wrong-token-0123456789" };
      expect((await client.call(method, FOOD, wrong)).code, method).toBe(status.UNAUTHENTICATED);
    }
    await client.ok("ServerLive", message());
    await client.ok("ServerReady", message());
    expect((await client.call(`${HEALTH}Check`, message())).code).toBe(status.OK);
    expect(service.requests).toEqual([]);
    const stream = client.stream("ModelStreamInfer");
    stream.end();
    const code = await new Promise((resolve) =>
      stream.on("error", (error: { code: number }) => resolve(error.code)),
    );
    expect(code).toBe(status.UNAUTHENTICATED);
  });

  it("have scopes, and their names stand in what was changed", async () => {
    await client.ok("ModelInfer", FOOD, READ);
    await client.ok("ModelInfer", FOOD, CONTROL);
    const refused = await client.call("RepositoryModelUnload", message([2, "food"]), READ);
    expect(refused.code).toBe(status.PERMISSION_DENIED);
    await client.ok("RepositoryModelUnload", message([2, "food"]), CONTROL);
    expect(service.history("food")[0]).toMatchObject({ action: "remove", by: "admin" });
  });

  it("or an explicit word are needed beyond the loopback", async () => {
    await expect(startGrpc(service, { host: "0.0.0.0", port: 0 })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
    await start({ host: "0.0.0.0", allowOpen: true });
  });
});

describe("failures", () => {
  let log: Record<string, unknown>[];
  beforeEach(() => {
    log = [];
    const write = (line: string) => log.push(JSON.parse(line));
    return start({ logger: pino({ base: null }, { write }) });
  });

  it("say when to come again", async () => {
    service.before = () => {
      throw new PolyheadError("OVERLOADED", "The queue is full: 64 of 64.", {});
    };
    const { code, details, trailers } = await client.call("ModelInfer", FOOD);
    expect([code, details]).toEqual([status.UNAVAILABLE, "The queue is full: 64 of 64."]);
    expect(trailers.get("retry-after")).toEqual(["1"]);
    // google.rpc.Status: code 1, message 2, details 3; each an Any of type_url 1 and value 2.
    const [packedStatus] = trailers.get("grpc-status-details-bin");
    const rpc = read(Buffer.from(packedStatus ?? ""));
    expect([number(rpc, 1), text(rpc, 2)]).toEqual([status.UNAVAILABLE, details]);
    const [info, retry] = parts(rpc, 3).map(read);
    expect(info && text(info, 1)).toBe("type.googleapis.com/google.rpc.ErrorInfo");
    expect(info && text(read(parts(info, 2)[0] ?? Buffer.alloc(0)), 1)).toBe("OVERLOADED");
    expect(retry && text(retry, 1)).toBe("type.googleapis.com/google.rpc.RetryInfo");
    const delay = read(
      parts(read(retry ? (parts(retry, 2)[0] ?? Buffer.alloc(0)) : Buffer.alloc(0)), 1)[0] ?? Buffer.alloc(0),
    );
    expect(number(delay, 1)).toBe(1);
  });

  it("tell nothing of the host, and leave the rest to the log", async () => {
    service.before = () => {
      throw new Error("cannot open /srv/secret/model.onnx");
    };
    const { code, details, trailers } = await client.call("ModelInfer", FOOD, { "x-request-id": "abc-1" });
    expect(code).toBe(status.INTERNAL);
    expect(details).not.toContain("secret");
    expect(details).toContain("abc-1");
    expect(trailers.get("x-request-id")).toEqual(["abc-1"]);
    expect(log).toMatchObject([
      { level: 50, reqId: "abc-1", method: "ModelInfer", msg: "failed" },
      { level: 30, reqId: "abc-1", method: "ModelInfer", status: "INTERNAL", msg: "answered" },
    ]);
    expect(JSON.stringify(log[0])).toContain("/srv/secret");
  });

  it("have messages that fit into headers, whatever they say", async () => {
    service.before = () => {
      throw new PolyheadError("INPUT_MISMATCH", `${"漢".repeat(2000)}\ud800`, {});
    };
    const { code, details } = await client.call("ModelInfer", FOOD);
    expect(code).toBe(status.INVALID_ARGUMENT);
    expect(details).toMatch(/^漢{50}/);
  });

  it.each([
    ["NOT_FOUND", status.NOT_FOUND],
    ["INPUT_MISMATCH", status.INVALID_ARGUMENT],
    ["DEADLINE_EXCEEDED", status.DEADLINE_EXCEEDED],
    ["ABORTED", status.CANCELLED],
    ["RUN_FAILED", status.INTERNAL],
    ["WORKER_LOST", status.UNAVAILABLE],
    ["CLOSED", status.UNAVAILABLE],
  ] as const)("of the code %s have its status", async (code, expected) => {
    service.before = () => {
      throw new PolyheadError(code, "What, got, expected.", {});
    };
    expect((await client.call("ModelInfer", FOOD)).code).toBe(expected);
  });
});

describe("calls that are given up", () => {
  beforeEach(() => start());

  it("have their deadline as timeout, and are aborted by it", async () => {
    const aborted = new Promise<void>((resolve) => {
      service.before = ({ signal }) =>
        new Promise(() => signal?.addEventListener("abort", () => resolve(), { once: true }));
    });
    const answer = await client.call("ModelInfer", FOOD, {}, { deadline: Date.now() + 2000 });
    expect(answer.code).toBe(status.DEADLINE_EXCEEDED);
    await aborted;
    expect(service.requests[0]?.timeout).toBeLessThanOrEqual(2000);
    expect(service.requests[0]?.timeout).toBeGreaterThanOrEqual(0);
  });

  it("are aborted when the client cancels", async () => {
    const aborted = new Promise<void>((resolve) => {
      service.before = ({ signal }) => {
        queueMicrotask(() => call.cancel());
        return new Promise(() => signal?.addEventListener("abort", () => resolve(), { once: true }));
      };
    });
    const call = client.client.makeUnaryRequest(
      "/inference.GRPCInferenceService/ModelInfer",
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      FOOD,
      () => undefined,
    );
    await aborted;
  });
});

describe("the server", () => {
  it("refuses messages over the limit and works on", async () => {
    await start({ limits: { ...DEFAULT_LIMITS, bodyBytes: 1000 } });
    const answer = await client.call("ModelInfer", message([1, "x".repeat(2000)]));
    expect(answer.code).toBe(status.RESOURCE_EXHAUSTED);
    await client.ok("ModelInfer", FOOD);
  });

  it("finishes what is under way before it closes", async () => {
    await start();
    let release = () => {};
    const running = new Promise<void>((started) => {
      service.before = () =>
        new Promise<void>((resolve) => {
          release = resolve;
          started();
        });
    });
    const answer = client.call("ModelInfer", FOOD);
    await running;
    const closed = server.close();
    release();
    expect((await answer).code).toBe(status.OK);
    await closed;
    expect((await client.call("ServerLive", message())).code).toBe(status.UNAVAILABLE);
  });

  it("ends idle streams when it closes", async () => {
    await start();
    const stream = client.stream("ModelStreamInfer");
    const first = new Promise((resolve) => stream.once("data", resolve));
    const ended = new Promise((resolve) => stream.on("error", ({ code }: { code: number }) => resolve(code)));
    stream.write(FOOD);
    await first;
    await server.close();
    expect(await ended).toBe(status.UNAVAILABLE);
  });

  it("cancels what is left after the grace", async () => {
    await start({ drain: 10 });
    const running = new Promise<void>((started) => {
      service.before = () => {
        started();
        return new Promise(() => undefined);
      };
    });
    const answer = client.call("ModelInfer", FOOD);
    await running;
    await server.close();
    expect((await answer).code).not.toBe(status.OK);
  });

  it("says that an address is taken", async () => {
    await start();
    const port = Number(server.address.split(":")[1]);
    await expect(startGrpc(service, { port })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it.skipIf(!hasOpenssl())("encrypts with a certificate", async () => {
    const folder = mkdtempSync(join(tmpdir(), "polyhead-tls-"));
    try {
      const [key, certificate] = [join(folder, "key.pem"), join(folder, "cert.pem")];
      const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
      execFileSync(
        "openssl",
        [
          "req",
          "-x509",
          "-newkey",
          "rsa:2048",
          "-nodes",
          "-days",
          "2",
          ...subject,
          "-keyout",
          key,
          "-out",
          certificate,
        ],
        { stdio: "ignore" },
      );
      const pem = readFileSync(certificate);
      await start({ tls: { certFile: certificate, keyFile: key } });
      const secure = new WireClient(server.address, credentials.createSsl(pem));
      opened.push(secure);
      await secure.ok("ModelInfer", FOOD);
      expect((await client.call("ModelInfer", FOOD)).code).toBe(status.UNAVAILABLE);
      await expect(
        startGrpc(service, { port: 0, tls: { certFile: certificate, keyFile: certificate } }),
      ).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

function hasOpenssl(): boolean {
  try {
    execFileSync("openssl", ["version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
