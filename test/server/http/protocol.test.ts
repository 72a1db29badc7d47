/** The Open Inference Protocol over REST, by requests and answers written by hand. */
import { deflateSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { modelBytes } from "../../../src/onnx/write.js";
import { times } from "../protocol-models.js";
import { DOUBLE, everything, type Running, send, start, stopAll } from "./client.js";

let at: Running;
/** Revisions by the names of the models. */
let revisions: Readonly<Record<string, string>>;
beforeAll(async () => {
  at = await start({}, await everything());
  revisions = at.service.revisions;
});
afterAll(stopAll);

const infer = (body: unknown, path = "/v2/models/double/infer") =>
  send(at.url, path, { body: body as object });
const echo = (datatype: string, name: string, shape: number[], data: unknown) =>
  infer({ inputs: [{ name, shape, datatype, data }] }, `/v2/models/echo_${name}/infer`);

describe("health and metadata", () => {
  it("describes the server", async () => {
    const answer = await send(at.url, "/v2");
    expect(answer.status).toBe(200);
    expect(answer.json()).toEqual({
      name: "polyhead",
      version: "1.2.3",
      extensions: [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "statistics",
      ],
    });
  });

  it("tells live from ready", async () => {
    expect((await send(at.url, "/v2/health/live")).json()).toEqual({ live: true });
    expect((await send(at.url, "/v2/health/ready")).status).toBe(200);
    at.service.ready = false;
    const ready = await send(at.url, "/v2/health/ready");
    const model = await send(at.url, "/v2/models/double/ready");
    at.service.ready = true;
    expect([ready.status, ready.json()]).toEqual([503, { live: true, ready: false }]);
    expect([model.status, model.json()]).toEqual([503, { name: "double", ready: false }]);
    expect((await send(at.url, "/v2/models/double/ready")).json()).toEqual({ name: "double", ready: true });
  });

  it.each(["/v2/models/double", "/v2/models/double/versions/REVISION"])(
    "describes a model at %s",
    async (path) => {
      const double = revisions.double ?? "";
      expect((await send(at.url, path.replace("REVISION", double))).json()).toEqual({
        name: "double",
        versions: [double],
        platform: "onnxruntime_onnx",
        inputs: [{ name: "x", datatype: "FP32", shape: [-1, 2] }],
        outputs: [
          { name: "y", datatype: "FP32", shape: [-1, 2] },
          { name: "count", datatype: "INT64", shape: [1] },
        ],
      });
    },
  );

  it.each([
    "/v2/models/none",
    "/v2/models/none/ready",
    "/v2/models/none/stats",
    "/v2/models/double/versions/7",
  ])("does not know %s", async (path) => {
    const answer = await send(at.url, path);
    expect(answer.status).toBe(404);
    expect(Object.keys(answer.json() as object)).toEqual(["error"]);
  });
});

interface Answered {
  readonly parameters: { readonly cached: boolean };
}

describe("inference with JSON", () => {
  it("answers all outputs, with the id and what made them", async () => {
    const answer = await infer({ id: "42", ...DOUBLE });
    expect(answer.status).toBe(200);
    expect(answer.headers["content-type"]).toBe("application/json");
    expect(answer.json()).toEqual({
      model_name: "double",
      model_version: revisions.double,
      id: "42",
      parameters: { revision: revisions.double, generation: at.service.generation, cached: false },
      outputs: [
        { name: "y", shape: [1, 2], datatype: "FP32", data: [3, -4] },
        { name: "count", shape: [1], datatype: "INT64", data: [1] },
      ],
    });
  });

  it("says whether features came from the cache, in JSON and before binary data", async () => {
    const image = { name: "image", shape: [1, 2, 2, 2], datatype: "FP32", data: [1, 1, 1, 1, 3, 3, 3, 3] };
    const ask = async (parameters: object) => {
      const answer = await infer({ inputs: [image], parameters }, "/v2/models/head/infer");
      const length = Number(answer.headers["inference-header-content-length"] ?? answer.body.length);
      const { parameters: said } = JSON.parse(answer.body.subarray(0, length).toString()) as Answered;
      return said.cached;
    };
    expect(await ask({ cache: false })).toBe(false);
    expect(await ask({ cache: false, binary_data_output: true })).toBe(false);
    await ask({});
    expect(await ask({})).toBe(true);
    expect(await ask({ binary_data_output: true })).toBe(true);
  });

  it("answers the outputs that were asked for, in their order", async () => {
    const answer = await infer({ ...DOUBLE, outputs: [{ name: "count" }, { name: "y" }] });
    expect(answer.json()).toMatchObject({ outputs: [{ name: "count" }, { name: "y" }] });
    expect((await infer({ ...DOUBLE, outputs: [{ name: "count" }] })).json()).toMatchObject({
      outputs: [{ name: "count", data: [1] }],
    });
  });

  it("answers several routes from one request", async () => {
    const byParameter = await infer({ ...DOUBLE, parameters: { routes: "negate" } });
    expect(byParameter.json()).toMatchObject({
      model_name: "double",
      outputs: [
        { name: "double/y", data: [3, -4], parameters: { route: "double", revision: revisions.double } },
        { name: "double/count", data: [1] },
        { name: "negate/y", data: [-1.5, 2], parameters: { route: "negate", revision: revisions.negate } },
      ],
    });
    const byOutput = await infer({ ...DOUBLE, outputs: [{ name: "negate/y" }, { name: "y" }] });
    expect(byOutput.json()).toMatchObject({
      outputs: [
        { name: "negate/y", data: [-1.5, 2] },
        { name: "y", data: [3, -4] },
      ],
    });
    expect(at.service.requests.at(-1)?.routes).toEqual(["double", "negate"]);
  });

  it("passes on key, cache, timeout in microseconds and version, and ignores what it does not know", async () => {
    const parameters = {
      key: "me",
      cache: false,
      timeout: 2_500_000,
      priority: 3,
      sequence_id: 9,
      unheard: "of",
    };
    const answer = await infer(
      { ...DOUBLE, parameters },
      `/v2/models/double/versions/${revisions.double}/infer`,
    );
    expect(answer.json()).toMatchObject({ parameters: { cached: false } });
    expect(at.service.requests.at(-1)).toMatchObject({
      key: "me",
      cache: false,
      timeout: 2500,
      version: revisions.double,
    });
  });

  it("takes nested data as well as flat", async () => {
    const nested = {
      name: "x",
      shape: [2, 2],
      datatype: "FP32",
      data: [
        [1, 2],
        [3, 4],
      ],
    };
    expect((await infer({ inputs: [nested] })).json()).toMatchObject({
      outputs: [{ data: [2, 4, 6, 8] }, {}],
    });
  });

  it.each([
    ["BOOL", "bool", [true, false]],
    ["UINT8", "uint8", [0, 255]],
    ["UINT16", "uint16", [0, 65535]],
    ["UINT32", "uint32", [0, 4294967295]],
    ["INT8", "int8", [-128, 127]],
    ["INT16", "int16", [-32768, 32767]],
    ["INT32", "int32", [-2147483648, 2147483647]],
    ["INT64", "int64", [-1, 9007199254740991]],
    ["UINT64", "uint64", [0, 5]],
    ["FP16", "float16", [0.5, -65504]],
    ["BF16", "bfloat16", [1, -2.5]],
    ["FP32", "float32", ["NaN", "Infinity"]],
    ["FP64", "float64", [0.1, "-Infinity"]],
    ["BYTES", "string", ["ä", ""]],
  ])("keeps %s as it is", async (datatype, name, data) => {
    expect((await echo(datatype, name, [2], data)).json()).toMatchObject({
      outputs: [{ name: `${name}_again`, datatype, shape: [2], data }],
    });
  });

  it("keeps INT64 and UINT64 beyond 2^53 exactly", async () => {
    const body = (name: string, datatype: string, data: string) =>
      `{"id":"9007199254740993 \\" 1234567890123456","inputs":[{"name":"${name}","shape":[2],"datatype":"${datatype}","data":[${data}]}]}`;
    const signed = "-9223372036854775808,9007199254740993";
    const answer = await send(at.url, "/v2/models/echo_int64/infer", {
      body: body("int64", "INT64", signed),
    });
    expect(answer.body.toString()).toContain(`"data":[${signed}]`);
    expect(answer.json()).toMatchObject({ id: '9007199254740993 " 1234567890123456' });
    const unsigned = await send(at.url, "/v2/models/echo_uint64/infer", {
      body: body("uint64", "UINT64", '"18446744073709551615", 1'),
    });
    expect(unsigned.body.toString()).toContain('"data":[18446744073709551615,1]');
    const fraction = await send(at.url, "/v2/models/echo_float64/infer", {
      body: body("float64", "FP64", "0.1234567890123456789, 12345678901234567890e-3"),
    });
    expect(fraction.json()).toMatchObject({
      outputs: [{ data: ["0.1234567890123456789", "12345678901234567890e-3"].map(Number) }],
    });
    const long = await send(at.url, "/v2/models/echo_float32/infer", {
      body: body("float32", "FP32", "10000000000000000000, -10000000000000000000"),
    });
    expect(long.json()).toMatchObject({ outputs: [{ data: [1e19, -1e19].map(Math.fround) }] });
  });

  it.each([
    ["gzip", gzipSync],
    ["deflate", deflateSync],
  ])("takes bodies in %s", async (encoding, compress) => {
    const body = compress(JSON.stringify(DOUBLE));
    const headers = { "content-encoding": encoding };
    expect((await send(at.url, "/v2/models/double/infer", { body, headers })).status).toBe(200);
  });
});

describe("binary tensor data", () => {
  const FLOATS = Buffer.from([0, 0, 192, 63, 0, 0, 0, 192]); // 1.5, -2
  const sendBinary = (json: object, binary: Uint8Array, headers: Record<string, string> = {}) => {
    const head = Buffer.from(JSON.stringify(json));
    return send(at.url, "/v2/models/double/infer", {
      body: Buffer.concat([head, binary]),
      headers: { "inference-header-content-length": String(head.length), ...headers },
    });
  };
  const x = { name: "x", shape: [1, 2], datatype: "FP32", parameters: { binary_data_size: 8 } };

  it("is read after the JSON and written after it", async () => {
    const answer = await sendBinary(
      { inputs: [x], outputs: [{ name: "y", parameters: { binary_data: true } }] },
      FLOATS,
      {
        "content-type": "application/octet-stream",
      },
    );
    expect(answer.status).toBe(200);
    expect(answer.headers["content-type"]).toBe("application/octet-stream");
    const length = Number(answer.headers["inference-header-content-length"]);
    expect(JSON.parse(answer.body.subarray(0, length).toString())).toMatchObject({
      outputs: [{ name: "y", shape: [1, 2], datatype: "FP32", parameters: { binary_data_size: 8 } }],
    });
    expect([...answer.body.subarray(length)]).toEqual([0, 0, 64, 64, 0, 0, 128, 192]); // 3, -4
  });

  it("mixes with JSON, output by output, over the default for all", async () => {
    const answer = await sendBinary(
      {
        inputs: [x],
        parameters: { binary_data_output: true },
        outputs: [{ name: "y", parameters: { binary_data: false } }, { name: "count" }],
      },
      FLOATS,
    );
    const length = Number(answer.headers["inference-header-content-length"]);
    expect(JSON.parse(answer.body.subarray(0, length).toString())).toMatchObject({
      outputs: [
        { name: "y", data: [3, -4] },
        { name: "count", parameters: { binary_data_size: 8 } },
      ],
    });
    expect([...answer.body.subarray(length)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0]);
  });

  it("holds several inputs in their order, between inputs in JSON", async () => {
    const head = Buffer.from(
      JSON.stringify({
        inputs: [
          { name: "uint32", shape: [4], datatype: "UINT32", parameters: { binary_data_size: 16 } },
          { name: "int8", shape: [2], datatype: "INT8", data: [5, -5] },
          { name: "bool", shape: [3], datatype: "BOOL", parameters: { binary_data_size: 3 } },
        ],
      }),
    );
    const binary = Buffer.from([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 128, 1, 0, 1]);
    const answer = await send(at.url, "/v2/models/echo_several/infer", {
      body: Buffer.concat([head, binary]),
      headers: {
        "inference-header-content-length": String(head.length),
        "content-type": "application/octet-stream",
      },
    });
    expect(answer.json()).toMatchObject({
      outputs: [
        { name: "uint32_again", data: [1, 2, 3, 2147483648] },
        { name: "int8_again", data: [5, -5] },
        { name: "bool_again", data: [true, false, true] },
      ],
    });
  });

  it("reads a body that is nothing but the only input", async () => {
    const answer = await send(at.url, "/v2/models/double/infer", {
      body: Buffer.concat([FLOATS, FLOATS]),
      headers: { "inference-header-content-length": "0" },
    });
    const length = Number(answer.headers["inference-header-content-length"]);
    expect(JSON.parse(answer.body.subarray(0, length).toString())).toMatchObject({
      outputs: [{ shape: [2, 2] }, {}],
    });
  });
});

describe("the repository and statistics extensions", () => {
  it("lists, loads and unloads", async () => {
    const ready = await send(at.url, "/v2/repository/index", { body: { ready: true } });
    expect(ready.json()).not.toContainEqual(expect.objectContaining({ name: "kept" }));
    const all = await send(at.url, "/v2/repository/index", { method: "POST" });
    expect(all.json()).toContainEqual({
      name: "kept",
      version: revisions.kept,
      state: "UNAVAILABLE",
      reason: "kept in the store, without a route",
    });
    expect((await send(at.url, "/v2/repository/models/kept/load", { method: "POST" })).status).toBe(200);
    expect((await send(at.url, "/v2/models/kept/ready")).status).toBe(200);
    expect(
      (
        await send(at.url, "/v2/repository/models/kept/unload", {
          body: { parameters: { unload_dependents: true } },
        })
      ).status,
    ).toBe(200);
    expect((await send(at.url, "/v2/models/kept/ready")).status).toBe(404);
    expect((await send(at.url, "/v2/repository/models/kept/unload", { method: "POST" })).status).toBe(404);
  });

  it("loads a file in base64", async () => {
    const file = Buffer.from(modelBytes(times(11)));
    const body = { parameters: { config: "{}", "file:1/model.onnx": file.toString("base64") } };
    expect((await send(at.url, "/v2/repository/models/given/load", { body })).status).toBe(200);
    expect((await infer(DOUBLE, "/v2/models/given/infer")).json()).toMatchObject({
      outputs: [{ data: [16.5, -22] }],
    });
    for (const wrong of [
      { "file:a": "AA*C" },
      { "file:a": 3 },
      { "file:a": "" },
      { "file:a": "AAEC", "file:b": "AAEC" },
    ]) {
      const answer = await send(at.url, "/v2/repository/models/given/load", { body: { parameters: wrong } });
      expect(answer.status).toBe(400);
    }
  });

  it("counts", async () => {
    const path = `/v2/models/negate/versions/${revisions.negate}/stats`;
    const inferences = async () => {
      const { model_stats } = (await send(at.url, path)).json() as {
        model_stats: {
          name: string;
          inference_count: number;
          inference_stats: Record<string, { count: number; ns: number }>;
          batch_stats: { batch_size: number; compute_infer: { count: number } }[];
        }[];
      };
      return model_stats[0];
    };
    const before = (await inferences())?.inference_count ?? 0;
    const start = Date.now();
    const two = { inputs: [{ ...DOUBLE.inputs[0], shape: [2, 2], data: [1, 2, 3, 4] }] };
    await infer({ ...two, parameters: { cache: false } }, "/v2/models/negate/infer");
    const after = await inferences();
    expect(after).toMatchObject({ name: "negate", inference_count: before + 2 });
    expect(Number(Reflect.get(after ?? {}, "last_inference"))).toBeGreaterThanOrEqual(start);
    expect(after?.batch_stats).toContainEqual(
      expect.objectContaining({ batch_size: 2, compute_infer: expect.objectContaining({ count: 1 }) }),
    );
    for (const part of ["success", "queue", "compute_input", "compute_infer", "compute_output", "cache_miss"])
      expect(after?.inference_stats[part]?.ns, part).toBeGreaterThan(0);
    const all = (await send(at.url, "/v2/models/stats")).json() as { model_stats: { name: string }[] };
    expect(all.model_stats.map(({ name }) => name)).toEqual(expect.arrayContaining(["double", "negate"]));
    const metrics = await send(at.url, "/metrics");
    expect(metrics.headers["content-type"]).toContain("text/plain; version=0.0.4");
    expect(metrics.body.toString()).toContain('polyhead_requests_total{route="negate"');
  });
});
