/** `polyhead tune --way detect`: boxes in, a head and its average precision out. */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { writeShapes } from "../../src/data/shapes.js";
import { loadModel, saveModel } from "../../src/files/disk.js";
import { joinModels } from "../../src/onnx/join.js";
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import { revisionOf } from "../../src/onnx/revision.js";
import { splitModel } from "../../src/onnx/split.js";
import { Network } from "../../src/train/network.js";
import { polyhead } from "./command.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tune-detect-"));
  await writeShapes(join(folder, "shapes"), 20, { seed: 1, width: 48, height: 48, most: 2 });
  const net = new Network(1);
  const image = net.input("image", ["N", 3, 48, 48]);
  const fine = net.relu("fine", net.convolution("conv1", image, 8, { stride: 4 }));
  const whole = withMetadata(net.model("features", [fine]), {
    preprocessing: { height: 48, width: 48 },
  });
  await saveModel(join(folder, "backbone.onnx"), (await splitModel(whole, { at: ["fine"] })).backbone);
});
afterAll(() => rm(folder, { recursive: true }));

const tune = (...more: string[]) =>
  polyhead(
    ...["tune", join(folder, "backbone.onnx"), "--way", "detect"],
    ...["--data", join(folder, "shapes", "annotations.json"), "-o", join(folder, "head.onnx")],
    ...["--epochs", "2", "--hidden", "8", "--json", ...more],
  );

it("trains a head that fits its backbone, and says how good it is", async () => {
  const { status, stdout, stderr } = await tune();
  expect(stderr).toBe("");
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    ...{ way: "detect", path: join(folder, "head.onnx"), taps: ["fine"], stride: 4 },
    labels: ["circle", "square", "triangle"],
    quality: { perClass: [{}, {}, {}] },
    deviation: { ap: expect.any(Number), ap50: expect.any(Number) },
  });
  const head = await loadModel(join(folder, "head.onnx"));
  const backbone = await loadModel(join(folder, "backbone.onnx"));
  expect(readMetadata(head)).toMatchObject({
    ...{ role: "head", task: "detection" },
    provenance: {
      ...{ way: "detect", seed: 0, backboneRevision: await revisionOf(backbone) },
      data: { digest: JSON.parse(stdout).digest, images: 20 },
      versions: { polyhead: expect.any(String), "onnxruntime-node": expect.any(String) },
    },
    quality: { apDeviation: JSON.parse(stdout).deviation.ap },
  });
  await joinModels(backbone, head);
  expect(existsSync(join(folder, "head.checkpoint"))).toBe(false);
  const { page } = JSON.parse(stdout);
  expect(page).toBe(join(folder, "head.html"));
  const text = await readFile(page, "utf8");
  for (const part of ["average precision", "triangle", "Loss", "data:image/jpeg;base64,", "Settings"])
    expect(text).toContain(part);
  expect(text).not.toMatch(/NaN|undefined|https?:\/\/(?!www\.w3\.org)/);
});

it("refuses what does not go with boxes", async () => {
  for (const more of [
    ["--freeze", "fine"],
    ["--tap", "none-such"],
    ["--augment", "{"],
  ]) {
    const { status, stdout } = await tune(...more);
    expect(status, more.join(" ")).not.toBe(0);
    expect(JSON.parse(stdout), more.join(" ")).toHaveProperty("error.code");
  }
});
