/** The ways to train on pictures: what each leaves alone, what it hands over, and what it says of it. */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { stratifiedSplit } from "../../src/data/folds.js";
import { listFolder } from "../../src/data/source.js";
import { Engine } from "../../src/engine/index.js";
import { extract } from "../../src/onnx/extract.js";
import { GraphIndex } from "../../src/onnx/graph.js";
import { identify, inferTypes, joinModels, readMetadata, shareReport } from "../../src/onnx/index.js";
import type { Model } from "../../src/onnx/model.js";
import { revisionOf } from "../../src/onnx/revision.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { openModelOn } from "../../src/runtime/open-model.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { teachImages } from "../../src/teach/index.js";
import { bytesOf, float32, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { chosenDepth } from "../../src/tune/depths.js";
import { type TuneImagesOptions, tuneImages } from "../../src/tune/tune-images.js";
import { tuneReportPage } from "../../src/tune/tune-report.js";
import { randomBackbone } from "../teach/photos.js";
import { SHORT, writeStripes } from "./stripes.js";

let folder: string;
let photos: string;
let runtime: Runtime;
const backbone = randomBackbone();
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tune-images-"));
  photos = join(folder, "photos");
  await writeStripes(photos, 16);
  runtime = await Runtime.open(() => OrtWorker.start());
});
afterAll(async () => {
  await runtime.close();
  await rm(folder, { recursive: true });
});

async function tune(changes: Partial<TuneImagesOptions>) {
  return tuneImages({
    ...{ way: "head", tap: "c2", backbone, runtime, listing: await listFolder(photos) },
    ...SHORT,
    ...changes,
  });
}

/** The initializers of a model, by name. */
function weights({ graph }: Model) {
  return new Map(graph.initializer.map(({ name, rawData }) => [name, Buffer.from(rawData).toString("hex")]));
}

/** A picture as the backbone takes it: 48 x 48, from -1 to 1, colours apart. */
async function pixels(path: string): Promise<Tensor> {
  const { data } = await sharp(path).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const values = Array.from({ length: 3 * 48 * 48 }, (_, at) => {
    const [plane, pixel] = [Math.floor(at / 2304), at % 2304];
    return (data[pixel * 3 + plane] ?? 0) / 127.5 - 1;
  });
  return float32([1, 3, 48, 48], values);
}

/** Share of the pictures that a route of an engine names rightly, and the bytes of its answers. */
async function ask(models: readonly Model[], route: Model) {
  const engine = await Engine.open(await Runtime.open(() => OrtWorker.start()), { threads: 1 });
  try {
    for (const [at, each] of models.entries()) await engine.add(`model ${at}`, each);
    await engine.add("head", route);
    const { labels = [] } = readMetadata(route);
    let right = 0;
    const answers: string[] = [];
    const names = (await Promise.all(labels.map((label) => readdir(join(photos, label))))).map((list) =>
      list.sort(),
    );
    for (const [own, label] of labels.entries()) {
      for (const name of names[own] ?? []) {
        const image = await pixels(join(photos, label, name));
        const { routes } = await engine.run(["head"], { image }, { cache: false });
        const values = routes.head.outputs.probabilities ?? float32([1, 0], []);
        const numbers = [...toNumbers(values)];
        if (numbers.indexOf(Math.max(...numbers)) === own) right++;
        answers.push(Buffer.from(bytesOf(values)).toString("hex"));
      }
    }
    return { accuracy: right / answers.length, answers };
  } finally {
    await engine.close();
  }
}

