/** The page on HTTP: its examples run as they stand, and its table of limits is true. */
import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DEFAULT_HTTP_TIMEOUTS } from "../../src/server/http/start-http.js";
import { DEFAULT_LIMITS } from "../../src/server/protocol/limits.js";
import type { InferenceRequest } from "../../src/server/service.js";
import { float32 } from "../../src/tensor/tensor.js";
import { type Running, start, stopAll } from "../server/http/client.js";
import { FakeService } from "../server/http/fake-service.js";

const page = readFileSync(new URL("../../docs/serve-http.md", import.meta.url), "utf8");
const commands = [...page.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, block = ""]) =>
  block.trim().split("\n"),
);

/** The routes of the page, computing with the first pixel. */
class Documented extends FakeService {
  constructor() {
    super();
    this.targets.clear();
    for (const name of ["food", "coco"]) {
      this.targets.set(name, { revisions: [{ revision: `${name}-1`, weight: 1 }], shadows: [] });
    }
  }

  override async infer(request: InferenceRequest) {
    const image = request.inputs["tower_0/images"];
    expect([image?.dtype, image?.shape]).toEqual(["float32", [1, 512, 512, 3]]);
    return super.infer({ ...request, inputs: { x: float32([1, 2], [0, 1]) } });
  }
}

let at: Running;
let folder: string;
beforeAll(async () => {
  at = await start({}, new Documented());
  folder = mkdtempSync(join(tmpdir(), "polyhead-docs-"));
  writeFileSync(join(folder, "photo.jpg"), Uint8Array.of(0xff, 0xd8, 0xff));
});
afterAll(async () => {
  await stopAll();
  rmSync(folder, { recursive: true });
});

describe("docs/serve-http.md", () => {
  const hasCurl = spawnSync("curl", ["--version"]).status === 0;
  it.skipIf(!hasCurl)("has examples that run (needs curl)", async () => {
    expect(commands.filter((line) => line.startsWith("curl")).length).toBeGreaterThan(10);
    const script = ["set -e", ...commands.map((line) => line.replace("http://127.0.0.1:8000", at.url))].join(
      "\n",
    );
    await promisify(execFile)("bash", ["-c", script], { cwd: folder });
    const answer = readFileSync(join(folder, "answer.bin"));
    // y of food: 0 and 2; count: 2; y of coco: 0 and 2.
    expect([...answer.subarray(-8)]).toEqual([0, 0, 0, 0, 0, 0, 0, 64]);
    expect(at.service.requests).toHaveLength(4);
  });

  it("tells the limits that hold", () => {
    const {
      bodyBytes,
      uploadBytes,
      controlBytes,
      headerBytes,
      tensorElements,
      imagePixels,
      entries,
      nameLength,
    } = DEFAULT_LIMITS;
    expect(page).toContain(`also inflated | ${bodyBytes / 2 ** 20} MiB |`);
    expect(page).toContain(`model file | ${uploadBytes / 2 ** 30} GiB |`);
    expect(page).toContain(`control request | ${controlBytes / 2 ** 20} MiB |`);
    expect(page).toContain(`all headers | ${headerBytes / 2 ** 10} KiB |`);
    expect(page).toContain(`all inputs | ${tensorElements.toLocaleString("en")} |`);
    expect(page).toContain(`an image | ${imagePixels / 1e6} million |`);
    expect(page).toContain(`parameters | ${entries} each |`);
    expect(page).toContain(`a name | ${nameLength} |`);
    const { headers, request, keepAlive } = DEFAULT_HTTP_TIMEOUTS;
    expect(page).toContain(`| ${headers / 1000} s, ${request / 1000} s, ${keepAlive / 1000} s |`);
  });
});
