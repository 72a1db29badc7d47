/** `polyhead doctor` on a sound machine, and where a folder cannot be written. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { polyhead } from "./command.js";

describe("polyhead doctor", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "doctor-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it("finds nothing that fails", async () => {
    const { status, stdout } = await polyhead("doctor", "--json", "--cache", join(folder, "cache"));
    expect(status).toBe(0);
    const { findings } = JSON.parse(stdout) as { findings: { check: string; state: string }[] };
    expect(findings.map(({ check }) => check)).toContain("ONNX Runtime");
    expect(findings.filter(({ state }) => state === "failure")).toEqual([]);
  });

  it("fails where the cache cannot be written, and says so", async () => {
    await writeFile(join(folder, "file"), "");
    const { status, stdout } = await polyhead("doctor", "--cache", join(folder, "file"));
    expect(status).toBe(1);
    expect(stdout).toMatch(/failure +cache folder: .*writable/);
  });
});
