/** The verb run as a process: outputs against PyTorch's, heads beside a backbone, images, and clear refusals. */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { saveModel } from "../../src/files/disk.js";
import { type Metadata, withMetadata } from "../../src/onnx/metadata.js";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { readNpz, writeNpz } from "../../src/tensor/npz.js";
import { float32, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { architecture } from "../onnx/architectures.js";
import { personPhoto } from "../vision/pictures.js";
import { polyhead } from "./command.js";

const fixture = (...parts: string[]) => join(fixturesDir, ...parts);
const centernet = fileURLToPath(
  new URL("../../node_modules/@vladmandic/human/models/centernet.json", import.meta.url),
);

let folder: string;
const at = (...parts: string[]) => join(folder, ...parts);
const npz = async (path: string) => readNpz(await readFile(path));

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  await saveModel(at("double.onnx"), times("double", ["x", "x"], [1, 3]));
  await saveModel(at("excite.onnx"), architecture("squeeze and excite", "N"));
  await writeFile(at("rows.npz"), writeNpz({ x: float32([2, 3], [1, 2, 3, 4, 5, 6]) }));
});
afterAll(() => rm(folder, { recursive: true }));

/** A model with input `x` of the given shape and output `y`, the sum of two of its values. */
function times(name: string, [a, b]: [string, string], shape: (number | string)[]) {
  return model(
    graph(name, {
      nodes: [node("Add", [a, b], ["y"])],
      inputs: [valueInfo("x", "float32", shape)],
      outputs: [valueInfo("y", "float32", shape)],
      weights: [],
    }),
  );
}

function expectNear(got: Tensor | undefined, expected: Tensor | undefined) {
  if (!got || !expected) throw new Error("an array is missing");
  expect(got.shape).toEqual(expected.shape);
  const [ours, theirs] = [toNumbers(got), toNumbers(expected)];
  const largest = theirs.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const apart = ours.reduce(
    (most, value, place) => Math.max(most, Math.abs(value - (theirs[place] ?? 0))),
    0,
  );
  expect(apart).toBeLessThanOrEqual(1e-4 * largest);
}

describe.skipIf(!hasFixtures)("polyhead run on PyTorch's models", () => {
  it.each(["resnet_basic", "mobilenet_v2", "vit"])("%s gives PyTorch's logits", async (name) => {
    const golden = fixture("zoo", `${name}.npz`);
    const given = ["run", fixture("zoo", `${name}.onnx`), "--npz", golden, "--out", at("zoo.npz"), "--json"];
    const run = await polyhead(...given);
    expect({ status: run.status, stderr: run.stderr }).toEqual({
      status: 0,
      stderr: "polyhead: no model takes logits, head_input; ignored\n",
    });
    expect(JSON.parse(run.stdout)).toMatchObject({
      path: at("zoo.npz"),
      outputs: [{ name: "logits", dtype: "float32", shape: [2, 10] }],
      ignored: ["logits", "head_input"],
    });
    const got = await npz(at("zoo.npz"));
    expect([...got.keys()]).toEqual(["logits"]);
    expectNear(got.get("logits"), (await npz(golden)).get("logits"));
  });

  it("runs several monoliths at once, outputs of one name under their routes", async () => {
    const names = ["animals", "flowers", "weather", "defects", "stranger"];
    const goldens = await npz(fixture("family", "goldens.npz"));
    const files = names.map((name) => fixture("family", `${name}.onnx`));
    const run = await polyhead(
      "run",
      ...files,
      "--npz",
      fixture("family", "goldens.npz"),
      "--out",
      at("f.npz"),
    );
    expect(run.status).toBe(0);
    const got = await npz(at("f.npz"));
    expect([...got.keys()]).toEqual(names.map((name) => `${name}/logits`));
    for (const name of names) expectNear(got.get(`${name}/logits`), goldens.get(name));
  });
});

