/** The verb import as a process: published models, other people's files, and nothing written when it fails. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { copyFile, cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { zipSync } from "fflate";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModel, saveModel } from "../../src/files/disk.js";
import { readMetadata } from "../../src/onnx/metadata.js";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { polyhead } from "./command.js";

const published = (name: string) =>
  fileURLToPath(new URL(`../../node_modules/@vladmandic/human/models/${name}`, import.meta.url));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
});
afterAll(() => rm(folder, { recursive: true }));

const at = (...parts: string[]) => join(folder, ...parts);

/** A model that gives its image back, with an input of the given type. */
async function saveImageModel(name: string, dtype: "float32" | "uint8", shape: (number | string)[]) {
  const made = model(
    graph(name, {
      nodes: [node("Identity", ["image"], ["same"])],
      inputs: [valueInfo("image", dtype, shape)],
      outputs: [valueInfo("same", dtype, shape)],
      weights: [],
    }),
  );
  await saveModel(at(`${name}.onnx`), made);
  return at(`${name}.onnx`);
}

describe("polyhead import", () => {
  it("imports a TF.js graph model with what the user knows of it", async () => {
    await writeFile(at("moods.txt"), "angry\ndisgust\nfear\nhappy\nsad\nsurprise\nneutral\n");
    const run = await polyhead(
      ...["import", published("emotion.json"), "-o", at("emotion.onnx"), "--json"],
      ...["--preprocess", "unit", "--set", "kernel=cubic", "--set", "range=[0,2]"],
      ...["--labels", at("moods.txt"), "--task", "classification", "--activation", "none"],
    );
    expect({ status: run.status, stderr: run.stderr }).toEqual({ status: 0, stderr: "" });
    const printed = JSON.parse(run.stdout);
    expect(printed).toMatchObject({ path: at("emotion.onnx"), inputs: [{ dtype: "float32" }] });
    expect(printed.parameters).toBeGreaterThan(100_000);
    const written = await loadModel(at("emotion.onnx"));
    expect(written.graph.input.map(({ name }) => name)).toEqual([printed.inputs[0].name]);
    const { preprocessing, labels, task, activation, provenance } = readMetadata(written);
    expect(preprocessing).toMatchObject({
      ...{ height: 64, width: 64, layout: "nhwc", colour: "grey", dtype: "float32" },
      ...{ kernel: "cubic", range: [0, 2] },
    });
    expect(labels).toEqual(["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]);
    expect([task, activation]).toEqual(["classification", "none"]);
    const sha256 = (bytes: string | Uint8Array) => createHash("sha256").update(bytes).digest("hex");
    const [graphFile, weightFile] = await Promise.all(
      ["emotion.json", "emotion.bin"].map(async (name) => sha256(await readFile(published(name)))),
    );
    expect(provenance).toMatchObject({
      file: "emotion.json",
      format: "tfjs-graph",
      files: { "emotion.bin": weightFile, "emotion.json": graphFile },
      sha256: sha256(`${weightFile}  emotion.bin\n${graphFile}  emotion.json\n`),
      polyhead: expect.stringMatching(/^\d+\.\d+\.\d+/),
    });
  });

  it("knows all about centernet by one name", async () => {
    const run = await polyhead(
      ...["import", published("centernet.json"), "-o", at("coco.onnx"), "--recipe", "centernet", "--json"],
    );
    expect(run.status).toBe(0);
    const { preprocessing, labels, task, decoding } = readMetadata(await loadModel(at("coco.onnx")));
    expect(preprocessing).toMatchObject({ height: 512, width: 512, layout: "nhwc", range: [0, 255] });
    expect([labels?.length, labels?.[0], task]).toEqual([80, "person", "detection"]);
    expect(decoding).toMatchObject({ rows: "tower_0/detections", scoreThreshold: 0.2 });
  });

  it("puts an ONNX file into evaluation mode and says so", async () => {
    const training = model(
      graph("dropout", {
        nodes: [node("Dropout", ["x"], ["y", "mask"])],
        inputs: [valueInfo("x", "float32", ["N", 4])],
        outputs: [valueInfo("y", "float32", ["N", 4])],
        weights: [],
      }),
      6,
    );
    await saveModel(at("old.onnx"), training);
    const run = await polyhead("import", at("old.onnx"), "-o", at("new.onnx"), "--json");
    expect(run.status).toBe(0);
    const { notes } = JSON.parse(run.stdout);
    expect(notes).toEqual([
      expect.stringContaining("stays in operator set 6"),
      expect.stringContaining("Dropout"),
    ]);
    expect(readMetadata(await loadModel(at("new.onnx")))).toMatchObject({
      notes,
      provenance: {
        file: "old.onnx",
        format: "onnx",
        sha256: createHash("sha256")
          .update(await readFile(at("old.onnx")))
          .digest("hex"),
      },
    });
  });

  it("brings an old operator set up and says so, and what it wrote shares with a newer export", async () => {
    const exported = (opset: number) =>
      fileURLToPath(new URL(`../fixtures/opsets/opset-${opset}.onnx`, import.meta.url));
    const run = await polyhead("import", exported(7), "-o", at("old.onnx"), "--json");
    expect(JSON.parse(run.stdout).notes).toEqual(["Operator set 7 became 17."]);
    expect(await polyhead("import", exported(16), "-o", at("recent.onnx"))).toMatchObject({ status: 0 });
    const asWritten = await polyhead("share", at("old.onnx"), at("recent.onnx"), "--json");
    const asTheyCame = await polyhead("share", exported(7), exported(16), "--json");
    const { segments } = JSON.parse(asWritten.stdout);
    expect(segments[0]).toMatchObject({ usedBy: ["old", "recent"], nodes: expect.any(Number) });
    expect(segments[0].nodes).toBeGreaterThan(20);
    expect(JSON.parse(asTheyCame.stdout).segments[0].nodes).toBe(segments[0].nodes);
    const densenet = fileURLToPath(new URL("../fixtures/architectures/densenet.onnx", import.meta.url));
    const split = await polyhead("split", densenet, "-o", at("of-eleven"), "--json");
    expect(JSON.parse(split.stdout)).toMatchObject({
      notes: ["Operator set 11 became 17."],
      proof: { bitwise: true },
    });
  });

  it("takes layout, dtype and size from the model, and the size from the user where the model leaves it open", async () => {
    const fixed = await saveImageModel("bytes", "uint8", ["N", 32, 48, 3]);
    await polyhead("import", fixed, "-o", at("bytes-in.onnx"), "--preprocess", "raw");
    expect(readMetadata(await loadModel(at("bytes-in.onnx"))).preprocessing).toMatchObject({
      ...{ height: 32, width: 48, layout: "nhwc", dtype: "uint8" },
    });
    const open = await saveImageModel("open", "float32", ["N", 3, "H", "W"]);
    const sized = ["import", open, "-o", at("open-in.onnx"), "--preprocess", "unit", "--size", "40x56"];
    expect((await polyhead(...sized)).status).toBe(0);
    expect(readMetadata(await loadModel(at("open-in.onnx"))).preprocessing).toMatchObject({
      ...{ height: 40, width: 56, layout: "nchw" },
    });
  });

  it("remarks that an output is not finite", async () => {
    const logarithm = graph("log", {
      nodes: [node("Log", ["x"], ["y"])],
      inputs: [valueInfo("x", "float32", [1, 64])],
      outputs: [valueInfo("y", "float32", [1, 64])],
      weights: [],
    });
    await saveModel(at("log.onnx"), model(logarithm));
    const run = await polyhead("import", at("log.onnx"), "-o", at("log-in.onnx"), "--json");
    expect(JSON.parse(run.stdout).notes).toEqual([expect.stringContaining('"y" is not finite')]);
  });

  it("refuses what it cannot do, and writes nothing", async () => {
    const image = await saveImageModel("image", "float32", ["N", 32, 48, 3]);
    await writeFile(
      at("noise.onnx"),
      Uint8Array.from({ length: 300 }, (_, place) => (place * 89 + 255) % 256),
    );
    const custom = { class_name: "Lambda", config: { name: "twice", function: "eval" } };
    const topology = { class_name: "Sequential", config: { name: "own", layers: [custom] } };
    await writeFile(at("layers.json"), JSON.stringify({ modelTopology: topology, weightsManifest: [] }));
    const ops = { x: "Placeholder", w: "StatelessWhile", s: "StringSplit" };
    const nodes = Object.entries(ops).map(([name, op]) => ({
      name,
      op,
      input: { w: ["x"], s: ["w"] }[name] ?? [],
    }));
    await writeFile(
      at("graph.json"),
      JSON.stringify({ modelTopology: { node: nodes }, weightsManifest: [] }),
    );
    await writeFile(at("broken.json"), '{"modelTopology": ');
    await writeFile(at("archive.pth"), Uint8Array.of(0x50, 0x4b, 3, 4, 0, 0, 0, 0));
    await writeFile(at("gaps.txt"), "one\n\nthree\n");
    const lost = graph("lost", {
      nodes: [node("NoSuchOperator", ["x"], ["y"])],
      inputs: [valueInfo("x", "float32", [1, 2])],
      outputs: [valueInfo("y", "float32", [1, 2])],
      weights: [],
    });
    await saveModel(at("lost.onnx"), model(lost));
    const cases: [given: string[], status: number, code: string, says: RegExp][] = [
      [[at("nowhere.onnx")], 66, "FILE_NOT_FOUND", /nowhere/],
      [[at("noise.onnx")], 65, "MODEL_MALFORMED", /./],
      [[at("broken.json")], 65, "MODEL_MALFORMED", /not JSON/],
      [[at("layers.json")], 65, "MODEL_UNSUPPORTED", /Lambda.*never run/],
      [[at("archive.pth")], 65, "MODEL_UNSUPPORTED", /zip file.*expected one of ONNX files/],
      [[at("lost.onnx")], 65, "LOAD_FAILED", /NoSuchOperator/],
      [[at("graph.json")], 65, "MODEL_UNSUPPORTED", /StatelessWhile.*StringSplit/],
      [[image, "--input-shape", "1,32,48,3"], 64, "INVALID_ARGUMENT", /ONNX.*shape/],
      [[image, "--preprocess", "imaginary"], 64, "INVALID_ARGUMENT", /imagenet/],
      [[image, "--preprocess", "unit", "--size", "20x20"], 64, "INVALID_ARGUMENT", /\[N, 32, 48, 3\]/],
      [[image, "--preprocess", "unit", "--set", "rnage=[0,1]"], 64, "INVALID_ARGUMENT", /rnage/],
      [[image, "--set", "range=[0,1]"], 64, "INVALID_ARGUMENT", /recipe/],
      [[image, "--recipe", "anything"], 64, "INVALID_ARGUMENT", /centernet/],
      [[image, "--decode", "centernet"], 64, "INVALID_ARGUMENT", /tower_0\/detections.*same/],
      [[image, "--decode", '{"arrangement":"heap"}'], 64, "INVALID_ARGUMENT", /arrangement/],
      [[image, "--labels", at("gaps.txt")], 65, "DATA_MALFORMED", /every line/],
    ];
    for (const [given, status, code, says] of cases) {
      const run = await polyhead("import", ...given, "-o", at("never", "out.onnx"), "--json");
      const { error } = JSON.parse(run.stdout);
      expect({ given, status: run.status, code: error.code }).toEqual({ given, status, code });
      expect(error.message).toMatch(says);
      expect(run.stderr).not.toMatch(/^ +at /m);
    }
    expect(await readdir(folder)).not.toContain("never");
  }, 300_000);

  it.skipIf(!hasFixtures)("refuses a PyTorch file that calls a command, by name", async () => {
    const cases: [file: string, says: RegExp][] = [["heads/malicious.pth", /posix\.system/]];
    for (const [file, says] of cases) {
      const run = await polyhead("import", join(fixturesDir, file), "-o", at("never.onnx"));
      expect({ file, status: run.status }).toEqual({ file, status: 65 });
      expect(run.stderr).toMatch(says);
      expect(run.stderr).toContain("MODEL_UNSUPPORTED");
    }
    expect(existsSync(at("never.onnx"))).toBe(false);
  });

  it.skipIf(!hasFixtures)(
    "imports Teachable Machine exports, as a folder, a file and a zip, with labels",
    async () => {
      const source = join(fixturesDir, "teachable-machine", "road-signs");
      const names = ["model.json", "metadata.json", "weights.bin"];
      const files = await Promise.all(
        names.map(async (name) => [name, await readFile(join(source, name))] as const),
      );
      await writeFile(at("signs.zip"), zipSync(Object.fromEntries(files)));
      const found: unknown[] = [];
      for (const given of [source, join(source, "model.json"), at("signs.zip")]) {
        const run = await polyhead("import", given, "-o", at("signs.onnx"), "--json");
        expect({ status: run.status, stderr: run.stderr }).toEqual({ status: 0, stderr: "" });
        const written = await loadModel(at("signs.onnx"));
        const { preprocessing, labels, task, activation, provenance } = readMetadata(written);
        expect(preprocessing).toMatchObject({
          height: 224,
          width: 224,
          layout: "nhwc",
          range: [-1, 1],
          fit: "cover",
        });
        expect([labels?.length, labels?.[1], task, activation]).toEqual([
          10,
          "Stop",
          "classification",
          "none",
        ]);
        expect(provenance).toMatchObject({ format: "teachable-machine" });
        found.push(written.graph);
      }
      expect(found[1]).toEqual(found[0]);
      expect(found[2]).toEqual(found[0]);
    },
  );

  it.skipIf(!hasFixtures)("shares models as they came, without an import before", async () => {
    const exports = ["banknotes", "road-signs"].map((name) => join(fixturesDir, "teachable-machine", name));
    const run = await polyhead("share", ...exports, "--json");
    expect(run.stderr).toBe("");
    const { segments } = JSON.parse(run.stdout);
    expect(segments.map(({ usedBy }: { usedBy: string[] }) => usedBy.length)).toEqual([2, 1, 1]);
  });

  it.skipIf(!hasFixtures)("imports a published Keras file with its labels", async () => {
    const file = join(fixturesDir, "keras/fer2013_mini_XCEPTION.102-0.66.hdf5");
    await writeFile(at("faces.txt"), "angry\ndisgust\nfear\nhappy\nsad\nsurprise\nneutral\n");
    const run = await polyhead(
      "import",
      file,
      "-o",
      at("faces.onnx"),
      "--preprocess",
      "signed",
      "--labels",
      at("faces.txt"),
      "--json",
    );
    expect({ status: run.status, stderr: run.stderr }).toEqual({ status: 0, stderr: "" });
    const { provenance, preprocessing, labels } = readMetadata(await loadModel(at("faces.onnx")));
    expect(provenance).toMatchObject({ format: "keras-hdf5" });
    expect(preprocessing).toMatchObject({
      height: 64,
      width: 64,
      colour: "grey",
      layout: "nhwc",
      range: [-1, 1],
    });
    expect(labels).toHaveLength(7);
  });

  it.skipIf(!hasFixtures)("imports a folder of mixed files, and says of each what became of it", async () => {
    const mixed = at("mixed");
    const copy = (from: string, to: string) =>
      cp(join(fixturesDir, from), join(mixed, to), { recursive: true });
    await copy("keras/fer2013_mini_XCEPTION.102-0.66.hdf5", "faces.hdf5");
    await copy("heads/malicious.pth", "bad.pth");
    await copy("teachable-machine/banknotes", "money");
    await copyFile(published("emotion.json"), join(mixed, "emotion.json"));
    await copyFile(published("emotion.bin"), join(mixed, "emotion.bin"));
    await saveImageModel("inside", "float32", [1, 3, 8, 8]);
    await copyFile(at("inside.onnx"), join(mixed, "inside.onnx"));
    await writeFile(join(mixed, "cut.h5"), (await readFile(join(mixed, "faces.hdf5"))).subarray(0, 5000));
    await writeFile(join(mixed, "notes.txt"), "no model at all");
    const run = await polyhead("import", mixed, "-o", at("all"), "--json");
    expect({ status: run.status, stderr: run.stderr }).toEqual({ status: 65, stderr: "" });
    const { files } = JSON.parse(run.stdout);
    const short = files.map(({ file, outcome, path, of, error }: Record<string, unknown>) => [
      file,
      outcome,
      path ?? of ?? (error as { code?: string } | undefined)?.code,
    ]);
    expect(short).toEqual([
      ["bad.pth", "refused", "MODEL_UNSUPPORTED"],
      ["cut.h5", "refused", "MODEL_MALFORMED"],
      ["emotion.bin", "part", "emotion.json"],
      ["emotion.json", "imported", at("all", "emotion.onnx")],
      ["faces.hdf5", "imported", at("all", "faces.onnx")],
      ["inside.onnx", "imported", at("all", "inside.onnx")],
      ["money", "imported", at("all", "money.onnx")],
      ["notes.txt", "no model", undefined],
    ]);
    expect((await readdir(at("all"))).filter((name) => name.endsWith(".onnx")).sort()).toEqual([
      "emotion.onnx",
      "faces.onnx",
      "inside.onnx",
      "money.onnx",
    ]);
    expect(readMetadata(await loadModel(at("all", "money.onnx"))).labels).toContain("Tanpa Uang");
    const table = await polyhead("import", mixed, "-o", at("again"));
    expect(table.stdout).toMatch(/^file +is +became +why not\n/);
    expect(table.stdout).toMatch(/bad\.pth +PyTorch file +refused +.*posix/);
    const one = await polyhead("import", mixed, "-o", at("never"), "--task", "anything");
    expect([one.status, existsSync(at("never"))]).toEqual([64, false]);
  });
});
