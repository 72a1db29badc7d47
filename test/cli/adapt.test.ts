/** The verbs adapt and plan as processes: what they print, what they write, what goes live, and exit statuses. */
import { access, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { gaussian, seededRandom } from "../../src/base/random.js";
import { loadModel, saveModel } from "../../src/files/disk.js";
import { openEngine } from "../../src/index.js";
import { identify } from "../../src/onnx/identity.js";
import { readMetadata } from "../../src/onnx/metadata.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { Deployment } from "../../src/server/deployment.js";
import { Store } from "../../src/store/index.js";
import { float32 } from "../../src/tensor/tensor.js";
import { decodeImage, imageTensor, preprocessingFor } from "../../src/vision/index.js";
import { centreDetector, remade } from "../adapt/maps.js";
import { foodFolder, randomBackbone } from "../teach/photos.js";
import { polyhead } from "./command.js";

let folder: string;
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
  await foodFolder(at("food"), { B: "pulses", C: "leafy vegetables", E: "fruits" }, 14);
  await saveModel(at("old.onnx"), randomBackbone());
  await saveModel(at("new.onnx"), randomBackbone(8));
  const taught = await polyhead(
    ...["teach", "--backbone", at("old.onnx"), "--tap", "c2", "--data", at("food")],
    ...["-o", at("head.onnx"), "--method", "ridge", "--cache", at("cache")],
  );
  expect(taught.status).toBe(0);
});
afterAll(() => rm(folder, { recursive: true }));

describe("polyhead adapt", () => {
  const given = (out: string) => [
    ...["adapt", "--head", at("head.onnx"), "--from", at("old.onnx"), "--to", at("new.onnx")],
    ...["--data", at("food"), "-o", at(out), "--cache", at("cache")],
  ];

  it("writes adapter and folded head and prints one document", async () => {
    const run = await polyhead(...given("a.onnx"), "--floor", "0", "--folded", at("f.onnx"), "--json");
    expect(run).toMatchObject({ status: 0, stderr: "" });
    const report = JSON.parse(run.stdout);
    expect(report).toMatchObject({
      path: at("a.onnx"),
      foldedPath: at("f.onnx"),
      examples: 42,
      labelled: true,
    });
    expect(report.taps.map(({ tap }: { tap: string }) => tap)).toEqual(["c1", "c2"]);
    expect(readMetadata(await loadModel(at("a.onnx")))).toMatchObject({
      role: "adapter",
      provenance: { by: "polyhead adapt", head: "head.onnx", from: "old.onnx", to: "new.onnx" },
    });
    expect(readMetadata(await loadModel(at("f.onnx")))).toMatchObject({
      role: "head",
      labels: ["fruits", "leafy vegetables", "pulses"],
    });
  });

  it("joins into a model that answers from the new backbone", async () => {
    expect((await polyhead(...given("b.onnx"), "--floor", "0")).status).toBe(0);
    const joined = await polyhead(
      "join",
      at("new.onnx"),
      at("b.onnx"),
      at("head.onnx"),
      "-o",
      at("whole.onnx"),
    );
    expect(joined).toMatchObject({ status: 0 });
    const without = await polyhead("join", at("new.onnx"), at("head.onnx"), "-o", at("wrong.onnx"));
    expect(without.status).toBe(65);
  });

  it("prints the ladder for people", async () => {
    const { stdout } = await polyhead(...given("c.onnx"), "--floor", "0", "--tap", "c2");
    for (const word of ["procrustes", "low-rank", "least-squares", "chosen", "of its quality is kept"])
      expect(stdout).toContain(word);
  });

  it("learns from classes through the frozen head, and joins into a model that answers", async () => {
    const learning = ["--floor", "0", "--tap", "c2", "--rung", "trained", "--shape", "relu", "--json"];
    const run = await polyhead(...given("t.onnx"), ...learning);
    expect(run).toMatchObject({ status: 0, stderr: "" });
    expect(JSON.parse(run.stdout)).toMatchObject({
      ...{ makes: "adapter", chosenBy: "accuracy", chosen: { tap: "c2", rung: "trained" } },
      quality: { accuracy: { value: expect.any(Number) } },
    });
    const parts = [at("new.onnx"), at("t.onnx"), at("head.onnx")];
    expect((await polyhead("join", ...parts, "-o", at("trained.onnx"))).status).toBe(0);
  });

  it("trains the head as well into a new head, which fits the new backbone by itself", async () => {
    const before = await loadModel(at("head.onnx"));
    const learning = ["--floor", "0", "--tap", "c2", "--rung", "together", "--json"];
    const run = await polyhead(...given("n.onnx"), ...learning);
    expect(run).toMatchObject({ status: 0, stderr: "" });
    expect(JSON.parse(run.stdout)).toMatchObject({ makes: "head", chosen: { rung: "together" } });
    const fits = ["plan", "--backbone", at("new.onnx"), "--head", at("n.onnx"), "--json"];
    expect(JSON.parse((await polyhead(...fits)).stdout).way).toBe("swap");
    expect(await loadModel(at("head.onnx"))).toEqual(before);
  });

  it("learns from classes only where they are known", async () => {
    const run = await polyhead(
      ...given("u.onnx"),
      ...["--data", at("food/fruits"), "--learn", "both", "--floor", "0"],
    );
    expect(run.status).toBe(64);
    expect(run.stderr).toContain("named like the head's labels");
  });

  it("refuses what keeps too little, and writes nothing", async () => {
    const run = await polyhead(
      ...given("d.onnx"),
      "--floor",
      "1",
      "--rung",
      "low-rank",
      "--tap",
      "c1",
      "--json",
    );
    expect(run.status).toBe(70);
    const { error } = JSON.parse(run.stdout);
    expect(error).toMatchObject({ code: "QUALITY_TOO_LOW" });
    expect(error.details.report).toBeDefined();
    await expect(access(at("d.onnx"))).rejects.toThrow();
  });

  it.each([
    ["a floor that is no share", ["--floor", "2"], 64],
    ["an unknown rung", ["--rung", "ladder"], 64],
    ["an unknown tap", ["--tap", "c9"], 66],
    ["no images", ["--data", "nowhere"], 66],
    ["an unknown shape", ["--shape", "round"], 64],
  ])("ends with its own status for %s", async (_, change, status) => {
    expect((await polyhead(...given("e.onnx"), ...change)).status).toBe(status);
  });
});