describe("polyhead run on arrays", () => {
  it("runs a backbone with its head as the whole model, and a backbone alone for its taps", async () => {
    await polyhead("split", at("excite.onnx"), "--at", "features", "-o", at("parts"));
    const shape = [2, 4, 8, 8];
    const input = float32(
      shape,
      Array.from({ length: 512 }, (_, place) => Math.sin(place)),
    );
    await writeFile(at("any.npz"), writeNpz({ whatever: input }));
    const [backbone, head] = [at("parts", "backbone.onnx"), at("parts", "head.onnx")];
    for (const [out, ...files] of [
      [at("whole.npz"), at("excite.onnx")],
      [at("split.npz"), head, backbone],
      [at("taps.npz"), backbone],
    ] as const) {
      const run = await polyhead("run", ...files, "--npz", at("any.npz"), "--out", out);
      expect({ files, status: run.status, stderr: run.stderr }).toEqual({ files, status: 0, stderr: "" });
    }
    const [whole, parts, taps] = [
      await npz(at("whole.npz")),
      await npz(at("split.npz")),
      await npz(at("taps.npz")),
    ];
    expect([...parts.keys()]).toEqual(["logits"]);
    expectNear(parts.get("logits"), whole.get("logits"));
    expect([...taps.keys()]).toEqual(["features"]);
    expect(taps.get("features")?.shape).toEqual([2, 6]);
  });

  it("runs a model that is fixed at one row, row by row", async () => {
    const run = await polyhead("run", at("double.onnx"), "--npz", at("rows.npz"), "--out", at("y.npz"));
    expect(run.status).toBe(0);
    const y = (await npz(at("y.npz"))).get("y");
    expect([y?.shape, [...(y?.data ?? [])]]).toEqual([
      [2, 3],
      [2, 4, 6, 8, 10, 12],
    ]);
  });

  it("binds a head of unknown origin to a tap by name", async () => {
    await saveModel(
      at("base.onnx"),
      withMetadata(times("base", ["x", "x"], ["N", 3]), { role: "backbone", taps: [] }),
    );
    const head = model(
      graph("head", {
        nodes: [node("Neg", ["f"], ["z"])],
        inputs: [valueInfo("f", "float32", ["N", 3])],
        outputs: [valueInfo("z", "float32", ["N", 3])],
        weights: [],
      }),
    );
    await saveModel(at("neg.onnx"), head);
    const files = ["run", at("base.onnx"), at("neg.onnx"), "--npz", at("rows.npz"), "--out", at("z.npz")];
    expect((await polyhead(...files, "--bind", "f=y")).status).toBe(0);
    const z = (await npz(at("z.npz"))).get("z");
    expect([...(z?.data ?? [])]).toEqual([-2, -4, -6, -8, -10, -12]);
    expect((await polyhead(...files, "--bind", "g=y")).status).toBe(64);
    expect((await polyhead(...files, "--bind", "f=nowhere")).status).toBe(66);
  });

  it("fails where it cannot write, and leaves nothing", async () => {
    await writeFile(at("plain"), "a file");
    const inFile = at("plain", "out.npz");
    for (const out of [inFile, folder, ...(process.platform === "linux" ? ["/proc/no/out.npz"] : [])]) {
      const given = ["run", at("double.onnx"), "--npz", at("rows.npz"), "--out", out, "--json"];
      const run = await polyhead(...given);
      expect({ out, status: run.status }).toEqual({ out, status: 73 });
      expect(JSON.parse(run.stdout).error).toMatchObject({
        code: "FILE_NOT_WRITTEN",
        details: { path: out },
      });
    }
    const made = await polyhead("split", at("excite.onnx"), "-o", inFile);
    expect(made.status).toBe(73);
    expect((await readdir(folder)).filter((name) => name.endsWith(".part"))).toEqual([]);
  });

  it("refuses what does not fit, and writes nothing", async () => {
    await writeFile(at("wide.npz"), writeNpz({ x: float32([1, 4], [1, 2, 3, 4]) }));
    await writeFile(at("names.npz"), writeNpz({ a: float32([1], [1]), b: float32([1], [1]) }));
    await writeFile(at("text.npz"), "no archive");
    await writeFile(
      at("noise.onnx"),
      Uint8Array.from({ length: 300 }, (_, place) => (place * 89 + 255) % 256),
    );
    await cp(at("double.onnx"), at("copy", "double.onnx"));
    const double = at("double.onnx");
    const out = ["--out", at("never", "out.npz")];
    const cases: [given: string[], status: number, code: string, says: RegExp][] = [
      [[double, "--npz", at("wide.npz"), ...out], 65, "INPUT_MISMATCH", /float32 \[1, 4\].*\[1, 3\]/],
      [[double, "--npz", at("names.npz"), ...out], 65, "INPUT_MISMATCH", /expected x; got a, b/],
      [[double, "--npz", at("text.npz"), ...out], 65, "DATA_MALFORMED", /./],
      [[double, "--npz", at("nowhere.npz"), ...out], 66, "FILE_NOT_FOUND", /nowhere\.npz/],
      [[at("nowhere.onnx"), "--npz", at("rows.npz"), ...out], 66, "FILE_NOT_FOUND", /nowhere\.onnx/],
      [[at("noise.onnx"), "--npz", at("rows.npz"), ...out], 65, "MODEL_MALFORMED", /./],
      [
        [double, at("copy", "double.onnx"), "--npz", at("rows.npz"), ...out],
        64,
        "INVALID_ARGUMENT",
        /"double"/,
      ],
      [[double, "--npz", at("rows.npz")], 64, "INVALID_ARGUMENT", /--out/],
      [[double], 64, "INVALID_ARGUMENT", /--npz or --image/],
    ];
    for (const [given, status, code, says] of cases) {
      const run = await polyhead("run", ...given, "--json");
      const { error } = JSON.parse(run.stdout);
      expect({ given, status: run.status, code: error.code }).toEqual({ given, status, code });
      expect(error.message).toMatch(says);
    }
    expect(await readdir(folder)).not.toContain("never");
  });
});

