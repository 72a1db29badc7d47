/**
 * The malformed requests once more, against models in a store that ONNX Runtime runs: what the engine says of inputs
 * is the client's fault as well. Texts and all other types of elements pass through it and come back as they were.
 */
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { type HttpServer, startHttp } from "../../src/server/http/start-http.js";
import { datatypeOf } from "../../src/server/protocol/datatypes.js";
import { routeTo, Store } from "../../src/store/index.js";
import type { DType } from "../../src/tensor/dtype.js";
import { float32, int64 } from "../../src/tensor/tensor.js";
import { DOUBLE, send } from "./http/client.js";
import { CASES, INFER, isRefusal, LIMITS } from "./http/malformed-cases.js";
import { deploy, endDeployments, newFolder } from "./small-deployment.js";

/** Values as JSON has them, by the type of the elements. */
const ECHOED: Partial<Record<DType, readonly (number | string | boolean)[]>> = {
  bool: [true, false],
  uint8: [0, 255],
  int8: [-128, 127],
  int32: [-2147483648, 2147483647],
  int64: [-9007199254740991, 9007199254740991],
  float32: [0.5, -1e30],
  float64: [0.1, -1e300],
  string: ["", "Grüße, 世界"],
};

/** `y` is `x` times a factor; `count` is one number. */
function times(factor: number): Model {
  return model(
    graph("times", {
      nodes: [node("Mul", ["x", "factor"], ["y"]), node("Mul", ["one", "one"], ["count"])],
      inputs: [valueInfo("x", "float32", ["batch", 2])],
      outputs: [valueInfo("y", "float32", ["batch", 2]), valueInfo("count", "int64", [1])],
      weights: [weight("factor", float32([1, 1], [factor])), weight("one", int64([1], [1]))],
    }),
  );
}

/** Every type of elements in, and out as it was. */
function echo(): Model {
  const dtypes = Object.keys(ECHOED) as DType[];
  return model(
    graph("echo", {
      nodes: dtypes.map((dtype) => node("Identity", [dtype], [`${dtype}_again`])),
      inputs: dtypes.map((dtype) => valueInfo(dtype, dtype, ["count"])),
      outputs: dtypes.map((dtype) => valueInfo(`${dtype}_again`, dtype, ["count"])),
      weights: [],
    }),
  );
}

let server: HttpServer;
let store: Store;
beforeAll(async () => {
  const folder = await newFolder();
  store = await Store.open(folder);
  const models = { double: times(2), negate: times(-1), gate: times(1), echo: echo() };
  for (const [name, each] of Object.entries(models)) {
    const revision = await store.put(each, { title: `${name}.onnx` });
    await store.change((routes) => routes.set(name, routeTo(revision)), { by: "test", reason: name });
  }
  server = await startHttp(await deploy(folder), {
    port: 0,
    logger: pino({ level: "silent" }),
    limits: LIMITS,
  });
});
afterAll(async () => {
  await server.close();
  await endDeployments();
});

describe("models in a store, run by ONNX Runtime", () => {
  it("answer malformed requests with 4xx and a reason, and are as they were afterwards", async () => {
    const before = await store.routes();
    const wrong: string[] = [];
    for (const { name, path, sent } of CASES) {
      const answer = await send(server.address, path, sent);
      if (!isRefusal(answer)) wrong.push(`${name}: ${answer.status} ${answer.body.toString().slice(0, 200)}`);
    }
    expect(wrong).toEqual([]);
    expect(await store.routes()).toEqual(before);
    const answer = await send(server.address, INFER, { body: DOUBLE });
    expect(answer.json()).toMatchObject({ outputs: [{ data: [3, -4] }, { data: [1] }] });
  });

  it("take and give texts and all other types of elements", async () => {
    const inputs = Object.entries(ECHOED).map(([name, data]) => ({
      name,
      datatype: datatypeOf(name as DType),
      shape: [2],
      data,
    }));
    const answer = await send(server.address, "/v2/models/echo/infer", { body: { inputs } });
    expect(answer.status, answer.body.toString()).toBe(200);
    const { outputs } = answer.json() as { outputs: readonly { name: string; data: unknown }[] };
    for (const [name, data] of Object.entries(ECHOED)) {
      const got = outputs.find((each) => each.name === `${name}_again`)?.data as readonly unknown[];
      expect(name === "float32" ? got.map((each) => Math.fround(Number(each))) : got, name).toEqual(
        name === "float32" ? data.map((each) => Math.fround(Number(each))) : data,
      );
    }
  });
});
