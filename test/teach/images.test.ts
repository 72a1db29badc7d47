/** From photos to a head: folders, features, cache. */
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { imageFolder } from "../../src/data/index.js";
import { identify, readMetadata, withMetadata } from "../../src/onnx/index.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { openModelOn } from "../../src/runtime/open-model.js";
import { Runtime } from "../../src/runtime/runtime.js";
import {
  computeFeatures,
  defaultCacheFolder,
  logitsOf,
  matrixOf,
  type TeachImagesOptions,
  tapSource,
  teachImages,
} from "../../src/teach/index.js";
import { toNumbers } from "../../src/tensor/index.js";
import { decodeImage, imageTensor, parsePreprocessing, preprocessingFor } from "../../src/vision/index.js";
import { foodPhoto } from "../vision/pictures.js";
import { foodFolder, randomBackbone } from "./photos.js";

const GROUPS = { B: "pulses", C: "leafy vegetables", E: "fruits" };
const EACH = 14;
const backbone = randomBackbone();
const preprocessing = parsePreprocessing(readMetadata(backbone).preprocessing);

let folder: string;
let runtime: Runtime;
let base: TeachImagesOptions;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  await foodFolder(join(folder, "food"), GROUPS, EACH);
  runtime = await Runtime.open(() => OrtWorker.start());
  base = { backbone, tap: "c2", data: join(folder, "food"), open: openModelOn(runtime) };
});
afterAll(async () => {
  await runtime.close();
  await rm(folder, { recursive: true });
});

/** A folder of its own with a copy of the photos. */
async function foodCopy(name: string): Promise<string> {
  const copy = join(folder, name);
  await foodFolder(copy, GROUPS, 4);
  return copy;
}

describe("a folder of folders", () => {
  it("has its folders' names as labels and every image once", async () => {
    const { labels, files } = await imageFolder(base.data);
    expect(labels).toEqual(["fruits", "leafy vegetables", "pulses"]);
    expect(files).toHaveLength(3 * EACH);
    expect(files[0]).toEqual({ path: join(base.data, "fruits", "E001.jpeg"), classIndex: 0 });
  });

  it("passes over hidden and other files and looks into folders of a class", async () => {
    const data = await foodCopy("mixed");
    await writeFile(join(data, "README.txt"), "photos");
    await mkdir(join(data, ".git"));
    await writeFile(join(data, "fruits", "notes.txt"), "ripe");
    await mkdir(join(data, "fruits", "exotic"));
    await copyFile(foodPhoto("E020"), join(data, "fruits", "exotic", "E020.JPEG"));
    const { labels, files } = await imageFolder(data);
    expect(labels).toHaveLength(3);
    expect(files.filter(({ classIndex }) => classIndex === 0)).toHaveLength(5);
  });

  it("is refused with one class, an empty class, or when it is not there", async () => {
    await mkdir(join(folder, "one", "only"), { recursive: true });
    await expect(imageFolder(join(folder, "one"))).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await mkdir(join(folder, "one", "other"));
    await expect(imageFolder(join(folder, "one"))).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      details: { classes: ["only", "other"] },
    });
    await expect(imageFolder(join(folder, "nowhere"))).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
  });
});

