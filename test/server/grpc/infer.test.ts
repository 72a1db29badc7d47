/** Inference over gRPC, asked byte by byte: both forms of contents, names of outputs, several routes, streams. */
import { status } from "@grpc/grpc-js";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { modelBytes } from "../../../src/onnx/write.js";
import { type GrpcServer, startGrpc } from "../../../src/server/grpc/server.js";
import type { ObservedService } from "../observed-service.js";
import { headOf, net } from "../protocol-models.js";
import { endDeployments } from "../small-deployment.js";
import { served, TYPED } from "./served.js";
import {
  entry,
  floats,
  message,
  number,
  numbers,
  packed,
  parts,
  type Read,
  read,
  text,
  WireClient,
} from "./wire.js";

let service: ObservedService;
/** Revisions of `food`: the one that answers, and the one before. */
let [twice, once] = ["", ""];
let server: GrpcServer;
let client: WireClient;
beforeAll(async () => {
  service = await served();
  [twice = "", once = ""] = [service.revisions.twice, service.revisions.food];
  server = await startGrpc(service, { port: 0, logger: { info: () => undefined, error: () => undefined } });
  client = new WireClient(server.address);
});
beforeEach(() => {
  service.before = undefined;
  service.requests.length = 0;
});
afterAll(async () => {
  client.close();
  await server.close();
  await endDeployments();
});

/** A ModelInferRequest's input: name 1, datatype 2, shape 3, contents 5. */
const input = (name: string, datatype: string, shape: number[], contents?: Uint8Array) =>
  message([1, name], [2, datatype], [3, packed(shape)], ...(contents ? [[5, contents] as const] : []));
const IMAGE = input("image", "FP32", [2, 3]);
const PIXELS = floats([1, 2, 3, 4, 5, 6]);
/** For `food`: model_name 1, inputs 5, raw_input_contents 7. */
const FOOD = message([1, "food"], [5, IMAGE], [7, PIXELS]);

/** An answer's outputs by name: datatype, shape, contents and raw contents. */
function outputsOf(response: Read) {
  const raw = parts(response, 6);
  return Object.fromEntries(
    parts(response, 5).map((bytes, index) => {
      const output = read(bytes);
      const contents = parts(output, 5)[0];
      return [
        text(output, 1),
        {
          datatype: text(output, 2),
          shape: numbers(output, 3),
          contents: contents && read(contents),
          raw: raw[index],
        },
      ];
    }),
  );
}

/** Parameters by name: a number of field 1 or 2, or a text of field 3. */
function parametersOf(response: Read, field = 4) {
  return Object.fromEntries(
    parts(response, field).map((bytes) => {
      const pair = read(bytes);
      const value = read(parts(pair, 2)[0] ?? Buffer.alloc(0));
      return [text(pair, 1), value.has(3) ? text(value, 3) : number(value, value.has(2) ? 2 : 1)];
    }),
  );
}

const bytesElement = (value: string) => {
  const utf8 = Buffer.from(value, "utf8");
  const length = Buffer.alloc(4);
  length.writeUInt32LE(utf8.length);
  return Buffer.concat([length, utf8]);
};

