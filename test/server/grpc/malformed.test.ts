/**
 * Messages that are wrong in any way: every call is refused with a status that blames the client, and the server
 * answers a good one afterwards.
 */
import { connect } from "node:http2";
import { status } from "@grpc/grpc-js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PolyheadError } from "../../../src/base/errors.js";
import { type GrpcServer, startGrpc } from "../../../src/server/grpc/server.js";
import type { ObservedService } from "../observed-service.js";
import { endDeployments } from "../small-deployment.js";
import { served } from "./served.js";
import { entry, floats, message, packed, WireClient } from "./wire.js";

let service: ObservedService;
let server: GrpcServer;
let client: WireClient;
beforeAll(async () => {
  service = await served();
  server = await startGrpc(service, {
    port: 0,
    logger: { info: () => undefined, error: () => undefined },
  });
  client = new WireClient(server.address);
});
afterAll(async () => {
  client.close();
  await server.close();
  await endDeployments();
});

const IMAGE = message([1, "image"], [2, "FP32"], [3, packed([2, 3])]);
const FOOD = message(
  [1, "food"],
  [3, "an id"],
  [4, entry("key", message([3, "k"]))],
  [5, IMAGE],
  [6, message([1, "scores"])],
  [7, floats([1, 2, 3, 4, 5, 6])],
);
const CLIENTS_FAULT = [status.INVALID_ARGUMENT, status.NOT_FOUND, status.RESOURCE_EXHAUSTED];
const METHODS_WITH_FIELDS = [
  "ModelInfer",
  "ModelReady",
  "ModelMetadata",
  "ModelConfig",
  "ModelStatistics",
  "RepositoryIndex",
  "RepositoryModelLoad",
  "RepositoryModelUnload",
];

async function refused(method: string, bytes: Uint8Array) {
  const { code, details } = await client.call(method, bytes);
  expect(CLIENTS_FAULT.map((each) => status[each])).toContain(status[code]);
  expect(details.length).toBeGreaterThan(10);
}

/** Any call may go well; a server's fault it must not be. */
async function blameless(method: string, bytes: Uint8Array) {
  const { code } = await client.call(method, bytes);
  // A message may ask for an answer in no time.
  expect([status.OK, status.DEADLINE_EXCEEDED, ...CLIENTS_FAULT].map((each) => status[each])).toContain(
    status[code],
  );
}

/** Value with its bytes changed, cut or doubled somewhere. */
const damaged = (good: Buffer) =>
  fc.oneof(
    fc.nat(good.length - 1).map((at) => good.subarray(0, at)),
    fc.tuple(fc.nat(good.length - 1), fc.nat(255)).map(([at, byte]) => {
      const changed = Buffer.from(good);
      changed[at] = byte;
      return changed;
    }),
    fc
      .tuple(fc.nat(good.length), fc.uint8Array({ minLength: 1, maxLength: 12 }))
      .map(([at, bytes]) => Buffer.concat([good.subarray(0, at), bytes, good.subarray(at)])),
  );

/** Fields of the right kind with values of any kind. */
const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 20 }),
  fc.constantFrom("", "food", "image", "..", "a/b", "\u0000", "x".repeat(300), "__proto__", "constructor"),
);
const parameters = fc
  .tuple(
    fc.oneof(fc.constantFrom("routes", "key", "cache", "timeout", "priority", "__proto__"), text),
    fc.oneof(
      fc.boolean().map((value) => message([1, value])),
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((value) => message([2, value])),
      text.map((value) => message([3, value])),
      fc.constant(message()),
    ),
  )
  .map(([key, value]) => [4, entry(key, value)] as const);
const contents = fc
  .tuple(fc.integer({ min: 1, max: 8 }), fc.uint8Array({ maxLength: 30 }))
  .map(([list, bytes]) => message([list, bytes]));
const datatype = fc.constantFrom("FP32", "FP16", "BYTES", "BOOL", "INT8", "INT64", "UINT64", "fp32", "");
const input = fc
  .tuple(
    fc.oneof(fc.constantFrom("image", "string", "bool", "int8", "int64"), text),
    datatype,
    fc.array(
      fc.oneof(fc.integer({ min: -2, max: 4 }), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })),
      {
        maxLength: 4,
      },
    ),
    fc.option(contents),
  )
  .map(([name, type, shape, values]) =>
    message([1, name], [2, type], [3, packed(shape)], ...(values ? [[5, values] as const] : [])),
  )
  .map((bytes) => [5, bytes] as const);
const request = fc
  .tuple(
    fc.oneof(fc.constantFrom("food", "echo", "echo_string", "echo_int8", "coco"), text),
    fc.option(text),
    fc.array(
      fc.oneof(
        parameters,
        input,
        fc.uint8Array({ maxLength: 30 }).map((bytes) => [7, bytes] as const),
      ),
      {
        maxLength: 8,
      },
    ),
    fc.array(text, { maxLength: 2 }),
  )
  .map(([name, version, fields, outputs]) =>
    message(
      [1, name],
      ...(version === null ? [] : [[2, version] as const]),
      ...fields,
      ...outputs.map((output) => [6, message([1, output])] as const),
    ),
  );

