/** `polyhead grad` and `polyhead tune` on the training fixtures: files and documents that other tools read. */
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { lossOf } from "../../src/cli/loss-option.js";
import { readDecay } from "../../src/cli/option-numbers.js";
import { optimizerOf, readGroup, scheduleOf } from "../../src/cli/tune/options.js";
import { loadModel, saveModel } from "../../src/files/disk.js";
import { readMetadata } from "../../src/onnx/metadata.js";
import { graph, model, node, valueInfo } from "../../src/onnx/model.js";
import { revisionOf } from "../../src/onnx/revision.js";
import { weight, weightTensor } from "../../src/onnx/weight.js";
import { readNpz, writeNpz } from "../../src/tensor/npz.js";
import { float32, int64, type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { useRuntime } from "../onnx/runtime.js";
import { killed, polyhead as run } from "./command.js";

const open = useRuntime();
const at = (name: string) => join(fixturesDir, "train", name);
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tune-"));
});
afterAll(() => rm(folder, { recursive: true }));

async function polyhead(...words: string[]) {
  const { status, stdout } = await run(...words, "--json");
  return { status, document: JSON.parse(stdout) as Record<string, unknown> };
}

describe.skipIf(!hasFixtures)("training from the command", () => {
  it("writes the gradients of the first of several batches", { timeout: 30_000 }, async () => {
    const out = join(folder, "g.npz");
    const words = ["--npz", at("resnet_basic.npz"), "--loss", "cross-entropy", "--out", out];
    const { status, document } = await polyhead("grad", at("resnet_basic.onnx"), ...words);
    expect(status).toBe(0);
    const [written, golden] = [out, at("resnet_basic.npz")].map((path) => readNpz(readFileSync(path)));
    const [loss] = golden?.get("loss") ? toNumbers(golden.get("loss") ?? float32([], [])) : [];
    expect(written?.get("loss")?.shape).toEqual([]);
    expect(document.loss).toBeCloseTo(loss ?? 0, 5);
    const gradients = [...(golden?.keys() ?? [])].filter((key) => key.startsWith("grad/"));
    expect([...(written?.keys() ?? [])].sort()).toEqual([...gradients, "loss"].sort());
    for (const key of gradients) expect(written?.get(key)?.shape, key).toEqual(golden?.get(key)?.shape);
  });

  it("trains on batches as they stand, and writes a model that does what was learned", {
    timeout: 60_000,
  }, async () => {
    const out = join(folder, "vit.onnx");
    const { status, document } = await polyhead(
      ...["tune", at("vit.onnx"), "--way", "full", "--npz", at("vit.npz"), "--order", "given"],
      ...["--optimizer", "adam", "--lr", "1e-3", "--steps", "5", "--seed", "0", "-o", out],
    );
    expect(status).toBe(0);
    const golden = readNpz(readFileSync(at("vit.npz")));
    const expected = toNumbers(golden.get("loss") ?? float32([0], []));
    const losses = document.losses as number[];
    losses.forEach((loss, step) => {
      expect(Math.abs(loss / (expected[step] ?? 0) - 1), `step ${step}`).toBeLessThan(2e-3);
    });
    expect(losses).toHaveLength(5);

    // The loss of the written model on the first batch, computed from its logits, is PyTorch's `final`.
    const tuned = await loadModel(out);
    const session = await open(tuned, "all");
    const x = golden.get("x") ?? float32([0], []);
    const first = (x.data as Float32Array).slice(0, 4 * 3 * 64 * 64);
    const logits = (await session.run(new Map([["input", float32([4, 3, 64, 64], first)]]))).get("logits");
    await session.close();
    const numbers = toNumbers(logits ?? float32([0], []));
    const y = toNumbers(golden.get("y") ?? float32([0], []));
    const each = Array.from({ length: 4 }, (_, row) => {
      const own = numbers.slice(row * 10, row * 10 + 10);
      return Math.log(own.reduce((sum, value) => sum + Math.exp(value), 0)) - (own[y[row] ?? 0] ?? 0);
    });
    const loss = each.reduce((sum, value) => sum + value, 0) / 4;
    expect(Math.abs(loss / (toNumbers(golden.get("final") ?? float32([], []))[0] ?? 0) - 1)).toBeLessThan(
      2e-3,
    );
    expect(readMetadata(tuned).provenance).toMatchObject({
      training: {
        ...{ by: "polyhead tune", way: "full", settings: { steps: 5, seed: 0, rate: 1e-3 }, seed: 0 },
        modelRevision: await revisionOf(await loadModel(at("vit.onnx"))),
        versions: { polyhead: expect.any(String), "onnxruntime-node": expect.any(String) },
      },
    });
  });

  it("writes nothing when the loss is lost or the data does not fit", { timeout: 60_000 }, async () => {
    const out = join(folder, "none.onnx");
    const tune = (npz: string, ...more: string[]) =>
      polyhead("tune", at("resnet_basic.onnx"), "--npz", npz, "-o", out, ...more);
    const lost = await tune(at("resnet_basic.npz"), "--optimizer", "sgd", "--lr", "1e30", "--steps", "4");
    expect(lost).toMatchObject({ status: 70, document: { error: { code: "DIVERGED" } } });
    const wrong = join(folder, "wrong.npz");
    await writeFile(wrong, writeNpz({ x: float32([1, 3, 8, 8], new Float32Array(192)) }));
    expect(await tune(wrong)).toMatchObject({ status: 65, document: { error: { code: "INPUT_MISMATCH" } } });
    await writeFile(
      wrong,
      writeNpz({ x: float32([1, 3, 8, 8], new Float32Array(192)), y: float32([2], [0, 1]) }),
    );
    expect(await tune(wrong)).toMatchObject({ status: 65, document: { error: { code: "INPUT_MISMATCH" } } });
    expect(existsSync(out)).toBe(false);
    // Before the training, not after it.
    const folderOut = await polyhead(
      ...["tune", at("resnet_basic.onnx"), "--npz", at("resnet_basic.npz")],
      ...["--steps", "100000", "-o", folder],
    );
    expect(folderOut).toMatchObject({ status: 73, document: { error: { code: "FILE_NOT_WRITTEN" } } });
  });

  it("computes no gradients of what is no number, no class or no batch", { timeout: 60_000 }, async () => {
    const [npz, out] = [join(folder, "odd.npz"), join(folder, "odd-gradients.npz")];
    const image = new Float32Array(3 * 64 * 64).fill(0.5);
    const refused = async (x: Tensor, y: Tensor) => {
      await writeFile(npz, writeNpz({ x, y }));
      const { status, document } = await polyhead(
        "grad",
        at("resnet_basic.onnx"),
        "--npz",
        npz,
        "--out",
        out,
      );
      expect(existsSync(out)).toBe(false);
      return { status, code: (document.error as { code?: string } | undefined)?.code };
    };
    const x = float32([1, 3, 64, 64], image);
    expect(await refused(x, int64([1], [10]))).toEqual({ status: 65, code: "INPUT_MISMATCH" });
    expect(await refused(float32([0, 3, 64, 64], []), int64([0], []))).toEqual({
      ...{ status: 65, code: "INPUT_MISMATCH" },
    });
    const lost = float32([1, 3, 64, 64], image.with(0, Number.NaN));
    expect(await refused(lost, int64([1], [1]))).toEqual({ status: 70, code: "DIVERGED" });
  });
});

