/** `serve` as tools start it: real processes on free ports, with small models. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { access, cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Client, credentials } from "@grpc/grpc-js";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { routeTo, Store } from "../../src/store/index.js";
import { commandPage, shapeLike } from "../docs/command-page.js";
import { polyhead } from "./command.js";
import { writeSmallModels } from "./small-models.js";

const COMMAND = fileURLToPath(new URL("../../bin/polyhead.js", import.meta.url));
const PATIENCE = 40_000;
const secret = "0123456789abcdef-ops";

interface Ready {
  readonly http: string;
  readonly grpc: string;
  readonly pid: number;
}
interface Started extends Ready {
  readonly child: ChildProcess;
  readonly lines: string[];
  /** What was written to standard error. */
  log(): string;
}

let folder: string;
let store: string;
let revisions: { one: string; ten: string };
const running = new Set<ChildProcess>();
const pids = new Set<number>();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "serve-"));
  await writeSmallModels(folder);
  const template = await Store.open(join(folder, "template"));
  await template.putFile(join(folder, "backbone.onnx"));
  revisions = {
    one: await template.putFile(join(folder, "one.onnx")),
    ten: await template.putFile(join(folder, "ten.onnx")),
  };
  await template.change(
    (routes) => {
      routes.set("sum", routeTo(revisions.one)).set("other", routeTo(revisions.ten));
    },
    { by: "test", reason: "to begin with" },
  );
});
afterAll(() => rm(folder, { recursive: true, force: true }));
beforeEach(async () => {
  store = join(await mkdtemp(join(folder, "store-")), "store");
  await cp(join(folder, "template"), store, { recursive: true });
});
afterEach(() => {
  for (const child of running) child.kill("SIGKILL");
  for (const pid of pids) if (isAlive(pid)) process.kill(pid, "SIGKILL");
  running.clear();
  pids.clear();
});

