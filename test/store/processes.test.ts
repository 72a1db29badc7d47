/** Several processes on one store, from the build: none loses another's change, and a dead one is in nobody's way. */
import { execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it, onTestFinished } from "vitest";
import { routeTo, Store } from "../../src/store/index.js";
import { thisProcess } from "../../src/store/process-name.js";
import { addition, author, refuses, temporaryFolder } from "./samples.js";

const run = promisify(execFile);
const MODULE = new URL("../../dist/store/index.js", import.meta.url).href;

/** A process that runs a program with `store` and `arguments` from the third on. */
const program = (body: string, ...given: string[]) => [
  "--input-type=module",
  "-e",
  `import { Store } from ${JSON.stringify(MODULE)};
   const store = await Store.open(process.argv[1]);
   ${body}`,
  ...given,
];

async function storeWithModel() {
  const store = await Store.open(await temporaryFolder());
  return { store, revision: await store.put(addition(1)) };
}

/** A claim as a process of that name would make it. */
async function claim(store: Store, name: unknown, age = 0) {
  const claims = join(store.directory, ".polyhead", "claims");
  await mkdir(claims, { recursive: true });
  const path = join(claims, "00000000-0000-4000-8000-000000000000");
  await writeFile(path, typeof name === "string" ? name : JSON.stringify(name));
  const then = new Date(Date.now() - age);
  await utimes(path, then, then);
  return path;
}

describe("two processes", () => {
  it("count together without losing one", async () => {
    const { store, revision } = await storeWithModel();
    const counting = program(
      `for (let at = 0; at < 25; at++) await store.change((routes) => {
         const weight = (routes.get("count")?.targets[0].weight ?? 0) + 1;
         routes.set("count", { targets: [{ revision: process.argv[2], weight }] });
       }, { by: String(process.pid), reason: "count" });`,
      store.directory,
      revision,
    );
    await Promise.all([run(process.execPath, counting), run(process.execPath, counting)]);
    const { routes, generation, history } = await store.routes();
    expect([routes.get("count")?.targets[0]?.weight, generation]).toEqual([50, 50]);
    expect(history.map(({ before, after }) => after - before)).toEqual(Array(50).fill(1));
    expect((await store.verify()).findings).toEqual([]);
  });

  it("make one store of a missing folder", async () => {
    const folder = join(await temporaryFolder(), "new");
    const making = program(
      `const { graph, model, node, valueInfo } = await import(new URL("../onnx/model.js", ${JSON.stringify(MODULE)}));
       const name = process.argv[2];
       await store.put(model(graph(name, { nodes: [node("Relu", ["x"], ["y"])], inputs: [valueInfo("x", "float32", [1])],
         outputs: [valueInfo("y", "float32", [1])], weights: [] })), { title: name });`,
      folder,
    );
    await Promise.all(["a", "b", "c"].map((name) => run(process.execPath, [...making, name])));
    expect((await (await Store.open(folder)).models()).map(({ title }) => title).sort()).toEqual([
      "a",
      "b",
      "c",
    ]);
  });

  it("wait for one that lives, up to a bound, and name it", async () => {
    const { store, revision } = await storeWithModel();
    const holder = spawn(
      process.execPath,
      program(
        `await store.change(() => { console.log("held"); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); },
           { by: "holder", reason: "hangs" });`,
        store.directory,
      ),
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    onTestFinished(() => {
      holder.kill("SIGKILL");
    });
    await new Promise((resolve) => holder.stdout.once("data", resolve));
    const impatient = await Store.open(store.directory, { lockWait: 50 });
    const change = () => impatient.change((routes) => routes.set("a", routeTo(revision)), author);
    await expect(change()).rejects.toMatchObject({ code: "STORE_LOCKED", details: { pid: holder.pid } });
    expect((await impatient.routes()).generation).toBe(0); // reading waits for nobody
    const ended = new Promise((resolve) => holder.once("close", resolve));
    holder.kill("SIGKILL");
    await ended;
    expect((await change()).generation).toBe(1);
  });
});

describe("a claim that was left behind", () => {
  const here = thisProcess();

  it.each<[string, unknown, number]>([
    ["of a process that is gone", { ...here, pid: 2 ** 22 + 1 }, 0],
    ["of a process whose number is used again", { ...here, start: "1" }, 0],
    ["of another machine, not renewed", { ...here, place: "elsewhere" }, 60_000],
    ["that is no claim, and old", "{", 60_000],
  ])("%s is cleared away", async (_, name, age) => {
    const { store, revision } = await storeWithModel();
    const path = await claim(store, name, age);
    const next = await Store.open(store.directory);
    await next.change((routes) => routes.set("a", routeTo(revision)), author);
    expect(existsSync(path)).toBe(false);
  });

  it.each<[string, unknown]>([
    ["of a process that lives", here],
    ["of another machine, just renewed", { ...here, place: "elsewhere" }],
    ["that is being written", ""],
  ])("%s is respected", async (_, name) => {
    const { store, revision } = await storeWithModel();
    const path = await claim(store, name);
    const impatient = await Store.open(store.directory, { lockWait: 30 });
    await refuses(
      impatient.change((routes) => routes.set("a", routeTo(revision)), author),
      "STORE_LOCKED",
    );
    expect(existsSync(path)).toBe(true);
  });
});

describe("kills", () => {
  it("at 50 random moments lose nothing that was kept and damage nothing", async () => {
    const script = fileURLToPath(new URL("../../scripts/kill-store.js", import.meta.url));
    const { stdout } = await run(process.execPath, [script, "50"]);
    const { kills, generation, complaints } = JSON.parse(stdout);
    expect([kills, complaints]).toEqual([50, 0]);
    expect(generation).toBeGreaterThan(0);
  }, 180_000);
});
