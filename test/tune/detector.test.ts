/** Detectors trained on boxes: how good they become, what stays as it was, and that a server answers with boxes. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readCocoFile } from "../../src/data/coco-file.js";
import type { BoxListing } from "../../src/data/listing.js";
import { SHAPE_LABELS, shapesPicture, writeShapes } from "../../src/data/shapes.js";
import { identify } from "../../src/onnx/identity.js";
import { joinModels } from "../../src/onnx/join.js";
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import type { Model } from "../../src/onnx/model.js";
import { readModel } from "../../src/onnx/read.js";
import { splitModel } from "../../src/onnx/split.js";
import { modelBytes } from "../../src/onnx/write.js";
import { OrtWorker } from "../../src/runtime/node/ort-worker.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { startHttp } from "../../src/server/http/start-http.js";
import { Network } from "../../src/train/network.js";
import { type TuneDetectorOptions, tuneDetector } from "../../src/tune/detect/tune-detector.js";
import { intersectionOverUnion, type ObjectBox } from "../../src/vision/detections.js";
import { deploy, endDeployments, newFolder } from "../server/small-deployment.js";

const SIDE = 64;
const PICTURES = { seed: 1, width: SIDE, height: SIDE, most: 2 };
let folder: string;
let runtime: Runtime;
let listing: BoxListing;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "detector-"));
  runtime = await Runtime.open(() => OrtWorker.start());
  listing = await readCocoFile(await writeShapes(folder, 240, PICTURES));
});
afterAll(async () => {
  await runtime.close();
  await endDeployments();
  await rm(folder, { recursive: true });
});

/** Random features at strides 4 and 8. */
async function backbone(): Promise<Model> {
  const net = new Network(7);
  const image = net.input("image", ["N", 3, SIDE, SIDE]);
  const first = net.relu("relu1", net.convolution("conv1", image, 16, { stride: 2 }));
  const fine = net.relu("fine", net.convolution("conv2", first, 32, { stride: 2 }));
  const coarse = net.relu("coarse", net.convolution("conv3", fine, 32, { stride: 2 }));
  const preprocessing = { height: SIDE, width: SIDE, range: [-1, 1] };
  const whole = withMetadata(net.model("features", [fine, coarse]), { preprocessing });
  return (await splitModel(whole, { at: ["fine", "coarse"] })).backbone;
}

async function tune(changes: Partial<TuneDetectorOptions> = {}) {
  return tuneDetector({
    ...{ backbone: await backbone(), listing, runtime, threads: 2, seed: 0 },
    ...{ width: 24, epochs: 14, batch: 8, rate: 8e-3, clipNorm: 10 },
    ...{ optimizer: { kind: "adam" }, schedule: { kind: "cosine", warmup: 15 } },
    ...changes,
  });
}

describe("a detection head on a frozen backbone", () => {
  let model: Model;
  let features: Model;

  beforeAll(async () => {
    features = await backbone();
    const made = await tune();
    model = made.model;
    expect(made.report).toMatchObject({
      ...{ labels: SHAPE_LABELS, taps: ["fine", "coarse"], stride: 4, problems: [] },
      images: { training: 191, validation: 49 },
    });
    // Untrained it finds next to nothing, see below.
    expect(made.report.quality.ap50).toBeGreaterThan(0.3);
  }, 180_000);

  it("finds next to nothing before it is trained", async () => {
    const { report } = await tune({ epochs: 1, rate: 1e-9 });
    expect(report.quality.ap50).toBeLessThan(0.02);
  });

  it("reads the backbone's own values, which nothing changed", async () => {
    const { role, taps, task, labels, decoding, quality } = readMetadata(model);
    expect({ role, task, labels }).toEqual({ role: "head", task: "detection", labels: SHAPE_LABELS });
    expect(decoding).toMatchObject({ arrangement: "centres", stride: 4 });
    expect(quality).toMatchObject({ measure: "average precision" });
    const identities = await identify(features);
    expect(taps?.map(({ identity }) => identity)).toEqual(
      ["fine", "coarse"].map((name) => identities.get(name)),
    );
    // Joining proves it, and the head is an ordinary file.
    const read = await readModel(modelBytes(model));
    expect((await joinModels(features, read)).graph.output.map(({ name }) => name)).toEqual([
      "heat",
      "size",
      "offset",
    ]);
  });

  it("answers a PNG with boxes of the picture", async () => {
    const service = await deploy(await newFolder());
    await service.keep(features, "backbone.onnx");
    await service.putLive(model, "shapes", { by: "test" });
    const server = await startHttp(service, { port: 0, logger: pino({ level: "silent" }) });
    try {
      let [objects, found] = [0, 0];
      for (let at = 0; at < 20; at++) {
        const body = await readFile(join(folder, `${String(at).padStart(4, "0")}.png`));
        const answer = await fetch(`${server.address}/v2/models/shapes/infer`, {
          ...{ method: "POST", body, headers: { "content-type": "image/png" } },
        });
        expect(answer.status).toBe(200);
        const { detections } = ((await answer.json()) as Answer).routes.shapes;
        for (const object of shapesPicture(at, PICTURES).objects) {
          objects++;
          if (detections.some((each) => isOn(each, object))) found++;
        }
      }
      expect(found / objects).toBeGreaterThan(0.4);
    } finally {
      await server.close();
    }
  });
});

interface Answer {
  readonly routes: {
    readonly shapes: {
      readonly detections: readonly {
        readonly label: string;
        readonly box: { readonly x1: number; readonly y1: number; readonly x2: number; readonly y2: number };
      }[];
    };
  };
}

function isOn({ label, box }: Answer["routes"]["shapes"]["detections"][number], object: ObjectBox): boolean {
  return label === SHAPE_LABELS[object.classIndex] && intersectionOverUnion(box, object) >= 0.5;
}

describe("a detector trained as a whole", () => {
  it("is a model of its own, the same for the same seed", async () => {
    const small = {
      trains: "all",
      epochs: 1,
      listing: { ...listing, images: listing.images.slice(0, 24) },
    } as const;
    const [once, again] = [await tune(small), await tune(small)];
    expect(modelBytes(again.model)).toEqual(modelBytes(once.model));
    expect(readMetadata(once.model)).toMatchObject({ task: "detection" });
    expect(readMetadata(once.model).role).toBeUndefined();
    const [before, after] = [await identify(await backbone()), await identify(once.model)];
    expect(after.get("fine")).not.toBe(before.get("fine"));
  });
});

describe("what cannot be trained is refused", () => {
  it.each([
    ["a value that is no map", { taps: ["flat"] }, /"flat": it is no value/],
    [
      "a size that the maps do not divide",
      { preprocess: '{"height":64,"width":63}' },
      /takes|whole multiple/,
    ],
    ["nothing to judge by", { validation: 0 }, /held back to judge by/],
    ["a rate that leads nowhere", { rate: 1e30, epochs: 2 }, /loss of step/],
  ] as const)("%s", async (_, changes, message) => {
    await expect(tune(changes)).rejects.toThrow(message);
  });
});
