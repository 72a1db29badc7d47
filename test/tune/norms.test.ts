/** Batch norms in batch mode, the ways to train through: which statistics move, what stays, and what is written down. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readCocoFile } from "../../src/data/coco-file.js";
import { writeShapes } from "../../src/data/shapes.js";
import { listFolder } from "../../src/data/source.js";
import { identify } from "../../src/onnx/identity.js";
import { joinModels } from "../../src/onnx/join.js";
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import type { Model } from "../../src/onnx/model.js";
import { revisionOf } from "../../src/onnx/revision.js";
import { splitModel } from "../../src/onnx/split.js";
import { weightTensor } from "../../src/onnx/weight.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { bytesOf } from "../../src/tensor/tensor.js";
import { Network } from "../../src/train/network.js";
import { tuneDetector } from "../../src/tune/detect/tune-detector.js";
import { type TuneImagesOptions, tuneImages } from "../../src/tune/tune-images.js";
import { SHORT, writeStripes } from "./stripes.js";

const SIDE = 48;
let folder: string;
let runtime: Runtime;
let backbone: Model;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tune-norms-"));
  await writeStripes(join(folder, "photos"), 16);
  runtime = await Runtime.open(() => OrtWorker.start());
  backbone = await features(true);
});
afterAll(async () => {
  await runtime.close();
  await rm(folder, { recursive: true });
});

/** Two convolutions with random weights, with a batch norm behind each or without; taps `c1` and `c2`. */
async function features(hasNorms: boolean): Promise<Model> {
  const net = new Network(7);
  const layer = (name: string, x: ReturnType<Network["input"]>, channels: number, stride: number) => {
    const made = net.convolution(`${name}.conv`, x, channels, { stride });
    return net.relu(name, hasNorms ? net.batchNorm(`${name}.norm`, made) : made);
  };
  const c1 = layer("c1", net.input("image", ["N", 3, SIDE, SIDE]), 4, 4);
  const c2 = layer("c2", c1, 4, 2);
  const preprocessing = { height: SIDE, width: SIDE, range: [-1, 1] };
  const whole = withMetadata(net.model("features", [c1, c2]), { preprocessing });
  return (await splitModel(whole, { at: ["c1", "c2"] })).backbone;
}

/** The bytes of all running statistics in a model, by name. */
function statistics({ graph }: Model) {
  const running = graph.initializer.filter(({ name }) => name.includes(".running_"));
  return Object.fromEntries(
    running.map((each) => [each.name, Buffer.from(bytesOf(weightTensor(each))).toString("hex")]),
  );
}

const TUNING = { ...SHORT.tuning, epochs: 20, rate: 1e-2, patience: 20 };

async function tune(changes: Partial<TuneImagesOptions>) {
  return tuneImages({
    ...{ way: "branch", freeze: "c1", tap: "c2", backbone, runtime },
    listing: await listFolder(join(folder, "photos")),
    ...SHORT,
    tuning: { ...TUNING, norms: "batch" },
    ...changes,
  });
}

describe("a branch in batch mode", () => {
  it("has statistics of its own behind the stem, which stays as it is", async () => {
    const { head, report } = await tune({});
    expect(report).toMatchObject({ from: "c1", choice: { kept: "trained" } });
    expect(report.parameters).toContain("c2.norm.weight");
    expect(report.parameters.join()).not.toContain("running");
    const [before, after] = [statistics(backbone), statistics(head)];
    expect(Object.keys(after).sort()).toEqual(["c2.norm.running_mean", "c2.norm.running_var"]);
    for (const [name, value] of Object.entries(after)) expect(value, name).not.toBe(before[name]);
    expect(readMetadata(head).taps).toMatchObject([
      { name: "c1", identity: (await identify(backbone)).get("c1") },
    ]);
    expect(readMetadata(head).provenance).toMatchObject({ settings: { tuning: { norms: "batch" } } });
    await joinModels(backbone, head);

    const again = await tune({});
    expect(await revisionOf(again.head)).toBe(await revisionOf(head));
    const frozen = await tune({ tuning: TUNING });
    expect(frozen.report.from).toBe("c1");
    for (const [name, value] of Object.entries(statistics(frozen.head)))
      expect(value, name).toBe(before[name]);
  });

  it("is measured at several depths", async () => {
    const { report } = await tune({ freeze: { depths: 2 } });
    expect(report.depths?.map(({ from }) => from)).toEqual(["c2", "c1"]);
  });

  it.each([["branch"], ["full"]] as const)("is refused where nothing has batch norms: %s", async (way) => {
    const plain = await features(false);
    await expect(tune({ way, backbone: plain })).rejects.toMatchObject({ code: "MODEL_UNSUPPORTED" });
  });
});

it("full training in batch mode gives a backbone whose statistics are those of its own features", async () => {
  const { backbone: made, report } = await tune({ way: "full" });
  if (!made) throw new Error("there is no backbone");
  expect(report.choice?.kept).toBe("trained");
  const [before, after] = [statistics(backbone), statistics(made)];
  expect(Object.keys(after).sort()).toEqual(Object.keys(before).sort());
  for (const [name, value] of Object.entries(after)) expect(value, name).not.toBe(before[name]);
});

it("a detector is trained in batch mode as a whole, and refused where its head alone is", async () => {
  const listing = await readCocoFile(
    await writeShapes(join(folder, "shapes"), 24, { seed: 1, width: SIDE, height: SIDE, most: 2 }),
  );
  const detect = (trains: "head" | "all") =>
    tuneDetector({
      ...{ backbone, listing, runtime, threads: 2, seed: 0, trains, norms: "batch", preprocess: undefined },
      ...{ width: 8, epochs: 1, batch: 8, rate: 1e-3, optimizer: { kind: "adam" } },
    });
  const { model, report } = await detect("all");
  expect(report.settings).toMatchObject({ norms: "batch" });
  expect(readMetadata(model).provenance).toMatchObject({ settings: { norms: "batch" } });
  // Joining stored zeros and ones once, the statistics among them; now each norm has its own.
  const norms = model.graph.node.filter(({ opType }) => opType === "BatchNormalization");
  const values = new Map(model.graph.initializer.map((each) => [each.name, each]));
  const kept = norms.flatMap(({ input }) => input.slice(3).flatMap((name) => values.get(name) ?? []));
  expect(new Set(kept).size).toBe(4);
  for (const each of kept)
    expect([...weightTensor(each).data].some((value) => value !== 0 && value !== 1)).toBe(true);
  await expect(detect("head")).rejects.toMatchObject({ code: "MODEL_UNSUPPORTED" });
});
