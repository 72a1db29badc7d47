/** docs/teachable-machine.md: two published exports as they came, two routes of one server, one pass of their trunk. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fixturesDir, hasFixtures } from "../fixtures.js";

const COMMAND = fileURLToPath(new URL("../../bin/polyhead.js", import.meta.url));
const PAGE = fileURLToPath(new URL("../../docs/teachable-machine.md", import.meta.url));

/** What the server says of a model, and what it answers, as far as it is read here. */
interface About {
  readonly inputs: readonly [{ readonly name: string }];
}
interface Answer {
  readonly outputs: readonly [{ readonly shape: readonly number[]; readonly data: readonly number[] }];
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "exports-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Starts the command in the folder; `until` says when enough was printed. */
async function run(words: readonly string[], until?: (printed: string) => boolean) {
  const child = spawn(process.execPath, [COMMAND, ...words], {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [printed, errors] = ["", ""];
  child.stderr.on("data", (part) => {
    errors += part;
  });
  const enough = new Promise<void>((resolve) => {
    child.stdout.on("data", (part) => {
      printed += part;
      if (until?.(printed)) resolve();
    });
    child.once("close", () => resolve());
  });
  await enough;
  return { child, printed, errors: () => errors };
}

describe.skipIf(!hasFixtures)("the commands of the page", () => {
  it("serve both exports from one store", async () => {
    for (const name of ["banknotes", "road-signs"])
      await cp(join(fixturesDir, "teachable-machine", name), join(folder, name), { recursive: true });
    const page = await readFile(PAGE, "utf8");
    const adds = [...page.matchAll(/^polyhead (heads add .+)$/gm)].map(([, line = ""]) => line.split(" "));
    const [serve] = [...page.matchAll(/^polyhead (serve .+)$/gm)].map(([, line = ""]) => line.split(" "));
    expect(adds).toHaveLength(2);
    for (const words of adds) {
      const { child, errors } = await run(words);
      expect({ words, status: child.exitCode, errors: errors() }).toMatchObject({ words, errors: "" });
    }
    const ready = await run(
      [...(serve ?? []), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--json"],
      (text) => text.includes("\n"),
    );
    try {
      const { http } = JSON.parse(ready.printed);
      const values = Array.from({ length: 224 * 224 * 3 }, (_, at) => Math.round(Math.sin(at) * 100) / 100);
      const answers = await Promise.all(
        ["banknotes", "road-signs"].map(async (route) => {
          const about = (await (await fetch(`${http}/v2/models/${route}`)).json()) as About;
          const body = {
            inputs: [{ name: about.inputs[0].name, shape: [1, 224, 224, 3], datatype: "FP32", data: values }],
          };
          const answer = await fetch(`${http}/v2/models/${route}/infer`, {
            method: "POST",
            headers: { "content-type": "application/json" },
            body: JSON.stringify(body),
          });
          return (await answer.json()) as Answer;
        }),
      );
      expect(answers.map(({ outputs }) => outputs[0].shape)).toEqual([
        [1, 7],
        [1, 10],
      ]);
      for (const { outputs } of answers) {
        const total = outputs[0].data.reduce((sum, each) => sum + each, 0);
        expect(total).toBeCloseTo(1, 4);
      }
    } finally {
      ready.child.kill("SIGTERM");
      await once(ready.child, "close");
    }
  }, 180_000);
});
