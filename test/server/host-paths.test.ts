/** Nothing that a client is told has a path of the host: neither refusals nor the reasons why a route does not run. */
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pino } from "pino";
import { afterEach, expect, it } from "vitest";
import { modelBytes } from "../../src/onnx/write.js";
import { startHttp } from "../../src/server/http/start-http.js";
import { backbone, deploy, endDeployments, head, newFolder } from "./small-deployment.js";

const MARKER = "marker-of-this-host";
const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
  await endDeployments();
});

it("is said of a store whose files are broken, by any path or body", async () => {
  const folder = join(await newFolder(), MARKER);
  const first = await deploy(folder);
  const trunk = await backbone();
  await first.addModel(modelBytes(trunk), "trunk", { by: "test" });
  await first.addModel(modelBytes(head(trunk, [1, 0, 0, 1])), "food", { by: "test" });
  await first.close();
  const blobs = join(folder, "blobs", "sha256");
  for (const name of await readdir(blobs)) {
    const { size } = await stat(join(blobs, name));
    const file = join(blobs, name);
    // Models are protobuf, all else is JSON.
    if ((await readFile(file))[0] !== 0x7b) await writeFile(file, Buffer.alloc(size, 7));
  }
  const running = await deploy(folder);
  const server = await startHttp(running, { port: 0, logger: pino({ level: "silent" }) });
  closing.push(() => server.close());
  const names = ["food", "trunk", "none", "..%2f..%2fetc", "%00", "a".repeat(300)];
  const bodies = [
    undefined,
    "{}",
    "not json",
    JSON.stringify({ inputs: [] }),
    JSON.stringify({ parameters: { "file:x": "AAAA" } }),
  ];
  let refused = 0;
  const ask = async (method: string, path: string, body?: string) => {
    const response = await fetch(server.address + path, { method, ...(body !== undefined && { body }) });
    const text = await response.text();
    expect(text, `${method} ${path}`).not.toContain(MARKER);
    expect(text).not.toMatch(/\/(?:src|dist|node_modules)\/|blobs\/sha256/);
    expect(JSON.stringify([...response.headers])).not.toContain(MARKER);
    if (response.status >= 400) refused++;
  };
  await ask("POST", "/v2/repository/index");
  await ask("GET", "/polyhead/v1/routes");
  for (const name of names) {
    for (const path of ["", "/ready", "/stats", "/config", "/versions/x"])
      await ask("GET", `/v2/models/${name}${path}`);
    await ask("GET", `/polyhead/v1/routes/${name}/history`);
    for (const body of bodies) {
      await ask("POST", `/v2/models/${name}/infer`, body);
      await ask("POST", `/v2/repository/models/${name}/load`, body);
      await ask("POST", `/v2/repository/models/${name}/unload`, body);
      await ask("POST", `/polyhead/v1/models?route=${name}`, body);
      await ask("POST", `/polyhead/v1/routes/${name}/rollback`, body);
    }
  }
  expect(refused).toBeGreaterThan(100);
});
