/**
 * The server as a process, hurt in every way that `bench/chaos.js` and `bench/overload.js` know, shortly. They judge
 * every answer by ONNX Runtime's own and end with 1 when anything is left unexplained; their long runs are for people.
 */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const PATIENCE = 240_000;

function run(
  script: string,
  ...words: string[]
): Promise<{ status: number; stdout: string; stderr: string }> {
  const path = fileURLToPath(new URL(`../../bench/${script}`, import.meta.url));
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [path, ...words], { timeout: PATIENCE }, (_, stdout, stderr) =>
      resolve({ status: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

async function chaos(...words: string[]): Promise<Record<string, number>> {
  const { status, stdout, stderr } = await run("chaos.js", ...words);
  expect(stderr).toBe("");
  expect(status).toBe(0);
  return JSON.parse(stdout);
}

const NOTHING_WRONG = { failed: 0, "not live": 0, mixed: 0, wrong: 0, storeDamage: 0, complaints: 0 };

describe("a server under fire", () => {
  it(
    "explains every failed request, and never answers by what is not live",
    async () => {
      const report = await chaos("--seconds", "6");
      expect(report).toMatchObject(NOTHING_WRONG);
      for (const what of ["answers", "switches", "crashes", "kills", "aborts"])
        expect(report[what]).toBeGreaterThan(0);
    },
    PATIENCE,
  );

  it(
    "switches under load without a failed or mixed answer",
    async () => {
      const report = await chaos("--switches", "40");
      expect(report).toMatchObject({ ...NOTHING_WRONG, switches: 40 });
      expect(report.answers).toBeGreaterThan(40);
    },
    PATIENCE,
  );

  it(
    "has every acknowledged change after kill -9",
    async () => {
      const report = await chaos("--kills", "4", "--seed", "5");
      expect(report).toMatchObject({ ...NOTHING_WRONG, kills: 4 });
    },
    PATIENCE,
  );

  it(
    "answers or refuses at five times its capacity, within its memory, and is as before afterwards",
    async () => {
      const { status, stdout, stderr } = await run("overload.js", "--seconds", "5", "--untimed");
      expect(stderr).toBe("");
      expect(stdout).not.toContain("MISSED");
      expect(status).toBe(0);
    },
    PATIENCE,
  );
});