describe("polyhead plan", () => {
  it("prints way, reasons, nothing measured and the line that does it for a head that fits", async () => {
    const run = await polyhead("plan", "--backbone", at("old.onnx"), "--head", at("head.onnx"), "--json");
    expect(run).toMatchObject({ status: 0, stderr: "" });
    expect(JSON.parse(run.stdout)).toEqual({
      way: "swap",
      reasons: [expect.stringContaining("it fits")],
      measured: [],
      skipped: [],
      command: `polyhead heads add ${at("head.onnx")} --route head`,
      written: [],
    });
  });

  it("measures, recommends, and with --apply writes what it recommends", async () => {
    const run = await polyhead(
      ...["plan", "--backbone", at("new.onnx"), "--head", at("head.onnx"), "--from", at("old.onnx")],
      ...["--data", at("food"), "--cache", at("cache"), "--apply", at("made"), "--json"],
      ...["--plot", at("ways.svg")],
    );
    expect(run).toMatchObject({ status: 0, stderr: "" });
    const plan = JSON.parse(run.stdout);
    expect(plan.measured).toHaveLength(6);
    expect(plan.measured[1]).toMatchObject({
      way: "adapt",
      measure: "accuracy",
      quality: { value: expect.any(Number), low: expect.any(Number), high: expect.any(Number) },
      milliseconds: { alone: expect.any(Number) },
      bytes: expect.any(Number),
      seconds: expect.any(Number),
      others: expect.any(String),
      judgedOn: "cross-validation",
      data: "42 images, no classes",
      command: expect.stringContaining("polyhead adapt"),
    });
    expect(await readFile(plan.plot, "utf8")).toMatch(/^<svg .*Ways to the head.*<\/svg>$/s);
    const chosen = plan.measured.find((each: { way: string }) => each.way === plan.way);
    expect(plan.command).toBe(chosen.command);
    expect(plan.written).toHaveLength(1);
    const fits = await polyhead("plan", "--backbone", at("new.onnx"), "--head", plan.written[0], "--json");
    expect(JSON.parse(fits.stdout).way).toBe("swap");
    expect(readMetadata(await loadModel(plan.written[0])).labels).toEqual([
      "fruits",
      "leafy vegetables",
      "pulses",
    ]);
  });

  it.each([
    ["no such head", ["--head", "nowhere.onnx"], 66],
    ["a floor that is no share", ["--floor", "-1"], 64],
    ["no time", ["--seconds", "0"], 64],
    ["a plot of nothing", ["--plot", "ways.svg"], 64],
    ["a route without a folder", ["--route", "food"], 64],
  ])("ends with its own status for %s", async (_, change, status) => {
    const given = ["plan", "--backbone", at("new.onnx"), "--head", at("head.onnx"), ...change];
    expect((await polyhead(...given)).status).toBe(status);
  });

  it("brings a head of 512 features, which is refused as it is, to a backbone of 1280, live in a store", async () => {
    await saveModel(at("512.onnx"), vectorBackbone(512));
    await saveModel(at("1280.onnx"), vectorBackbone(1280));
    const cache = ["--cache", at("cache")];
    const taught = await polyhead(
      ...["teach", "--backbone", at("512.onnx"), "--data", at("food"), "-o", at("narrow.onnx")],
      ...["--method", "ridge", ...cache],
    );
    expect(taught.status).toBe(0);
    const store = ["--store", at("store")];
    expect((await polyhead("heads", "add", at("1280.onnx"), ...store)).status).toBe(0);
    const refused = await polyhead("heads", "add", at("narrow.onnx"), "--route", "food", ...store, "--json");
    expect(refused.status).toBe(65);
    expect(JSON.parse(refused.stdout).error).toMatchObject({ code: "HEAD_MISMATCH" });

    const run = await polyhead(
      ...["plan", "--backbone", at("1280.onnx"), "--head", at("narrow.onnx"), "--from", at("512.onnx")],
      ...["--data", at("food"), ...cache, "--apply", at("live"), "--route", "food", ...store, "--json"],
    );
    expect(run).toMatchObject({ status: 0, stderr: "" });
    const { way, live, measured } = JSON.parse(run.stdout);
    expect(way).toBe("adapt");
    expect(measured.find((each: { way: string }) => each.way === "adapt").quality.value).toBeGreaterThan(0.5);
    expect(live).toEqual({ route: "food", revision: expect.stringMatching(/^[0-9a-f]{64}$/) });
    const listed = await polyhead("heads", "ls", ...store, "--json");
    expect(JSON.parse(listed.stdout).routes).toMatchObject([
      { name: "food", task: "classification", revisions: [{ revision: live.revision }] },
    ]);
  });

  it("brings a detector, which is refused on maps of another stride, live in a store", async () => {
    const identity = (await identify(randomBackbone())).get("c1") ?? "";
    const tap = { name: "c1", dtype: "float32" as const, shape: ["batch", 16, 12, 12], identity };
    await saveModel(at("detector.onnx"), centreDetector(tap));
    await saveModel(at("finer.onnx"), remade("finer"));
    const store = ["--store", at("maps")];
    expect((await polyhead("heads", "add", at("finer.onnx"), ...store)).status).toBe(0);
    const refused = await polyhead(
      ...["heads", "add", at("detector.onnx"), "--route", "objects", ...store, "--json"],
    );
    expect(refused.status).toBe(65);
    const { error } = JSON.parse(refused.stdout);
    expect(error).toMatchObject({ code: "HEAD_MISMATCH", details: { got: { name: "n1" } } });

    const run = await polyhead(
      ...["plan", "--backbone", at("finer.onnx"), "--head", at("detector.onnx"), "--from", at("old.onnx")],
      ...["--data", at("food"), "--cache", at("cache"), "--apply", at("maps-made")],
      ...["--route", "objects", ...store, "--json"],
    );
    expect(run).toMatchObject({ status: 0, stderr: "" });
    const { way, live, measured, skipped } = JSON.parse(run.stdout);
    expect(way).toBe("adapt");
    expect(measured).toMatchObject([{ way: "adapt", measure: "agreement" }]);
    expect(measured[0].quality.value).toBeGreaterThan(0.9);
    expect(skipped.map(({ way: each }: { way: string }) => each)).toEqual([
      ...["swap", "adapt", "tune", "tune", "tune"],
    ]);
    const running = await Deployment.open(await Store.open(at("maps")), await openEngine());
    const photo = await decodeImage(at("food/fruits/E003.jpeg"));
    const { tensor } = await imageTensor(photo, preprocessingFor(randomBackbone()));
    const answer = await running.infer({ routes: ["objects"], inputs: { image: tensor } });
    expect(answer.routes.objects).toMatchObject({ revision: live.revision });
    expect(answer.routes.objects?.outputs.heat?.shape).toEqual([1, 2, 12, 12]);
    await running.close();
  });
});

/** Vectors of that many features, all of them mixtures of the sixteen that the backbone's first layer has on average. */
function vectorBackbone(width: number): Model {
  const random = seededRandom(width);
  const mixture = Float32Array.from({ length: 16 * width }, () => gaussian(random));
  const [first, relu] = randomBackbone().graph.node;
  const { graph: own, ...rest } = randomBackbone();
  if (!first || !relu) throw new Error("no layers");
  const main = graph("vectors", {
    nodes: [
      ...[first, relu],
      node("GlobalAveragePool", ["c1"], ["mean"]),
      node("Flatten", ["mean"], ["flat"]),
      node("MatMul", ["flat", "mixture"], ["vector"]),
    ],
    inputs: own.input,
    outputs: [valueInfo("vector", "float32", [1, width])],
    weights: [
      ...own.initializer.filter(({ name }) => name === "w1"),
      weight("mixture", float32([16, width], mixture)),
    ],
  });
  return Object.assign(model(main), { metadataProps: rest.metadataProps });
}
