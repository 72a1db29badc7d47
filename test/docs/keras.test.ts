/** docs/keras.md: the article's second example, from Keras' files to answers, by the commands that the page shows. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-cpu";
import { type LayersModel, layers, sequential } from "@tensorflow/tfjs-layers";
import { afterAll, beforeAll, expect, it } from "vitest";
import { readNpz, writeNpz } from "../../src/tensor/npz.js";
import { float32 } from "../../src/tensor/tensor.js";
import { kerasHdf5 } from "../formats/keras-files.js";
import { predict, randomise } from "../formats/layers-oracle.js";
import { relativeError } from "../formats/tfjs-oracle.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
let folder: string;
beforeAll(async () => {
  await tf.setBackend("cpu");
  folder = await mkdtemp(join(tmpdir(), "keras-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** The commands of the page's section. */
async function commands(title: string): Promise<string[][]> {
  const page = await readFile(join(root, "docs/keras.md"), "utf8");
  const [, section = ""] = page.split(`## ${title}\n`);
  const [text = ""] = section.split("\n## ");
  return [...text.matchAll(/^polyhead (.+)$/gm)].map(([, line = ""]) => line.split(" "));
}

function polyhead(words: readonly string[]): Promise<{ status: number | null; stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [join(root, "bin/polyhead.js"), ...words],
      { cwd: folder },
      (_, __, stderr) => resolve({ status: child.exitCode, stderr }),
    );
  });
}

it("brings backbone, adapter and heads in and switches between the heads", async () => {
  const backbone = sequential({
    name: "backbone",
    layers: [
      layers.conv2d({
        inputShape: [16, 16, 3],
        filters: 8,
        kernelSize: 3,
        strides: 2,
        padding: "same",
        activation: "relu",
      }),
      layers.globalAveragePooling2d({ name: "features" }),
    ],
  });
  const adapter = sequential({
    name: "adapter",
    layers: [layers.dense({ inputShape: [8], units: 256, activation: "relu", name: "adapted" })],
  });
  const classification = sequential({
    name: "classification",
    layers: [layers.dense({ inputShape: [256], units: 10, activation: "softmax", name: "classes" })],
  });
  const detection = sequential({
    name: "detection",
    layers: [layers.dense({ inputShape: [256], units: 4, name: "boxes" })],
  });
  const files: Record<string, LayersModel> = {
    backbone,
    adapter,
    head_classification: classification,
    head_detection: detection,
  };
  for (const [name, made] of Object.entries(files)) {
    randomise(made, name.length);
    await writeFile(join(folder, `${name}.h5`), await kerasHdf5(made));
  }
  const image = float32(
    [2, 16, 16, 3],
    Float32Array.from({ length: 2 * 16 * 16 * 3 }, (_, at) => Math.sin(at)),
  );
  await writeFile(join(folder, "images.npz"), writeNpz({ images: image }));

  const lines = await commands("Backbone, adapter and heads");
  expect(lines.map(([verb]) => verb)).toEqual(["import", "import", "join", "import", "import", "run"]);
  for (const words of lines)
    expect({ words, ...(await polyhead(words)) }).toMatchObject({ words, status: 0 });

  const found = readNpz(await readFile(join(folder, "answers.npz")));
  const features = (await predict(backbone, [image]))[0] ?? image;
  const adapted = (await predict(adapter, [features]))[0] ?? image;
  for (const [name, head] of [
    ["classes", classification],
    ["boxes", detection],
  ] as const) {
    const [expected] = await predict(head, [adapted]);
    const got = [...found].find(([key]) => key.endsWith(name))?.[1];
    if (!got || !expected)
      throw new Error(`There is no answer ${name} among ${[...found.keys()].join(", ")}.`);
    expect(relativeError(got, expected)).toBeLessThanOrEqual(1e-4);
  }
}, 120_000);