describe("polyhead run on images", () => {
  /** A classifier whose scores are the means of red, green and blue. */
  async function saveColours(name: string, metadata: Metadata) {
    const colours = model(
      graph(name, {
        nodes: [node("ReduceMean", ["image"], ["scores"], { axes: [2, 3], keepdims: 0 })],
        inputs: [valueInfo("image", "float32", ["N", 3, 8, 8])],
        outputs: [valueInfo("scores", "float32", ["N", 3])],
        weights: [],
      }),
    );
    await saveModel(at(`${name}.onnx`), withMetadata(colours, metadata));
    return at(`${name}.onnx`);
  }

  it("finds the person in a photo with an imported detector, and draws it", async () => {
    await writeFile(at("person.jpg"), personPhoto());
    await polyhead("import", centernet, "-o", at("coco.onnx"), "--recipe", "centernet");
    const given = ["run", at("coco.onnx"), "--image", at("person.jpg"), "--annotate", at("drawn"), "--json"];
    const run = await polyhead(...given);
    expect({ status: run.status, stderr: run.stderr }).toEqual({ status: 0, stderr: "" });
    const { images } = JSON.parse(run.stdout);
    expect(images).toMatchObject([{ path: at("person.jpg"), annotated: at("drawn", "person.png") }]);
    // Where TF.js finds the person in this photo.
    const { detections } = images[0].routes.coco;
    expect(detections).toMatchObject([{ label: "person", classIndex: 0 }]);
    expect(detections[0].score).toBeCloseTo(0.714, 1);
    expect(Math.abs(detections[0].box.x1 - (91.566 * 1200) / 512)).toBeLessThan(12);
    const drawn = await sharp(at("drawn", "person.png")).metadata();
    expect([drawn.format, drawn.width, drawn.height]).toEqual(["png", 1200, 1200]);
  });

  it("prints the classes of every image and route", async () => {
    const preprocessing = { height: 8, width: 8, range: [0, 10] };
    const colours = await saveColours("colours", { preprocessing, labels: ["red", "green", "blue"] });
    const plain = await saveColours("plain", { preprocessing });
    for (const [name, background] of [
      ["leaf", "#00ff00"],
      ["sea", "#0000ff"],
    ] as const) {
      await sharp({ create: { width: 20, height: 10, channels: 3, background } })
        .png()
        .toFile(at(`${name}.png`));
    }
    const run = await polyhead("run", colours, plain, "--image", at("leaf.png"), at("sea.png"), "--json");
    const { images } = JSON.parse(run.stdout);
    const best = images.map(
      (each: { routes: { colours: { classes: unknown[] } } }) => each.routes.colours.classes[0],
    );
    expect(best).toMatchObject([{ label: "green" }, { label: "blue" }]);
    expect(best[0].score).toBeCloseTo(Math.exp(10) / (Math.exp(10) + 2), 5);
    expect(images[0].routes.plain.outputs).toEqual([{ name: "scores", dtype: "float32", shape: [1, 3] }]);
    expect(run.stderr.match(/colours does not say .* softmax is assumed.*--activation/g)).toHaveLength(1);
    const text = await polyhead("run", colours, "--image", at("leaf.png"));
    expect(text.stdout).toMatch(/leaf\.png\n {2}colours\n {4}green 100\.0%\n/);
  });

  it("takes the activation that the metadata names, and says nothing of it", async () => {
    const preprocessing = { height: 8, width: 8, range: [0, 1] };
    await sharp({ create: { width: 8, height: 8, channels: 3, background: "#00ff00" } })
      .png()
      .toFile(at("green.png"));
    for (const [activation, score] of [
      ["none", 1],
      ["softmax", Math.E / (Math.E + 2)],
      ["sigmoid", 1 / (1 + 1 / Math.E)],
    ] as const) {
      const labels = ["red", "green", "blue"];
      const colours = await saveColours(activation, { preprocessing, labels, activation });
      const run = await polyhead("run", colours, "--image", at("green.png"), "--json");
      expect({ status: run.status, stderr: run.stderr }).toEqual({ status: 0, stderr: "" });
      const [best] = JSON.parse(run.stdout).images[0].routes[activation].classes;
      expect(best.label).toBe("green");
      expect(best.score).toBeCloseTo(score, 5);
    }
  });

  it("refuses models without preprocessing, files that are no images, and pictures of one name", async () => {
    const bare = await saveColours("bare", {});
    const good = await saveColours("good", {
      preprocessing: { height: 8, width: 8 },
      task: "classification",
    });
    await sharp({ create: { width: 9, height: 9, channels: 3, background: "red" } })
      .png()
      .toFile(at("red.png"));
    await writeFile(at("red.jpg"), "no image");
    const cases: [given: string[], status: number, says: RegExp][] = [
      [[bare, "--image", at("red.png")], 64, /--preprocess/],
      [[good, "--image", at("red.png"), at("red.jpg")], 65, /not a JPEG, PNG or WebP/],
      [[good, "--annotate", at("none"), "--image", at("red.png"), at("red.jpg")], 64, /one by one/],
    ];
    for (const [given, status, says] of cases) {
      const run = await polyhead("run", ...given);
      expect({ given, status: run.status, stdout: run.stdout }).toEqual({ given, status, stdout: "" });
      expect(run.stderr).toMatch(says);
    }
    expect(await readdir(folder)).not.toContain("none");
  });
});