describe("ModelInfer", () => {
  it("answers raw contents with raw contents, with id, version and parameters", async () => {
    const response = await client.ok("ModelInfer", Buffer.concat([FOOD, message([3, "call 1"])]));
    expect(text(response, 1)).toBe("food");
    expect(text(response, 2)).toBe(twice);
    expect(text(response, 3)).toBe("call 1");
    expect(parametersOf(response)).toEqual({ revision: twice, generation: service.generation, cached: 0 });
    const outputs = outputsOf(response);
    expect(Object.keys(outputs)).toEqual(["scores", "names"]);
    expect(outputs.scores).toMatchObject({ datatype: "FP32", shape: [2, 3], contents: undefined });
    expect(outputs.scores?.raw).toEqual(floats([2, 4, 6, 8, 10, 12]));
    expect(outputs.names).toMatchObject({ datatype: "BYTES", shape: [2] });
    expect(outputs.names?.raw).toEqual(Buffer.concat([bytesElement("third ä"), bytesElement("third ä")]));
  });

  it("answers typed contents with typed contents", async () => {
    const typed = input("image", "FP32", [1, 3], message([6, floats([0.5, -1, 3])]));
    const response = await client.ok("ModelInfer", message([1, "food"], [5, typed]));
    expect(parts(response, 6)).toEqual([]);
    const { scores, names } = outputsOf(response);
    expect(parts(scores?.contents ?? new Map(), 6)).toEqual([floats([1, -2, 6])]);
    expect(text(names?.contents ?? new Map(), 8)).toBe("third ä");
  });

  it("carries every datatype in its own list, and FP16 and BF16 raw", async () => {
    const doubles = Buffer.from(Float64Array.of(0.1, -1e300).buffer);
    const lists: [datatype: string, dtype: string, field: number, bytes: Uint8Array][] = [
      ["BOOL", "bool", 1, packed([1, 0])],
      ["INT8", "int8", 2, packed([-128, 127])],
      ["INT16", "int16", 2, packed([-32768, 32767])],
      ["INT32", "int32", 2, packed([-2147483648, 2147483647])],
      ["INT64", "int64", 3, packed([-(2n ** 63n), 2n ** 63n - 1n])],
      ["UINT8", "uint8", 4, packed([0, 255])],
      ["UINT16", "uint16", 4, packed([0, 65535])],
      ["UINT32", "uint32", 4, packed([0, 4294967295])],
      ["UINT64", "uint64", 5, packed([0, 2n ** 64n - 1n])],
      ["FP32", "float32", 6, floats([0.1, -3e38])],
      ["FP64", "float64", 7, doubles],
    ];
    const inputs = lists.map(([datatype, dtype, field, bytes]) =>
      message([5, input(dtype, datatype, [2], message([field, bytes]))]),
    );
    expect(lists.map(([, dtype]) => dtype).sort()).toEqual([...TYPED].sort());
    const response = await client.ok("ModelInfer", Buffer.concat([message([1, "echo"]), ...inputs]));
    const outputs = outputsOf(response);
    for (const [datatype, dtype, field, bytes] of lists) {
      const output = outputs[`${dtype}_again`];
      expect(output?.datatype).toBe(datatype);
      expect(parts(output?.contents ?? new Map(), field)[0], datatype).toEqual(Buffer.from(bytes));
    }
    for (const [datatype, dtype] of [
      ["FP16", "float16"],
      ["BF16", "bfloat16"],
    ] as const) {
      const half = message(
        [1, `echo_${dtype}`],
        [5, input(dtype, datatype, [2])],
        [7, Buffer.of(0, 60, 0, 192)],
      );
      const output = outputsOf(await client.ok("ModelInfer", half))[`${dtype}_again`];
      expect(output).toMatchObject({ datatype, shape: [2], raw: Buffer.of(0, 60, 0, 192) });
    }
  });

  it("answers only the outputs that were asked for, in their order", async () => {
    const names = message([6, message([1, "names"])], [6, message([1, "scores"])]);
    const response = await client.ok("ModelInfer", Buffer.concat([FOOD, names]));
    expect(Object.keys(outputsOf(response))).toEqual(["names", "scores"]);
  });

  it("runs several routes for one request, named by a parameter or by outputs", async () => {
    const byParameter = message([4, entry("routes", message([3, "coco, net"]))]);
    const all = await client.ok("ModelInfer", Buffer.concat([FOOD, byParameter]));
    expect(Object.keys(outputsOf(all))).toEqual([
      "food/scores",
      "food/names",
      "coco/model/boxes",
      "net/pool",
    ]);
    const byName = message([6, message([1, "coco/model/boxes"])], [6, message([1, "scores"])]);
    const response = await client.ok("ModelInfer", Buffer.concat([FOOD, byName]));
    const outputs = outputsOf(response);
    expect(outputs["coco/model/boxes"]?.raw).toEqual(floats([2, 3, 4, 5, 6, 7]));
    expect(outputs.scores?.raw).toEqual(floats([2, 4, 6, 8, 10, 12]));
    expect(parametersOf(response).revision).toBe(twice);
    const revisions = parts(response, 5).map((bytes) => parametersOf(read(bytes)).revision);
    expect(revisions).toEqual([service.revisions.coco, twice]);
    expect(service.requests.map(({ routes }) => routes)).toEqual([
      ["food", "coco", "net"],
      ["food", "coco"],
    ]);
  });

  it("hands on version, key, cache and timeout", async () => {
    const parameters = message(
      [2, once],
      [4, entry("key", message([3, "me"]))],
      [4, entry("cache", message([1, false]))],
      [4, entry("timeout", message([2, 5_500_000]))],
      [4, entry("priority", message([5, 3]))],
      [4, entry("something_new", message([3, "ignored"]))],
    );
    const response = await client.ok("ModelInfer", Buffer.concat([FOOD, parameters]));
    expect(text(response, 2)).toBe(once);
    expect(outputsOf(response).scores?.raw).toEqual(PIXELS);
    expect(service.requests[0]).toMatchObject({ version: once, key: "me", cache: false, timeout: 5500 });
  });

  it("says whether features came from the cache", async () => {
    const head = message([1, "head"], [5, IMAGE], [7, PIXELS]);
    await service.deployment.addModel(modelBytes(headOf(await net())), "head", { by: "test" });
    await client.ok("ModelInfer", head);
    await client.ok("ModelInfer", head);
    const cached = async (bytes: Uint8Array) => parametersOf(await client.ok("ModelInfer", bytes)).cached;
    expect(await cached(head)).toBe(1);
    expect(await cached(Buffer.concat([head, message([4, entry("cache", message([1, false]))])]))).toBe(0);
  });

  it.each([
    ["no such model", message([1, "nothing"]), status.NOT_FOUND],
    ["no such version", message([1, "food"], [2, "0".repeat(64)]), status.NOT_FOUND],
    ["no model name", message([5, IMAGE], [7, PIXELS]), status.INVALID_ARGUMENT],
    ["a path as model name", message([1, "../food"]), status.INVALID_ARGUMENT],
    ["no such output", Buffer.concat([FOOD, message([6, message([1, "nothing"])])]), status.INVALID_ARGUMENT],
    [
      "raw and typed contents together",
      message([1, "food"], [5, input("image", "FP32", [1, 3], message([6, floats([1, 2, 3])]))], [7, PIXELS]),
      status.INVALID_ARGUMENT,
    ],
    [
      "fewer raw contents than inputs",
      message([1, "food"], [5, IMAGE], [5, IMAGE], [7, PIXELS]),
      status.INVALID_ARGUMENT,
    ],
    [
      "more raw contents than inputs",
      message([1, "food"], [5, IMAGE], [7, PIXELS], [7, PIXELS]),
      status.INVALID_ARGUMENT,
    ],
    [
      "an input twice",
      message([1, "food"], [5, IMAGE], [5, IMAGE], [7, PIXELS], [7, PIXELS]),
      status.INVALID_ARGUMENT,
    ],
    [
      "raw contents of another size",
      message([1, "food"], [5, IMAGE], [7, floats([1])]),
      status.INVALID_ARGUMENT,
    ],
    [
      "typed contents of another size",
      message([1, "food"], [5, input("image", "FP32", [1, 3], message([6, floats([1, 2])]))]),
      status.INVALID_ARGUMENT,
    ],
    [
      "contents in another type's list",
      message([1, "food"], [5, input("image", "FP32", [1, 3], message([2, packed([1, 2, 3])]))]),
      status.INVALID_ARGUMENT,
    ],
    [
      "typed FP16",
      message([1, "echo_float16"], [5, input("float16", "FP16", [1], message([4, packed([1])]))]),
      status.INVALID_ARGUMENT,
    ],
    [
      "an INT8 out of range",
      message([1, "echo_int8"], [5, input("int8", "INT8", [1], message([2, packed([128])]))]),
      status.INVALID_ARGUMENT,
    ],
    [
      "a datatype that is none",
      message([1, "food"], [5, input("image", "FLOAT", [1, 3])]),
      status.INVALID_ARGUMENT,
    ],
    [
      "a negative dimension",
      message([1, "food"], [5, input("image", "FP32", [-1, 3])], [7, PIXELS]),
      status.INVALID_ARGUMENT,
    ],
    [
      "more elements than the limit",
      message([1, "food"], [5, input("image", "FP32", [2 ** 40, 3])], [7, PIXELS]),
      status.RESOURCE_EXHAUSTED,
    ],
    [
      "an input that the model has not",
      message([1, "food"], [5, input("other", "FP32", [0])]),
      status.INVALID_ARGUMENT,
    ],
    [
      "shared memory",
      message(
        [1, "food"],
        [5, Buffer.concat([IMAGE, message([4, entry("shared_memory_region", message([3, "r"]))])])],
      ),
      status.INVALID_ARGUMENT,
    ],
  ])("refuses %s", async (_, bytes, code) => {
    const answer = await client.call("ModelInfer", bytes);
    expect(`${status[answer.code]}: ${answer.details}`).toMatch(new RegExp(`^${status[code]}: .{10}`));
  });
});

