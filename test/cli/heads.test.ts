/** `heads` and `switch` on a store, and what they ask of a server; a real server is in the test of `serve`. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type HttpServer, startHttp } from "../../src/server/http/start-http.js";
import { Store } from "../../src/store/index.js";
import { arithmetic } from "../server/http/client.js";
import type { ObservedService } from "../server/observed-service.js";
import { endDeployments } from "../server/small-deployment.js";
import { polyhead } from "./command.js";
import { writeSmallModels } from "./small-models.js";

let models: string;
const at = (name: string) => join(models, `${name}.onnx`);
beforeAll(async () => {
  models = await mkdtemp(join(tmpdir(), "heads-"));
  await writeSmallModels(models);
});
afterAll(() => rm(models, { recursive: true }));

async function json(...words: string[]) {
  const { status, stdout } = await polyhead(...words, "--json");
  return { status, document: JSON.parse(stdout) };
}

describe("heads and switch on a store", () => {
  let store: string;
  beforeEach(async () => {
    store = join(await mkdtemp(join(models, "store-")), "store");
  });
  const on = (...words: string[]) => json(...words, "--store", store);
  const pointing = async () => {
    const { routes } = (await on("heads", "ls")).document;
    return Object.fromEntries(
      routes.map(({ name, revisions }: { name: string; revisions: { revision: string }[] }) => [
        name,
        revisions.map(({ revision }) => revision).join(),
      ]),
    );
  };
  const add = async (name: string, ...words: string[]): Promise<string> => {
    const { status, document } = await on("heads", "add", at(name), ...words);
    expect(status).toBe(0);
    return document.revision;
  };

  it("add, switch by a short revision, roll back and remove, with history", async () => {
    await add("backbone");
    const one = await add("one", "--route", "sum");
    const ten = await add("ten", "--route", "sum");
    expect(await pointing()).toEqual({ sum: one });
    const switched = await on("switch", `sum=${ten.slice(0, 8)}`, "--reason", "better");
    expect(switched).toEqual({ status: 0, document: { generation: 3, targets: { sum: ten } } });
    expect(await pointing()).toEqual({ sum: ten });
    expect((await on("switch", "sum", "--rollback")).document).toEqual({
      generation: 4,
      targets: { sum: one },
    });
    expect((await on("heads", "rm", "sum")).document).toEqual({ removed: "sum" });
    expect(await pointing()).toEqual({});
    const { history } = (await on("heads", "history", "sum")).document;
    expect(history.map(({ action }: { action: string }) => action)).toEqual([
      "remove",
      "rollback",
      "switch",
      "add",
      "add",
    ]);
    expect(history[2]).toMatchObject({ generation: 3, route: "sum", reason: "better" });
    const kept = await (await Store.open(store, { readOnly: true })).models();
    expect(kept.map(({ revision }) => revision)).toContain(ten);
  });

  it("switch several routes as one change", async () => {
    await add("backbone");
    const one = await add("one", "--route", "a");
    await add("one", "--route", "b");
    const ten = await add("ten");
    await on("switch", `a=${ten}`, `b=${ten}`);
    expect(await pointing()).toEqual({ a: ten, b: ten });
    expect((await on("switch", `a=${one}`, `nowhere=${one}`)).status).toBe(66);
    expect(await pointing()).toEqual({ a: ten, b: ten });
  });

  it("take a head's backbone with it where it lies beside the head, as split writes them", async () => {
    const { status, document } = await on("heads", "add", at("one"), "--route", "sum");
    expect([status, document.live]).toEqual([0, true]);
    const kept = await (await Store.open(store, { readOnly: true })).models();
    expect(kept.map(({ title, revision }) => [title, revision])).toEqual([
      ["backbone.onnx", document.backbone],
      ["one.onnx", document.revision],
    ]);
    const again = await on("heads", "add", at("ten"), "--route", "sum");
    expect(again.document).toEqual({ revision: again.document.revision, route: "sum", live: false });
  });

  it("give a revision that is kept already to a route", async () => {
    await add("backbone");
    const one = await add("one");
    expect(await pointing()).toEqual({});
    const added = await on("heads", "add", one.slice(0, 8), "--route", "sum");
    expect(added).toEqual({ status: 0, document: { revision: one, route: "sum", live: true } });
    expect(await pointing()).toEqual({ sum: one });
    expect((await on("heads", "add", "0123456789", "--route", "sum")).document.error.code).toBe("NOT_FOUND");
  });

  it("say the way to a backbone that is there", async () => {
    await add("backbone");
    const { document } = await on("heads", "add", at("alien"), "--route", "sum");
    expect(document.error.details.plan).toMatchObject({ backbone: "backbone" });
    expect(document.error.message).toContain("polyhead ");
  });

  it("refuse a head without its backbone, and keep nothing of it", async () => {
    await add("backbone");
    const { status, document } = await on("heads", "add", at("alien"), "--route", "sum");
    expect(status).toBe(65);
    expect(document.error.code).toBe("HEAD_MISMATCH");
    expect(await pointing()).toEqual({});
    expect(await (await Store.open(store)).models()).toHaveLength(1);
  });

  it.each([
    [["switch", "sum"], 64],
    [["switch", "sum=1234567"], 64],
    [["switch", "sum=0123456789"], 66],
    [["switch", "sum=0123456789", "sum=0123456789"], 66],
    [["switch", "sum", "--rollback"], 66],
    [["switch", "sum", "more", "--rollback"], 66],
    [["switch", "sum=more", "--rollback"], 64],
    [["heads", "rm", "sum"], 66],
    [["heads", "history", "sum"], 66],
    [["heads", "ls", "--server", "http://127.0.0.1:1"], 64],
  ])("%j ends with %i", async (words, status) => {
    await Store.open(store);
    const { document, ...end } = await on(...words);
    expect(end.status).toBe(status);
    expect(document.error.message.length).toBeGreaterThan(20);
  });

  it("reading makes no store", async () => {
    expect((await on("heads", "ls")).status).not.toBe(0);
    await expect(Store.open(store, { readOnly: true })).rejects.toMatchObject({ name: "PolyheadError" });
  });
});

describe("heads and switch at a server", () => {
  const secret = "0123456789abcdef-control";
  let service: ObservedService;
  let server: HttpServer;
  beforeAll(async () => {
    service = await arithmetic();
    const tokens = [{ name: "ops", secret, scopes: ["control" as const] }];
    server = await startHttp(service, { port: 0, tokens, logger: pino({ level: "silent" }) });
  });
  afterAll(async () => {
    await server.close();
    await endDeployments();
  });
  const ask = (...words: string[]) => json(...words, "--server", server.address, "--token", secret);

  it("list its routes", async () => {
    const { document } = await ask("heads", "ls");
    expect(document.routes).toMatchObject([
      { name: "double", revisions: [{ revision: service.revisions.double, weight: 1 }], requests: 0 },
      { name: "negate" },
      { name: "gate" },
    ]);
  });

  it("change its routes with a reason, and send a model's whole file", async () => {
    const { third = "", fourth } = service.revisions;
    await ask("switch", `double=${third.slice(0, 8)}`, `negate=${fourth}`, "--reason", "to see");
    expect(service.history("double")[0]).toMatchObject({ by: "ops", reason: "to see", action: "switch" });
    expect(service.target("double").revisions).toEqual([{ revision: third, weight: 1 }]);
    expect(service.target("negate").revisions).toEqual([{ revision: fourth, weight: 1 }]);
    const added = await ask("heads", "add", at("one"), "--route", "sum");
    expect([added.status, added.document.live]).toEqual([0, true]);
    expect(service.models().map(({ name }) => name)).toContain("backbone");
    const x = { dtype: "float32", shape: [1, 3], data: Float32Array.of(1, 2, 3) } as const;
    const answer = await service.infer({ routes: ["sum"], inputs: { x } });
    expect([...(answer.routes.sum?.outputs.y?.data ?? [])]).toEqual([3, 5, 7]);
    const again = await ask("heads", "add", third, "--route", "sum");
    expect(again.document).toEqual({ revision: third, route: "sum", live: false });
    expect((await ask("heads", "rm", "sum")).document).toEqual({ removed: "sum" });
  });

  it("say what the server refuses, with its code", async () => {
    const { status, document } = await json("heads", "ls", "--server", server.address);
    expect(status).toBe(77);
    expect(document.error.code).toBe("UNAUTHENTICATED");
    expect((await ask("heads", "rm", "nowhere")).document.error.code).toBe("NOT_FOUND");
  });

  it("say that nobody answers", async () => {
    const { status, document } = await json("heads", "ls", "--server", "http://127.0.0.1:1");
    expect(status).toBe(75);
    expect(document.error.message).toContain("http://127.0.0.1:1");
  });
});