/** Starts the server and waits for its line. */
async function start(words: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Promise<Started> {
  const given = ["serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--json", ...words];
  const child = spawn(process.execPath, [COMMAND, ...given], {
    env: { ...process.env, POLYHEAD_STORE: store, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  let [output, log] = ["", ""];
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    log += text;
  });
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  await until(
    () => output.includes("\n") || child.exitCode !== null,
    () => `no line; ${log}`,
  );
  const lines = output.split("\n").filter((line) => line !== "");
  const ready: Ready = JSON.parse(lines[0] ?? "{}");
  if (ready.pid) pids.add(ready.pid);
  return { ...ready, child, lines, log: () => log };
}

async function until(done: () => boolean | Promise<boolean>, what: () => string): Promise<void> {
  const end = Date.now() + PATIENCE;
  while (!(await done())) {
    if (Date.now() > end) throw new Error(what());
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function ended(child: ChildProcess) {
  if (child.exitCode === null && child.signalCode === null)
    await once(child, "exit", { signal: AbortSignal.timeout(PATIENCE) });
  return { status: child.exitCode, signal: child.signalCode };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

const body = JSON.stringify({
  inputs: [{ name: "x", datatype: "FP32", shape: [1, 3], data: [1, 2, 3] }],
});

/** What the route `sum` says to 1, 2, 3. */
async function ask({ http }: Ready, route = "sum", headers: Record<string, string> = {}) {
  const response = await fetch(`${http}/v2/models/${route}/infer`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
  const answer: { outputs?: { data: number[] }[] } = JSON.parse(await response.text());
  return { status: response.status, y: answer.outputs?.[0]?.data };
}

describe("polyhead serve", () => {
  it("prints one line, answers over HTTP, curl and gRPC, logs on stderr, and ends with 0 on SIGTERM", async () => {
    const server = await start();
    expect(server.http).toMatch(/^http:\/\/127\.0\.0\.1:[1-9]\d*$/);
    expect(server.grpc).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
    const [example] = (await commandPage()).find(({ title }) => title === "serve")?.examples ?? [];
    expect(shapeLike(example?.document, JSON.parse(server.lines[0] ?? ""))).toEqual(
      shapeLike(example?.document, example?.document),
    );
    expect(await ask(server)).toEqual({ status: 200, y: [3, 5, 7] });
    expect(await ask(server, "other")).toEqual({ status: 200, y: [12, 14, 16] });
    if (
      await access("/usr/bin/curl").then(
        () => true,
        () => false,
      )
    ) {
      const url = `${server.http}/v2/models/sum/infer`;
      const { stdout } = await promisify(execFile)("/usr/bin/curl", [
        "-sS",
        "--max-time",
        "20",
        "-d",
        body,
        url,
      ]);
      expect(JSON.parse(stdout).outputs[0].data).toEqual([3, 5, 7]);
    }
    const client = new Client(server.grpc, credentials.createInsecure());
    const bytes = (value: Buffer) => value;
    // ServerReadyResponse with its first field, a bool, true.
    const ready = await new Promise((resolve, reject) => {
      const path = "/inference.GRPCInferenceService/ServerReady";
      client.makeUnaryRequest(path, bytes, bytes, Buffer.alloc(0), (error, answer) =>
        error ? reject(error) : resolve(answer),
      );
    });
    client.close();
    expect(ready).toEqual(Buffer.from([8, 1]));

    server.child.kill("SIGTERM");
    expect(await ended(server.child)).toEqual({ status: 0, signal: null });
    expect(server.lines).toHaveLength(1);
    for (const line of server.log().trim().split("\n")) expect(JSON.parse(line)).toHaveProperty("level");
  });

  it("takes heads and switches over its control, and keeps an acknowledged switch through kill -9", async () => {
    const server = await start();
    const at = async (...words: string[]) =>
      JSON.parse((await polyhead(...words, "--server", server.http, "--json")).stdout);
    const { ten } = revisions;
    expect(await at("heads", "add", join(folder, "ten.onnx"), "--route", "sum")).toEqual({
      revision: ten,
      route: "sum",
      live: false,
    });
    expect((await at("switch", `sum=${ten.slice(0, 8)}`)).targets).toEqual({ sum: ten });
    server.child.kill("SIGKILL");
    await ended(server.child);
    await until(
      () => !isAlive(server.pid),
      () => "the server outlived its launcher",
    );

    const again = await start();
    expect(await ask(again)).toEqual({ status: 200, y: [12, 14, 16] });
    const rolledBack = JSON.parse(
      (await polyhead("switch", "sum", "--rollback", "--server", again.http, "--json")).stdout,
    );
    expect(rolledBack.targets).toEqual({ sum: revisions.one });
    expect(await ask(again)).toEqual({ status: 200, y: [3, 5, 7] });
    const { routes } = JSON.parse((await polyhead("heads", "ls", "--server", again.http, "--json")).stdout);
    expect(routes.map(({ name }: { name: string }) => name).sort()).toEqual(["other", "sum"]);
  });

  it("keeps what was added to a route, and not switched to, through kill -9", async () => {
    const server = await start();
    const add = ["heads", "add", join(folder, "ten.onnx"), "--route", "sum", "--server", server.http];
    expect((await polyhead(...add)).status).toBe(0);
    process.kill(server.pid, "SIGKILL");
    await ended(server.child);
    const again = await start();
    const { versions } = (await (await fetch(`${again.http}/v2/models/sum`)).json()) as {
      versions: string[];
    };
    expect(versions).toEqual([revisions.one, revisions.ten]);
    const { y } = await ask(again, `sum/versions/${revisions.ten}`);
    expect(y).toEqual([12, 14, 16]);
  });

  it("follows changes that are made to its store", async () => {
    const server = await start();
    await polyhead("switch", `sum=${revisions.ten}`, "--store", store);
    await until(
      async () => (await ask(server)).y?.[0] === 12,
      () => "the change did not arrive",
    );
  });

  it("makes the files of a watched folder go live, and has weights for routes", async () => {
    const drops = join(store, "..", "drops");
    await mkdir(drops);
    const server = await start(["--watch", drops, "--weights", "sum=3", "--weights", "fresh=0.5"]);
    await cp(join(folder, "ten.onnx"), join(drops, "fresh.onnx"));
    await writeFile(join(drops, "broken.onnx"), "not a model");
    await until(
      async () => (await ask(server, "fresh")).y?.[0] === 12,
      () => `the file did not go live; ${server.log()}`,
    );
    const lines = server.log().trim().split("\n");
    expect(lines.map((line) => JSON.parse(line))).toContainEqual(
      expect.objectContaining({ what: "watch", file: "broken.onnx", code: expect.any(String) }),
    );
    server.child.kill("SIGTERM");
    expect(await ended(server.child)).toEqual({ status: 0, signal: null });
  });

  it("takes flags over variables over the file, and tokens from all of them", async () => {
    const config = join(folder, "serve.json");
    await writeFile(
      join(folder, "tokens.json"),
      JSON.stringify([{ name: "ops", secret, scopes: ["control"] }]),
    );
    await writeFile(config, JSON.stringify({ logLevel: "debug", tokensFile: "tokens.json", workers: 1 }));
    const server = await start(["--config", config, "--limits", "tensorElements=2"], {
      POLYHEAD_LOG_LEVEL: "silent",
    });
    expect((await ask(server)).status).toBe(401);
    expect((await ask(server, "sum", { authorization: `Bearer ${secret}` })).status).toBe(413);
    server.child.kill("SIGTERM");
    expect(await ended(server.child)).toEqual({ status: 0, signal: null });
    expect(server.log()).toBe("");
  });

  it.each<[string, string[], NodeJS.ProcessEnv, RegExp]>([
    ["an address of all the world without tokens", ["--http", "0.0.0.0:0"], {}, /tokens/],
    ["a number that is none", ["--workers", "many"], {}, /command line: workers/],
    ["a variable that is wrong", [], { POLYHEAD_QUEUE_LIMIT: "0" }, /environment: queueLimit/],
    ["a weight that is none", ["--weights", "sum=0"], {}, /weights/],
    ["a folder to watch that is not there", ["--watch", "nowhere"], {}, /nowhere/],
    ["an unknown limit", ["--limits", "everything=1"], {}, /limits/],
    ["a certificate without a key", ["--tls-cert", "cert.pem"], {}, /key/],
    ["a port that is none", ["--http", "127.0.0.1:70000"], {}, /65535/],
    ["a file that is not there", ["--config", "nowhere.json"], {}, /nowhere\.json/],
  ])("refuses %s", async (_, words, env, message) => {
    const { child, lines } = await start(words, env);
    expect([64, 66]).toContain((await ended(child)).status);
    expect(JSON.parse(lines[0] ?? "").error.message).toMatch(message);
    expect(lines).toHaveLength(1);
  });

  it("has its schema published", async () => {
    const { ServeConfigSchema } = await import("../../src/cli/serve/config.js");
    const published = JSON.parse(
      await readFile(new URL("../../docs/serve.schema.json", import.meta.url), "utf8"),
    );
    const { $schema, ...schema } = published;
    expect($schema).toContain("json-schema.org");
    expect(schema).toEqual(JSON.parse(JSON.stringify(ServeConfigSchema)));
  });
});