describe("a head", () => {
  it.each(["linear", "mlp", "conv"] as const)(
    "of the shape %s is an ordinary head of the backbone",
    async (kind) => {
      const {
        head,
        backbone: none,
        report,
      } = await tune({
        head: { ...SHORT.head, shape: { kind, hidden: 8 }, decays: kind === "conv" ? [1e-3] : [1e-3, 1e-1] },
        judging: { by: "folds", folds: 3 },
      });
      expect(none).toBeUndefined();
      const metadata = readMetadata(head);
      expect(metadata).toMatchObject({
        role: "head",
        task: "classification",
        labels: ["across", "down", "plain"],
        taps: [{ name: "c2", identity: (await identify(backbone)).get("c2") }],
        provenance: {
          way: "head",
          seed: 0,
          data: { name: "stripes", digest: report.digest, images: { across: 16, down: 16, plain: 16 } },
          backboneRevision: await revisionOf(backbone),
          versions: { polyhead: "test" },
        },
        quality: { measure: "accuracy", accuracy: report.accuracy.mean, examples: 48 },
      });
      expect(metadata.quality?.accuracyDeviation).toBeGreaterThanOrEqual(0);
      expect(report.accuracy.folds).toHaveLength(3);
      expect(report.accuracy.mean).toBeGreaterThan(0.8);
      expect((await ask([backbone], head)).accuracy).toBeGreaterThan(0.8);
    },
  );

  it("is the same for the same seed", async () => {
    const [first, second] = [await tune({}), await tune({})];
    expect(await revisionOf(second.head)).toBe(await revisionOf(first.head));
    const other = await tune({ head: { ...SHORT.head, seed: 1 } });
    expect(await revisionOf(other.head)).not.toBe(await revisionOf(first.head));
  });
});

