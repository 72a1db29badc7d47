/** A head that does not fit, sent to a server over HTTP: the refusal says which way leads to one of its backbones. */
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readMetadata, type Tap, withMetadata } from "../../src/onnx/metadata.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { modelBytes } from "../../src/onnx/write.js";
import { startHttp } from "../../src/server/http/start-http.js";
import { backbone, deploy, endDeployments, head, newFolder } from "./small-deployment.js";

let url: string;
let close: () => Promise<void>;
beforeEach(async () => {
  const running = await deploy(await newFolder());
  await running.addModel(modelBytes(await backbone()), "trunk", { by: "test" });
  const server = await startHttp(running, { port: 0, logger: pino({ level: "silent" }) });
  url = server.address;
  close = () => server.close();
});
afterEach(async () => {
  await close();
  await endDeployments();
});

async function post(file: Uint8Array) {
  const response = await fetch(`${url}/polyhead/v1/models?route=food`, {
    method: "POST",
    headers: { "content-type": "application/octet-stream" },
    body: file,
  });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

const elsewhere = (taps: readonly Tap[]) => taps.map((tap) => ({ ...tap, identity: "0".repeat(64) }));

/** A head on tokens, of which the server's backbone has none. */
function onTokens(): Model {
  const shape = ["n", 5, 8];
  const main = graph("head", {
    nodes: [node("Relu", ["tokens"], ["scores"])],
    inputs: [valueInfo("tokens", "float32", shape)],
    outputs: [valueInfo("scores", "float32", shape)],
    weights: [],
  });
  const taps = elsewhere([{ name: "tokens", dtype: "float32", shape, identity: "" }]);
  return withMetadata(model(main), { role: "head", taps });
}

describe("the body of the refusal has a plan", () => {
  it("by an adapter, where one can be fitted", async () => {
    const own = head(await backbone(), [1, 0, 0, 1]);
    const stranger = withMetadata(own, { taps: elsewhere(readMetadata(own).taps ?? []) });
    const { status, body } = await post(modelBytes(stranger));
    expect(status).toBe(409);
    expect(body).toMatchObject({
      code: "HEAD_MISMATCH",
      error: expect.stringContaining('The way to "trunk" is adapt'),
      plan: {
        backbone: "trunk",
        way: "adapt",
        reasons: [expect.stringContaining("other features")],
        unknown: [expect.stringContaining("How much of the head survives")],
        command: expect.stringMatching(/^polyhead plan --backbone trunk\.onnx --head food\.onnx /),
      },
    });
  });

  it("by a new head, where none can", async () => {
    const { status, body } = await post(modelBytes(onTokens()));
    expect(status).toBe(409);
    expect(body).toMatchObject({
      plan: { way: "tune", command: expect.stringMatching(/^polyhead teach --backbone trunk\.onnx /) },
    });
  });

  it("only where a head does not fit", async () => {
    const { status, body } = await post(new TextEncoder().encode("no model"));
    expect(status).toBe(400);
    expect(JSON.stringify(body)).not.toContain("plan");
  });
});
