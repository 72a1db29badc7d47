/** The README's example, run as it stands, on small models in a folder of its own. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import sharp from "sharp";
import { afterAll, beforeAll, expect, it } from "vitest";
import { saveModel } from "../../src/files/disk.js";
import { withMetadata } from "../../src/onnx/metadata.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { splitModel } from "../../src/onnx/split.js";
import { weight } from "../../src/onnx/weight.js";
import { float32 } from "../../src/tensor/tensor.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
let folder: string;
let script: string;

/** A 3x3 convolution, its mean, and a linear layer with as many outputs as labels. */
function monolith(labels: readonly string[]): Model {
  const values = (count: number) =>
    Float32Array.from({ length: count }, (_, at) => Math.sin(at + labels.length));
  const kernel = Float32Array.from({ length: 4 * 27 }, (_, at) => Math.cos(at));
  const main = graph("small", {
    nodes: [
      node("Conv", ["image", "kernel"], ["features"], { strides: [4, 4] }),
      node("GlobalAveragePool", ["features"], ["pool"]),
      node("Flatten", ["pool"], ["flat"]),
      node("Gemm", ["flat", "weights"], ["scores"]),
    ],
    inputs: [valueInfo("image", "float32", ["batch", 3, 32, 32])],
    outputs: [valueInfo("scores", "float32", ["batch", labels.length])],
    weights: [
      weight("kernel", float32([4, 3, 3, 3], kernel)),
      weight("weights", float32([4, labels.length], values(4 * labels.length))),
    ],
  });
  return withMetadata(model(main), { labels, preprocessing: { height: 32, width: 32 } });
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "readme-"));
  script = join(root, ".cache", `readme-${process.pid}.mjs`);
  const animals = await splitModel(monolith(["cat", "dog", "horse"]), { at: ["features"] });
  const weather = await splitModel(monolith(["rain", "sun"]), { at: ["features"] });
  await saveModel(join(folder, "backbone.onnx"), animals.backbone);
  for (const [name, split] of Object.entries({ animals, weather }))
    for (const head of split.heads) await saveModel(join(folder, `${name}.onnx`), head.model);
  await sharp({ create: { width: 64, height: 48, channels: 3, background: "#4080c0" } })
    .jpeg()
    .toFile(join(folder, "photo.jpg"));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
  await rm(script, { force: true });
});

it("runs", async () => {
  const readme = await readFile(join(root, "README.md"), "utf8");
  const example = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
  expect(example).toContain('from "polyhead"');
  await mkdir(join(root, ".cache"), { recursive: true });
  await writeFile(script, example);
  const { stdout } = await promisify(execFile)(process.execPath, [script], { cwd: folder });
  expect(stdout).toMatch(/scores/);
  expect(stdout).toMatch(/cached: true/);
});