describe("malformed messages", () => {
  it("cut, changed or longer are refused or understood", async () => {
    await fc.assert(
      fc.asyncProperty(damaged(FOOD), (bytes) => blameless("ModelInfer", bytes)),
      { numRuns: 300 },
    );
  });

  it("of any bytes are refused or understood by every method", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...METHODS_WITH_FIELDS),
        fc.uint8Array({ minLength: 1, maxLength: 60 }),
        blameless,
      ),
      { numRuns: 300 },
    );
  });

  it("of right fields and wrong values are refused or understood", async () => {
    await fc.assert(
      fc.asyncProperty(request, (bytes) => blameless("ModelInfer", bytes)),
      { numRuns: 500 },
    );
  });

  it.each([
    ["a length beyond the end", Buffer.of(0x0a, 0x7f)],
    ["a number without end", Buffer.alloc(20, 0xff)],
    ["field number 0", Buffer.of(0, 1)],
    ["a text that is not UTF-8", message([1, Buffer.of(0xff, 0xfe)])],
    ["a group that is not closed", Buffer.of(0x0b)],
    ["a text as number", message([1, 5])],
  ])("with %s are refused by every method", async (_, bytes) => {
    for (const method of METHODS_WITH_FIELDS) await refused(method, bytes);
  });

  it("with a number where inputs belong are refused", () =>
    refused("ModelInfer", message([1, "food"], [5, 7])));

  it("that would fill the memory are refused before they do", async () => {
    const many = Buffer.alloc(2 * 4_000_000);
    for (let at = 0; at < many.length; at += 2) many.set([0x2a, 0], at); // inputs, all empty
    await refused("ModelInfer", Buffer.concat([message([1, "food"]), many]));
    const numbers = message([3, Buffer.alloc(12_000_000, 1)]); // int64_contents
    const large = message([1, "int64"], [2, "INT64"], [3, packed([12_000_000])], [5, numbers]);
    await refused("ModelInfer", message([1, "echo_int64"], [5, large]));
    const raw = message([1, "food"], ...Array.from({ length: 300 }, () => [5, IMAGE] as const));
    await refused("ModelInfer", raw);
  });

  it("leave the server answering", async () => {
    await client.ok("ModelInfer", FOOD);
  });
});

/** @param isWhole whether the client says that this was all */
const post = (headers: Record<string, string>, body: Buffer, { address } = server, isWhole = true) =>
  new Promise<{ http: unknown; grpc: unknown }>((resolve, reject) => {
    const session = connect(`http://${address}`);
    session.on("error", reject);
    const stream = session.request({
      ":method": "POST",
      ":path": "/inference.GRPCInferenceService/ModelInfer",
      "content-type": "application/grpc",
      te: "trailers",
      ...headers,
    });
    let http: unknown;
    let grpc: unknown;
    stream.on("response", (response) => {
      http = response[":status"];
      grpc = response["grpc-status"];
    });
    stream.on("trailers", (trailers) => {
      grpc = trailers["grpc-status"];
    });
    stream.on("error", () => undefined);
    // Who has not said all keeps the stream open though it was answered.
    if (!isWhole) stream.on("end", () => stream.destroy());
    stream.on("close", () => {
      session.close();
      resolve({ http, grpc });
    });
    stream.resume();
    if (isWhole) stream.end(body);
    else stream.write(body);
  });
const framed = (bytes: Buffer, flag = 0) => {
  const head = Buffer.alloc(5);
  head[0] = flag;
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
};

describe("what is not gRPC", () => {
  it("is refused, and the server goes on", async () => {
    expect(await post({}, framed(FOOD))).toEqual({ http: 200, grpc: "0" });
    expect(await post({ "content-type": "application/json" }, Buffer.from("{}"))).toMatchObject({
      http: 415,
    });
    for (const body of [Buffer.alloc(0), framed(FOOD).subarray(0, 20), Buffer.alloc(5, 0xff)]) {
      const { grpc } = await post({}, body);
      expect(grpc).toBeDefined();
      expect(grpc).not.toBe("0");
    }
    const unknown = await post({ ":path": "/inference.GRPCInferenceService/Nothing" }, framed(FOOD));
    expect(unknown.grpc).toBe(String(status.UNIMPLEMENTED));
    await client.ok("ModelInfer", FOOD);
  });
});

describe("slow clients", () => {
  it("that never finish their message are not waited for", async () => {
    const impatient = await startGrpc(service, {
      port: 0,
      patience: 300,
      drain: 100,
      logger: { info: () => undefined, error: () => undefined },
    });
    try {
      for (const body of [Buffer.alloc(0), framed(FOOD).subarray(0, 20), framed(FOOD)]) {
        const { grpc } = await post({}, body, impatient, false);
        expect(grpc).toBe(String(status.DEADLINE_EXCEEDED));
      }
      expect(await post({}, framed(FOOD), impatient)).toEqual({ http: 200, grpc: "0" });
    } finally {
      await impatient.close();
    }
  });

  it("with more metadata than anybody needs are refused", async () => {
    const { http, grpc } = await post({ "x-more": "x".repeat(100_000) }, framed(FOOD)).catch(() => ({
      http: "hung up",
      grpc: "hung up",
    }));
    expect([http, grpc]).not.toContain("0");
    await client.ok("ModelInfer", FOOD);
  });
});

describe("too many calls", () => {
  it("are turned away before their message is read, with the time to come again", async () => {
    service.refusal = new PolyheadError("OVERLOADED", "Too many are waiting already.", { retryAfter: 3 });
    const before = service.requests.length;
    const { code, trailers } = await client.call("ModelInfer", FOOD);
    service.refusal = undefined;
    expect(status[code]).toBe("UNAVAILABLE");
    expect(trailers.get("retry-after")).toEqual(["3"]);
    expect(service.requests).toHaveLength(before);
    await client.ok("ModelInfer", FOOD);
  });
});