describe("ModelStreamInfer", () => {
  const responses = async (send: (write: (bytes: Buffer) => void) => void) => {
    const stream = client.stream("ModelStreamInfer");
    const received: Read[] = [];
    stream.on("data", (bytes: Buffer) => received.push(read(bytes)));
    const ended = new Promise<number>((resolve) => {
      stream.on("status", ({ code }) => resolve(code));
      stream.on("error", () => undefined);
    });
    send((bytes) => stream.write(bytes));
    stream.end();
    return { code: await ended, received };
  };
  const idOf = (response: Read) => text(read(parts(response, 2)[0] ?? Buffer.alloc(0)), 3);

  it("answers in order, however long each takes, and goes on after failures", async () => {
    let releaseFirst = () => {};
    const first = new Promise<void>((resolve) => {
      releaseFirst = resolve;
    });
    // No more than sixteen are taken at a time, so the first is let go by the sixteenth.
    service.before = async () => {
      if (service.requests.length === 1) await first;
      if (service.requests.length === 15) releaseFirst();
    };
    const { code, received } = await responses((write) => {
      for (let index = 0; index < 40; index++) {
        const id = message([3, `id ${index}`]);
        write(index === 5 ? message([1, "nothing"], [3, "id 5"]) : Buffer.concat([FOOD, id]));
      }
    });
    expect(code).toBe(status.OK);
    expect(received.map(idOf)).toEqual(Array.from({ length: 40 }, (_, index) => `id ${index}`));
    expect(received.map((response) => text(response, 1) !== "")).toEqual(
      Array.from({ length: 40 }, (_, index) => index === 5),
    );
    expect(text(received[5] ?? new Map(), 1)).toContain("nothing");
  });

  it("answers bytes that are no message with an error and goes on", async () => {
    const { code, received } = await responses((write) => {
      write(Buffer.of(255, 255, 255));
      write(FOOD);
    });
    expect(code).toBe(status.OK);
    expect(received.map((response) => text(response, 1) !== "")).toEqual([true, false]);
  });
});