describe("what the options say of a step", () => {
  const torch = JSON.parse(
    readFileSync(new URL("../fixtures/gradients/torch.json", import.meta.url), "utf8"),
  );
  const { optimizers } = torch;
  const numbersOf = (tensor: Tensor | undefined) => [...toNumbers(tensor ?? float32([0], []))];
  const off = (got: readonly number[], wanted: readonly number[]) =>
    Math.max(...wanted.map((each, at) => Math.abs(each - (got[at] ?? Number.NaN))));
  const place = (name: string) => join(folder, name);
  beforeAll(async () => {
    const linear = graph("linear", {
      nodes: [
        node("Gemm", ["x", "weight", "bias"], ["logits"], { transB: 1 }),
        node("Softmax", ["logits"], ["probabilities"], { axis: 1 }),
      ],
      inputs: [valueInfo("x", "float32", ["N", 4])],
      outputs: [valueInfo("probabilities", "float32", ["N", 3])],
      weights: [
        weight("weight", float32([3, 4], optimizers.weight)),
        weight("bias", float32([3], optimizers.bias)),
      ],
    });
    await saveModel(place("linear.onnx"), model(linear));
    const y = int64([4, 6], optimizers.y.flat());
    const like = float32(
      [4, 6, 3],
      Float32Array.from({ length: 72 }, (_, at) => Math.sin(at)),
    );
    await writeFile(
      place("linear.npz"),
      writeNpz({ x: float32([4, 6, 4], optimizers.x), y, "y/logits": like }),
    );
  });
  const tune = (...more: string[]) =>
    polyhead(
      ...["tune", place("linear.onnx"), "--npz", place("linear.npz"), "--lr", "0.1", "--steps", "6"],
      ...["-o", place("linear-tuned.onnx"), ...more],
    );
  const weightsNow = async () => {
    const { graph: trained } = await loadModel(place("linear-tuned.onnx"));
    return new Map(trained.initializer.map((each) => [each.name, numbersOf(weightTensor(each))]));
  };

  it.each([
    ["groups", ["--group", "w*t=0.01", "bias=,0.1"], (course: { groups?: boolean }) => course.groups],
    [
      "a moving average",
      ["--optimizer", "sgd", "--average", "0.8"],
      (course: { average?: number }) => course.average,
    ],
    [
      "a momentum that looks ahead",
      ["--optimizer", "sgd", "--momentum", "0.9", "--nesterov", "--weight-decay", "0.01"],
      (course: { optimizer: { nesterov?: boolean } }) => course.optimizer.nesterov,
    ],
    [
      "clipped sums of gradients",
      ["--accumulate", "2", "--clip", "1"],
      (course: { accumulate?: number }) => course.accumulate,
    ],
  ])("is what PyTorch makes of it: %s", { timeout: 30_000 }, async (_, words, isIt) => {
    const { status, document } = await tune(...words);
    expect(status).toBe(0);
    const course = optimizers.courses.find(isIt);
    expect(off(document.losses as number[], course.losses)).toBeLessThan(1e-4);
    const got = await weightsNow();
    for (const key of ["weight", "bias"]) expect(off(got.get(key) ?? [], course[key])).toBeLessThan(1e-4);
  });

  it("goes on after a kill to the same file, byte for byte", { timeout: 60_000 }, async () => {
    const words = (out: string) => [
      ...["tune", place("linear.onnx"), "--npz", place("linear.npz"), "-o", out, "--steps", "240"],
      ...["--order", "shuffled", "--seed", "3", "--average", "0.9", "--accumulate", "2"],
      ...["--schedule", "cosine", "--checkpoint-steps", "4"],
    ];
    const [whole, out] = [place("whole.onnx"), place("killed.onnx")];
    const { losses } = (await polyhead(...words(whole))).document;
    const checkpoint = place("killed.checkpoint");
    const at = async () =>
      Number(/^step-(\d+)/.exec((await readdir(checkpoint).catch(() => []))[1] ?? "")?.[1]);
    await killed(words(out), async () => (await at()) >= 12);
    expect(existsSync(out)).toBe(false);
    expect(await polyhead(...words(out))).toMatchObject({ document: { error: { code: "ALREADY_EXISTS" } } });
    for (const other of [["--lr", "0.5"], ["--recompute"]]) {
      const changed = await polyhead(...words(out), "--resume", ...other);
      expect(changed).toMatchObject({ document: { error: { code: "INVALID_ARGUMENT" } } });
    }
    const { status, document } = await polyhead(...words(out), "--resume");
    expect({ status, losses: document.losses }).toEqual({ status: 0, losses });
    expect(readFileSync(out)).toEqual(readFileSync(whole));
    expect(existsSync(checkpoint)).toBe(false);
  });

  it("brings values near to arrays of their own", { timeout: 30_000 }, async () => {
    const out = place("matched.npz");
    const grad = (...more: string[]) =>
      polyhead("grad", place("linear.onnx"), "--npz", place("linear.npz"), "--out", out, ...more);
    const loss = async (...more: string[]) => Number((await grad(...more)).document.loss);
    const { x, weight: w, bias } = optimizers;
    const squares = Array.from({ length: 18 }, (_, at) => {
      const [row, column] = [Math.floor(at / 3), at % 3];
      const product = [0, 1, 2, 3].reduce((sum, k) => sum + x[row * 4 + k] * w[column * 4 + k], bias[column]);
      return (product - Math.fround(Math.sin(at))) ** 2;
    });
    const matched = squares.reduce((sum, each) => sum + each, 0) / 18;
    expect(await loss("--match", "logits=0.5")).toBeCloseTo((await loss()) + 0.5 * matched, 4);
    expect((await grad("--match", "weight")).document).toMatchObject({ error: { code: "INPUT_MISMATCH" } });
  });

  it("is refused where it would be passed over", { timeout: 30_000 }, async () => {
    for (const words of [
      ["--way", "head"],
      ["--epochs", "3"],
    ]) {
      const { status, document } = await tune(...words);
      expect({ status, document }, words.join(" ")).toMatchObject({
        ...{ status: 64, document: { error: { code: "INVALID_ARGUMENT" } } },
      });
    }
    const refused = (what: () => unknown) =>
      expect(what).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
    refused(() => optimizerOf({ optimizer: "adam", momentum: 0.9 }));
    refused(() => optimizerOf({ optimizer: "sgd", nesterov: true }));
    refused(() => scheduleOf({ schedule: "cosine", milestones: [2] }, { kind: "constant", warmup: 0 }));
    refused(() => lossOf({ loss: "focal", temperature: 2 }));
    expect(lossOf({ loss: "focal", gamma: 1 })).toEqual({ kind: "focal", gamma: 1 });
    expect(readGroup("a=b.*=,0.1", readGroup("w=1e-3"))).toEqual([
      { names: "w", rate: 1e-3 },
      { names: "a=b.*", weightDecay: 0.1 },
    ]);
    for (const wrong of ["w", "=1", "w=", "w=,", "w=-1"]) expect(() => readGroup(wrong)).toThrow();
    for (const wrong of ["1", "-0.1", "", "much"]) expect(() => readDecay(wrong)).toThrow();
    expect([readDecay("0"), readDecay("0.999")]).toEqual([0, 0.999]);
  });
});
