/** `--norms batch` of `tune` and `grad`: what PyTorch makes of it, kills in between, and where it is refused. */
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { loadModel } from "../../src/files/disk.js";
import { readMetadata } from "../../src/onnx/metadata.js";
import { weightTensor } from "../../src/onnx/weight.js";
import { readNpz, writeNpz } from "../../src/tensor/npz.js";
import { float32, int64, toNumbers } from "../../src/tensor/tensor.js";
import { killed, polyhead as run } from "./command.js";

const fixtures = fileURLToPath(new URL("../fixtures", import.meta.url));
const network = join(fixtures, "batch-norms", "two-norms.onnx");
const [course] = JSON.parse(readFileSync(join(fixtures, "batch-norms", "courses.json"), "utf8"));
const STEPS = 5;
let folder: string;
const place = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tune-norms-"));
  const shape = [STEPS, ...course.shape];
  const count = shape.reduce((product, size) => product * size, 1);
  const x = Float32Array.from(
    { length: count },
    (_, i) => ((((i * i) % 65537) * 2654435761) % 2 ** 32) / 2 ** 31 - 1,
  );
  const y = int64([STEPS, course.shape[0]], course.y.flat());
  await writeFile(place("data.npz"), writeNpz({ x: float32(shape, x), y }));
});
afterAll(() => rm(folder, { recursive: true }));

async function polyhead(...words: string[]) {
  const { status, stdout } = await run(...words, "--json");
  return { status, document: JSON.parse(stdout) as Record<string, unknown> };
}

const tune = (...more: string[]) =>
  polyhead(
    ...["tune", network, "--npz", place("data.npz"), "--optimizer", "sgd", "--momentum", "0.9"],
    ...["--lr", String(course.rate), "--steps", String(STEPS), ...more],
  );

it("trains as PyTorch does in training mode, and says which statistics followed", async () => {
  const out = place("tuned.onnx");
  const { status, document } = await tune("--norms", "batch", "-o", out);
  expect(status).toBe(0);
  const losses = [...(document.losses as number[]), document.final as number];
  [...course.losses, course.final].forEach((expected, at) => {
    expect(Math.abs((losses[at] ?? 0) / expected - 1), `loss ${at}`).toBeLessThan(2e-3);
  });
  const names = Object.keys(course.state);
  const statistics = names.filter((name) => name.includes("running"));
  expect((document.statistics as string[]).toSorted()).toEqual(statistics.toSorted());
  expect((document.parameters as string[]).toSorted()).toEqual(
    names.filter((name) => !statistics.includes(name)).toSorted(),
  );
  const tuned = await loadModel(out);
  for (const name of statistics) {
    const found = tuned.graph.initializer.find((each) => each.name === name);
    const values = found ? toNumbers(weightTensor(found)) : [];
    expect(Math.abs(Math.hypot(...values) / course.state[name][0] - 1), name).toBeLessThan(2e-3);
  }
  expect(readMetadata(tuned).provenance).toMatchObject({ training: { settings: { norms: "batch" } } });

  const frozen = await tune("-o", out);
  expect(frozen.document.statistics).toBeUndefined();
  expect((frozen.document.losses as number[])[0]).not.toBeCloseTo(course.losses[0], 2);
  expect(readMetadata(await loadModel(out)).provenance).toMatchObject({
    training: { settings: { norms: "frozen" } },
  });
});

it("computes gradients through the batch's statistics", async () => {
  const words = ["grad", network, "--npz", place("data.npz"), "--out", place("g.npz")];
  const { document } = await polyhead(...words, "--norms", "batch");
  expect(document.loss).toBeCloseTo(course.losses[0], 5);
  // A norm takes away what is the same in all images: the weights before it have no influence by their size.
  const gradient = toNumbers(readNpz(readFileSync(place("g.npz"))).get("grad/0.weight") ?? float32([0], []));
  const found = (await loadModel(network)).graph.initializer.find(({ name }) => name === "0.weight");
  const values = found ? toNumbers(weightTensor(found)) : [];
  const along = gradient.reduce((sum, each, at) => sum + each * (values[at] ?? 0), 0);
  expect(Math.abs(along)).toBeLessThan(1e-4 * Math.hypot(...gradient) * Math.hypot(...values));
});

it("goes on after a kill to the same file, byte for byte", { timeout: 60_000 }, async () => {
  const words = (out: string) => [
    ...["tune", network, "--npz", place("data.npz"), "-o", out, "--steps", "120", "--norms", "batch"],
    ...["--order", "shuffled", "--average", "0.9", "--accumulate", "2", "--checkpoint-steps", "4"],
  ];
  const [whole, out] = [place("whole.onnx"), place("killed.onnx")];
  const { losses } = (await polyhead(...words(whole))).document;
  const at = async () =>
    Number(/^step-(\d+)/.exec((await readdir(place("killed.checkpoint")).catch(() => []))[1] ?? "")?.[1]);
  await killed(words(out), async () => (await at()) >= 12);
  expect(existsSync(out)).toBe(false);
  const changed = await polyhead(...words(out), "--resume", "--norms", "frozen");
  expect(changed).toMatchObject({ document: { error: { code: "INVALID_ARGUMENT" } } });
  const { status, document } = await polyhead(...words(out), "--resume");
  expect({ status, losses: document.losses }).toEqual({ status: 0, losses });
  expect(readFileSync(out)).toEqual(readFileSync(whole));
});

it("is refused for a head, where the exporter folded norms away, and for one value a channel", async () => {
  const out = place("none.onnx");
  const head = await polyhead(
    "tune",
    network,
    "--way",
    "head",
    "--data",
    folder,
    "--norms",
    "batch",
    "-o",
    out,
  );
  expect(head).toMatchObject({ status: 64, document: { error: { code: "INVALID_ARGUMENT" } } });
  const folded = join(fixtures, "architectures", "resnet.onnx");
  const words = ["--npz", place("data.npz"), "--norms", "batch"];
  const refused = { status: 65, document: { error: { code: "MODEL_UNSUPPORTED" } } };
  expect(await polyhead("tune", folded, ...words, "-o", out)).toMatchObject(refused);
  expect(await polyhead("grad", folded, ...words, "--out", out)).toMatchObject(refused);
  const one = place("one.npz");
  await writeFile(one, writeNpz({ x: float32([1, 3, 32, 32], new Float32Array(3072)), y: int64([1], [0]) }));
  expect(await polyhead("tune", network, "--npz", one, "--norms", "batch", "-o", out)).toMatchObject({
    status: 65,
    document: { error: { code: "INPUT_MISMATCH", message: expect.stringContaining("one value a channel") } },
  });
  expect(existsSync(out)).toBe(false);
});