describe("a head taught on photos", () => {
  it("answers on the tap of the backbone what the report says it learned", async () => {
    const { model, classifier, report } = await teachImages(base);
    expect(report).toMatchObject({
      examples: 3 * EACH,
      features: 32,
      folds: 5,
      unreadable: [],
      notes: [],
      cached: 0,
    });
    expect(report.accuracy.mean).toBeGreaterThan(report.baseline + 0.1);
    const whole = await base.open(backbone, "all");
    const head = await base.open(model, "all");
    for (const name of ["B003", "C007", "E014", "E030"]) {
      const { tensor } = await imageTensor(await decodeImage(foodPhoto(name)), preprocessing);
      const tap = (await whole.run(new Map([["image", tensor]]))).get("c2");
      if (!tap) throw new Error("no tap");
      const answer = await head.run(new Map([["c2", tap]]));
      const means = Array.from({ length: 32 }, (_, channel) =>
        toNumbers(tap)
          .slice(channel * 36, channel * 36 + 36)
          .reduce((sum, value) => sum + value / 36, 0),
      );
      const logits = answer.get("logits");
      const expected = logitsOf(classifier, matrixOf([means])).data;
      expect(logits?.shape).toEqual([1, 3]);
      expected.forEach((value, each) => {
        expect(logits?.data[each]).toBeCloseTo(value, 3);
      });
    }
    await whole.close();
    await head.close();
    const metadata = readMetadata(model);
    const identity = (await identify(backbone)).get("c2");
    expect(metadata.taps).toEqual([{ name: "c2", dtype: "float32", shape: ["batch", 32, 6, 6], identity }]);
    expect(metadata.labels).toEqual(["fruits", "leafy vegetables", "pulses"]);
    expect(parsePreprocessing(metadata.preprocessing)).toEqual(preprocessing);
    expect(metadata.provenance).toMatchObject({ data: "food", images: { fruits: EACH } });
  });

  it("leaves out copies and what cannot be read, and says so", async () => {
    const data = await foodCopy("flawed");
    await copyFile(foodPhoto("E001"), join(data, "fruits", "again.jpeg"));
    await copyFile(foodPhoto("B001"), join(data, "fruits", "bean.jpeg"));
    await writeFile(join(data, "pulses", "broken.jpg"), "no picture");
    await truncate(join(data, "pulses", "B004.jpeg"), 3000);
    const { report } = await teachImages({ ...base, data });
    expect(report.examples).toBe(12);
    expect(report.unreadable.map(({ path }) => path)).toEqual(["pulses/B004.jpeg", "pulses/broken.jpg"]);
    expect(report.notes).toEqual([
      expect.stringMatching(/^2 images could not be read/),
      expect.stringMatching(/^1 images are copies .*fruits\/again\.jpeg|^1 images are copies .*fruits\/E001/),
      expect.stringMatching(
        /^1 images stand in more than one class: pulses\/B001\.jpeg = fruits\/bean\.jpeg/,
      ),
      expect.stringMatching(/^Some folds have no example of: leafy vegetables, pulses/),
    ]);
  });

  it("is refused when no image of a class can be read", async () => {
    const data = await foodCopy("unreadable");
    for (const name of await readdir(join(data, "pulses"))) await truncate(join(data, "pulses", name), 0);
    await expect(teachImages({ ...base, data })).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      details: { classes: ["pulses"] },
    });
  });

  it.each([
    ["a tap that is not there", { tap: "c9" }, "NOT_FOUND", '"c1", "c2"'],
    ["no tap where there are two", { tap: undefined }, "INVALID_ARGUMENT", "--tap"],
    ["an unknown recipe", { preprocess: "magic" }, "INVALID_ARGUMENT", "imagenet"],
    ["a broken record", { preprocess: "{range" }, "INVALID_ARGUMENT", "not JSON"],
    [
      "another size than the backbone takes",
      { preprocess: '{"height":64}' },
      "INPUT_MISMATCH",
      "[1, 3, 64, 48]",
    ],
  ] as const)("is refused for %s", async (_, change, code, message) => {
    await expect(teachImages({ ...base, ...change })).rejects.toMatchObject({
      code,
      message: expect.stringContaining(message),
    });
  });

  it("wants to know the preprocessing of a backbone that does not say it", async () => {
    const silent = withMetadata(backbone, { preprocessing: undefined });
    await expect(teachImages({ ...base, backbone: silent })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringContaining("--preprocess"),
    });
    expect(preprocessingFor(silent, "signed")).toEqual(preprocessing);
    expect(preprocessingFor(silent, "imagenet")).toMatchObject({ height: 48, width: 48, crop: 0.875 });
  });
});

describe("cached features", () => {
  it("are read again, and only for the same tap, preprocessing and image", async () => {
    const cache = join(folder, "cache");
    const first = await teachImages({ ...base, cache });
    const second = await teachImages({ ...base, cache });
    expect([first.report.cached, second.report.cached]).toEqual([0, 3 * EACH]);
    expect(second.report.accuracy).toEqual(first.report.accuracy);
    expect(second.classifier).toEqual(first.classifier);
    for (const change of [{ tap: "c1" }, { preprocess: "unit" }, { backbone: randomBackbone(8) }]) {
      expect((await teachImages({ ...base, cache, ...change })).report.cached).toBe(0);
    }
  });

  it("are computed again when a file is broken", async () => {
    const cache = join(folder, "broken-cache");
    const paths = ["B001", "C001", "E001"].map(foodPhoto);
    const source = await tapSource(backbone, "c2");
    const options = { source, preprocessing, paths, open: base.open, cache };
    const features = await computeFeatures(options);
    const [key = ""] = await readdir(cache);
    const files = (await readdir(join(cache, key))).map((name) => join(cache, key, name));
    expect(files).toHaveLength(3);
    const bytes = await readFile(files[0] ?? "");
    const values = bytes.indexOf("values.npy");
    bytes[values + 200] = (bytes[values + 200] ?? 0) ^ 1;
    await writeFile(files[0] ?? "", bytes);
    await truncate(files[1] ?? "", 50);
    const again = await computeFeatures(options);
    const plain = (list: typeof again) => list.map((each) => ({ ...each, wasCached: false }));
    expect(plain(again)).toEqual(plain(features));
    expect(again.filter((each) => "wasCached" in each && each.wasCached)).toHaveLength(1);
    const third = await computeFeatures(options);
    expect(third.every((each) => "wasCached" in each && each.wasCached)).toBe(true);
  });

  it("that cannot be written are a typed error", async () => {
    await writeFile(join(folder, "file"), "");
    await expect(teachImages({ ...base, cache: join(folder, "file") })).rejects.toMatchObject({
      code: "FILE_NOT_WRITTEN",
      message: expect.stringContaining("--cache none"),
    });
  });

  it("lie where the system keeps caches", () => {
    expect(defaultCacheFolder({ XDG_CACHE_HOME: "/x" })).toBe(join("/x", "polyhead", "features"));
    expect(defaultCacheFolder({})).toMatch(/\.cache.polyhead.features$/);
  });
});
