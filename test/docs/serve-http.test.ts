/** The page on HTTP: its examples run as they stand, and its table of limits is true. */
import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DEFAULT_HTTP_TIMEOUTS } from "../../src/server/http/start-http.js";
import { DEFAULT_LIMITS } from "../../src/server/protocol/limits.js";
import { type Running, start, stopAll } from "../server/http/client.js";
import { ObservedService } from "../server/observed-service.js";
import { colour, middle } from "../server/protocol-models.js";

const page = readFileSync(new URL("../../docs/serve-http.md", import.meta.url), "utf8");
const commands = [...page.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, block = ""]) =>
  block.trim().split("\n"),
);

/** The routes of the page take images as the demo's do: a classifier by colour, and a detector of one box. */
const served = () => {
  const input = { name: "tower_0/images", side: 512, layout: "nhwc" } as const;
  return ObservedService.of({ food: colour(input), coco: middle(input) });
};

let at: Running;
let folder: string;
beforeAll(async () => {
  at = await start({}, await served());
  folder = mkdtempSync(join(tmpdir(), "polyhead-docs-"));
  const photo = sharp({ create: { width: 60, height: 40, channels: 3, background: "lime" } });
  writeFileSync(join(folder, "photo.jpg"), await photo.jpeg().toBuffer());
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
    // The box of coco ends with its score and its class.
    expect([answer.readFloatLE(answer.length - 8), answer.readFloatLE(answer.length - 4)]).toEqual([0.5, 0]);
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
