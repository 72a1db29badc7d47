/** `polyhead doctor` on a sound machine, and where a folder cannot be written. */
import { mkdtemp, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Store } from "../../src/store/index.js";
import { addition } from "../store/samples.js";
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

  it("looks a store through and cleans it when asked to", async () => {
    const path = join(folder, "store");
    const store = await Store.open(path);
    await store.remove(await store.put(addition(1)));
    await utimes(
      join(path, "blobs", "sha256", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),
      0,
      0,
    );
    const { status, stdout } = await polyhead(
      "doctor",
      "--cache",
      join(folder, "cache"),
      "--store",
      path,
      "--gc",
    );
    expect(status).toBe(0);
    expect(stdout).toMatch(/ok +store: 0 models/);
    expect(stdout).toMatch(/ok +garbage: 1 files/);
  });

  it("fails for a damaged store, does not clean it, and says what is wrong", async () => {
    const path = join(folder, "damaged");
    await Store.open(path);
    await writeFile(join(path, "index.json"), "{");
    const { status, stdout } = await polyhead(
      "doctor",
      "--cache",
      join(folder, "cache"),
      "--store",
      path,
      "--gc",
    );
    expect(status).toBe(1);
    expect(stdout).toMatch(/failure +store: .*index\.json is not JSON/);
    expect(stdout).not.toContain("garbage");
  });

  it("makes no store where there is none, and cleans none that is not named", async () => {
    const { status, stdout } = await polyhead(
      "doctor",
      "--cache",
      join(folder, "cache"),
      "--store",
      join(folder, "none"),
    );
    expect([status, stdout]).toEqual([1, expect.stringMatching(/failure +store: There is no store/)]);
    expect((await polyhead("doctor", "--gc")).status).toBe(64);
  });
});
