/**
 * Hostile files through `inspect`, `import` and `split`: each is refused with a typed error or is harmless; nothing
 * crashes, hangs, fills the memory or leaves a part of its outcome behind. `scripts/corpus.js` measures each case.
 */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { allCases, layOut } from "./cases.js";

const JUDGE = fileURLToPath(new URL("./judge.js", import.meta.url));
/** A process that has not answered for all of its cases by then hangs; most cases take a hundredth of a second. */
const HANGS_AFTER_MILLISECONDS = 480_000;
const LIMIT_MEBIBYTES = 1024;
const BATCH = 10;

interface Verdict {
  readonly folder: string;
  /** How each verb ended: `ok`, the code of an error, or a fault. */
  readonly ends: Readonly<Record<string, string>>;
  readonly mebibytes: number;
}

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "polyhead-corpus-"));
});
afterAll(() => rm(root, { recursive: true }));

/** The verdicts up to where the judge ended; a hang or a crash ends it early. */
function judge(folders: readonly string[]): Promise<{ verdicts: Verdict[]; stderr: string }> {
  return new Promise((resolve) => {
    const options = { timeout: HANGS_AFTER_MILLISECONDS, maxBuffer: 2 ** 24 };
    execFile(
      process.execPath,
      ["--max-old-space-size=1024", JUDGE, ...folders],
      options,
      (_, stdout, stderr) => {
        const lines = stdout.split("\n").filter((line) => line !== "");
        resolve({ verdicts: lines.map((line): Verdict => JSON.parse(line)), stderr });
      },
    );
  });
}

const cases = allCases();
const batches = Array.from({ length: Math.ceil(cases.length / BATCH) }, (_, at) =>
  cases.slice(at * BATCH, (at + 1) * BATCH),
);

describe("a corpus of hostile models", () => {
  it("has more than 200 of different names", () => {
    expect(new Set(cases.map(({ name }) => name)).size).toBe(cases.length);
    expect(cases.length).toBeGreaterThan(200);
  });

  it.each(batches.map((batch, at) => ({ batch, at, first: batch[0]?.name, last: batch.at(-1)?.name })))(
    "is survived: from $first to $last",
    async ({ batch, at }) => {
      const folders = batch.map((_, place) => join(root, `${at}`, `${place}`));
      for (const [place, each] of batch.entries()) await layOut(folders[place] ?? "", each);
      const { verdicts, stderr } = await judge(folders);
      const found = batch.map((each, place) => ({ name: each.name, ...verdicts[place] }));
      const faults = found.filter(
        ({ ends = { inspect: `fault: no answer; ${stderr.slice(0, 300)}` }, mebibytes = 0 }) =>
          Object.values(ends).some((end) => end.startsWith("fault")) || mebibytes > LIMIT_MEBIBYTES,
      );
      expect(faults).toEqual([]);
      const accepted = found.filter(
        ({ ends = {} }, place) => !batch[place]?.harmless && Object.values(ends).every((end) => end === "ok"),
      );
      expect(accepted.map(({ name }) => name)).toEqual([]);
    },
    2 * HANGS_AFTER_MILLISECONDS,
  );
});