describe("a branch", () => {
  it("leaves the stem where it is told to, and other heads as they are, bit for bit", async () => {
    const { model: other } = await teachImages({
      backbone,
      data: photos,
      tap: "c2",
      open: openModelOn(runtime),
    });
    const before = await ask([backbone], other);
    const cache = join(folder, "features");
    const { head, report } = await tune({ way: "branch", freeze: "c1", cache });
    expect(report).toMatchObject({ from: "c1", tap: "c2" });
    expect(report.parameters.toSorted()).toEqual(["head/output.bias", "head/output.weight", "w2"]);
    const [tap] = readMetadata(head).taps ?? [];
    expect(tap).toMatchObject({ name: "c1", identity: (await identify(backbone)).get("c1") });
    // What is shared with the backbone is the first layer and nothing else; found by identity.
    const index = new GraphIndex(backbone.graph);
    const toC2 = extract(backbone, index, ["image"], ["c2"], inferTypes(backbone));
    const { segments } = await shareReport([
      { name: "stem", model: toC2 },
      { name: "branch", model: await joinModels(backbone, head) },
    ]);
    const both = segments.filter(({ usedBy }) => usedBy.length === 2);
    expect(both).toHaveLength(1);
    expect(both[0]?.nodes).toBe(2);
    expect(report.stem?.flops).toBe(both[0]?.flops);
    // The new second layer is another one.
    const w2 = (of: Model) =>
      Buffer.from(of.graph.initializer.find(({ name }) => name === "w2")?.rawData ?? []);
    expect(w2(head).equals(w2(backbone))).toBe(false);

    const beside = await ask([backbone, head], other);
    expect(beside.answers).toEqual(before.answers);
    expect((await ask([backbone, other], head)).accuracy).toBeGreaterThan(0.8);
    // The stem's values are on disk, one file a picture, and the next training gives the same from there.
    const [values] = (await readdir(cache)).toSorted();
    expect(values).toBeDefined();
    const again = await tune({ way: "branch", freeze: "c1", cache });
    expect(await revisionOf(again.head)).toBe(await revisionOf(head));
  });

  it.each([
    ["held back", { patience: 2 }],
    ["set aside", {}],
  ])("is the head alone, bit for bit, where more training does not help; by examples %s", async (_, more) => {
    const alone = await tune({});
    // At a rate of nothing it answers as the head does.
    const tuning = { ...SHORT.tuning, rate: 1e-30, epochs: 2, ...more };
    const { head, report } = await tune({ way: "branch", freeze: "c1", tuning });
    const { accuracy } = alone.report.quality;
    if (report.choice?.by === "held-back") expect(report.choice.head).toBe(accuracy);
    expect(report.choice).toMatchObject({ kept: "head", trained: report.choice?.head });
    expect(report).toMatchObject({ from: "c2", epoch: 0, cost: { bytes: alone.report.cost.bytes } });
    expect(report.quality).toEqual(alone.report.quality);
    expect(readMetadata(head).taps).toEqual(readMetadata(alone.head).taps);
    expect(weights(head)).toEqual(weights(alone.head));
    expect(report.notes.join(" ")).toContain("The head alone is kept");
  });

  it("is chosen without a look at the examples that judge it", async () => {
    const listing = await listFolder(photos);
    const targets = listing.images.map(({ target }) => target);
    const { validation } = stratifiedSplit(targets, 0.25, 0);
    const others = join(folder, "others");
    await writeStripes(others, 16, 2);
    const images = listing.images.map((image, at) =>
      validation.includes(at) ? { ...image, path: join(others, image.id) } : image,
    );
    const [one, other] = [
      await tune({ way: "full" }),
      await tune({ way: "full", listing: { ...listing, images } }),
    ];
    expect(other.report.digest).not.toBe(one.report.digest);
    expect(other.report.choice).toEqual(one.report.choice);
    expect(weights(other.head)).toEqual(weights(one.head));
    expect(other.report.quality.logLoss).not.toBe(one.report.quality.logLoss);
  });

  it("is measured at several depths, and taken by the rule", async () => {
    const { report, mistakes } = await tune({ way: "branch", freeze: { depths: 2 } });
    const { depths = [] } = report;
    expect(depths.map(({ from }) => from)).toEqual(["c2", "c1"]);
    expect(depths[1]?.flops).toBeGreaterThan(depths[0]?.flops ?? 0);
    expect(depths[1]?.bytes).toBe((depths[0]?.bytes ?? 0) + 4 * 32 * 16 * 9);
    expect(report.from).toBe(chosenDepth([...depths] as [(typeof depths)[0]])?.from);
    const page = await tuneReportPage({ report, mistakes }, { model: "m", data: "d" }, {});
    expect(page).toContain("Accuracy against cost per request");
    expect(page).toContain("Accuracy against memory per head");
    expect(page).not.toMatch(/https?:\/\/(?!www\.w3\.org)/);
  });

  it("is refused where there is nothing to train, or data goes another way", async () => {
    await expect(tune({ way: "branch", freeze: "c2" })).rejects.toMatchObject({ code: "CUT_INVALID" });
    await expect(tune({ way: "branch", freeze: "nothing" })).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});

describe("full training", () => {
  it("makes another backbone, and says what that does to other heads", async () => {
    const { model: other } = await teachImages({
      backbone,
      data: photos,
      tap: "c2",
      open: openModelOn(runtime),
    });
    const tuned = await tune({ way: "full", others: [{ name: "other", head: other, data: photos }] });
    const { head, backbone: made, report } = tuned;
    if (!made) throw new Error("there is no backbone");
    expect(report.parameters).toEqual(expect.arrayContaining(["w1", "w2"]));
    expect(readMetadata(made)).toMatchObject({ role: "backbone", taps: [{ name: "c1" }, { name: "c2" }] });
    const [old, now] = [await identify(backbone), await identify(made)];
    for (const tap of ["c1", "c2"]) expect(now.get(tap)).not.toBe(old.get(tap));
    expect(readMetadata(head).taps).toMatchObject([{ name: "c2", identity: now.get("c2") }]);
    expect((await ask([made], head)).accuracy).toBeGreaterThan(0.8);
    await expect(ask([backbone], head)).rejects.toMatchObject({ code: "HEAD_MISMATCH" });
    await expect(ask([made], other)).rejects.toMatchObject({ code: "HEAD_MISMATCH" });
    const [loss] = report.others ?? [];
    const right = (await ask([backbone], other)).accuracy;
    expect(loss).toMatchObject({ name: "other", images: 48, nativeAccuracy: { value: right } });
    expect(loss?.kept).toBeCloseTo((loss?.accuracy?.value ?? 0) / right, 10);
    expect(report.notes.join(" ")).toMatch(/keep both backbones.*adapt/);
  });

  it("stops early, with random views, at the epoch that was best", async () => {
    const augmentation = { ...NO_VIEW, mirror: 0.5 };
    const { report } = await tune({
      way: "full",
      judging: { by: "held-back", share: 0.5 },
      tuning: { ...SHORT.tuning, epochs: 30, patience: 4, augmentation },
    });
    expect(report.qualities.length).toBeLessThan(30);
    expect(report.quality.accuracy).toBe(Math.max(...report.qualities));
    expect(report.qualities.indexOf(Math.max(...report.qualities)) + 1).toBe(report.epoch);
    expect(report.choice).toMatchObject({ kept: "trained", trained: report.quality.accuracy });
    expect(report.choice?.head).toBeLessThan(report.quality.accuracy);
    expect(report.how).toContain("which also said when to stop");
  });

  it("leaves the backbone as it is where it does not help, and says so", async () => {
    const tuning = { ...SHORT.tuning, rate: 1e-30, epochs: 1 };
    const { head, backbone: made, report } = await tune({ way: "full", tuning });
    if (!made) throw new Error("there is no backbone");
    expect(report).toMatchObject({ choice: { kept: "head" }, from: "c2", stem: { nodes: 4 } });
    const [old, now] = [await identify(backbone), await identify(made)];
    for (const tap of ["c1", "c2"]) expect(now.get(tap)).toBe(old.get(tap));
    expect((await ask([made], head)).answers).toEqual((await ask([backbone], head)).answers);
    expect(report.notes.join(" ")).toMatch(/head and all old heads fit both/);
  });
});

const NO_VIEW = {
  ...{ mirror: 0, upsideDown: 0, area: [1, 1], aspect: 1 },
  ...{ brightness: 0, contrast: 0, saturation: 0, hue: 0 },
};

describe("the rule for the depth", () => {
  const depth = (from: string, accuracy: number, flops: number) => ({
    ...{ from, accuracy, flops, error: 0.02, bytes: 1, milliseconds: 1, seconds: 1 },
  });
  it.each([
    ["the cheapest when all are alike", [depth("a", 0.9, 1), depth("b", 0.9, 2)], "a"],
    [
      "the cheapest within one error of the best",
      [depth("a", 0.8, 1), depth("b", 0.89, 2), depth("c", 0.9, 4)],
      "b",
    ],
    ["the best where none is near it", [depth("a", 0.8, 1), depth("b", 0.85, 2), depth("c", 0.9, 4)], "c"],
    ["not the deepest because it is deep", [depth("a", 0.9, 1), depth("b", 0.7, 2)], "a"],
  ] as const)("takes %s", (_, depths, expected) => {
    expect(chosenDepth(depths).from).toBe(expected);
  });
});

describe("data that cannot be learned from", () => {
  it("is refused before anything is written", async () => {
    const poor = join(folder, "poor");
    await writeStripes(poor, 1);
    await expect(tune({ listing: await listFolder(poor) })).rejects.toMatchObject({ code: "DATA_MALFORMED" });
    const listing = await listFolder(photos);
    const broken = listing.images.map((image) =>
      image.id.startsWith("plain") ? { ...image, path: `${image.path}.no` } : image,
    );
    await expect(tune({ listing: { ...listing, images: broken } })).rejects.toMatchObject({
      code: "DATA_MALFORMED",
      message: expect.stringContaining("plain"),
    });
    const one = listing.images.map((image, at) =>
      at === 5 ? { ...image, path: `${image.path}.no` } : image,
    );
    const { report } = await tune({ listing: { ...listing, images: one } });
    expect(report.problems).toMatchObject([{ id: listing.images[5]?.id }]);
    expect(report.examples).toBe(47);
    await expect(tune({ listing: { ...listing, images: one }, mostProblems: 0 })).rejects.toMatchObject({
      code: "DATA_MALFORMED",
    });
  });

  it("ends a training that diverges", async () => {
    const tuning = { ...SHORT.tuning, optimizer: { kind: "sgd" as const }, rate: 1e30 };
    await expect(tune({ way: "full", tuning })).rejects.toMatchObject({ code: "DIVERGED" });
    expect(await readFile(join(photos, "plain", "0.png"))).toBeDefined();
  });
});
