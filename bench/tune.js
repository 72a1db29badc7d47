/**
 * The ways to train, on the demo's photos of food: head, branch and full, each judged by five folds, with accuracy, cost
 * and time. The backbone is that of the demo's detector, given smaller pictures, so that all of it can be trained in minutes.
 */
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { demoPackages } from "../dist/cli/demo/packages.js";
import { FEWEST_PHOTOS, FOOD_GROUPS } from "../dist/cli/demo/prepare.js";
import { AUGMENTATIONS, listFolder } from "../dist/data/index.js";
import { withGraph } from "../dist/onnx/extract.js";
import { readMetadata, withMetadata } from "../dist/onnx/metadata.js";
import { copyOf, valueInfo } from "../dist/onnx/model.js";
import { OrtWorker } from "../dist/runtime/node/ort-worker.js";
import { Runtime } from "../dist/runtime/runtime.js";
import { DECAYS, tuneImages } from "../dist/tune/index.js";
import { table } from "./measure.js";
import { detector, threads } from "./models.js";

export const TAP = "tower_0/extern1/hard_swish/mul_1";
/** Three of the backbone's eighteen blocks, and the layer behind them. */
const LEAVES_AT = "tower_0/MobilenetV3/expanded_conv_11/add";
/** Small beside the detector's 512, so that all of the network can be trained five times in minutes. */
export const SIDE = 128;
/** The head of every way. */
export const LINEAR_HEAD = /** @type {const} */ ({
  shape: { kind: "linear", hidden: 0 },
  decays: DECAYS,
  isBalanced: false,
  seed: 0,
});

/** @param {{ quick: boolean }} options */
export async function measureTune({ quick }) {
  const folder = mkdtempSync(join(tmpdir(), "polyhead-bench-"));
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    photosInto(join(folder, "photos"), quick ? 12 : Number.POSITIVE_INFINITY);
    const listing = await listFolder(join(folder, "photos"));
    const backbone = smaller((await detector()).backbone);
    const rows = [
      [
        "way",
        "accuracy",
        "parameters",
        "request: operations",
        "ms",
        "weights of its own",
        "trained and judged",
        "kept",
      ],
    ];
    const results = [];
    for (const way of /** @type {const} */ (["head", "branch", "full"])) {
      const { report } = await tuneImages({
        ...{ way, backbone, listing, runtime, threads, versions: {} },
        names: { backbone: "centernet", data: "food" },
        tap: TAP,
        preprocess: JSON.stringify({ range: [0, 255], layout: "nhwc", height: SIDE, width: SIDE }),
        freeze: LEAVES_AT,
        cache: join(folder, "features"),
        judging: { by: "folds", folds: quick ? 3 : 5 },
        head: LINEAR_HEAD,
        tuning: {
          epochs: quick ? 2 : 5,
          batch: 16,
          rate: 1e-4,
          optimizer: { kind: "adam" },
          schedule: { kind: "cosine" },
          augmentation: way === "full" ? AUGMENTATIONS.light : undefined,
        },
      });
      const { accuracy, choice, cost, seconds, parameters } = report;
      results.push({
        way,
        accuracy,
        choice,
        cost,
        seconds,
        parameters: parameters.length,
        stem: report.stem,
        how: report.how,
      });
      rows.push([
        way,
        `${percent(accuracy.mean)} ± ${percent(accuracy.deviation ?? 0)}`,
        String(parameters.length),
        cost.flops.toExponential(2),
        cost.milliseconds.toFixed(2),
        `${(cost.bytes / 2 ** 20).toFixed(2)} MiB`,
        `${seconds.toFixed(0)} s`,
        choice?.kept ?? way,
      ]);
    }
    const [head, , full] = results.map(({ accuracy }) => accuracy.mean);
    return {
      title: `Training on photos of food, ${listing.images.length} of ${listing.labels.length} groups, ${SIDE} x ${SIDE}, ${threads} threads`,
      table: table(rows),
      results,
      targets: [
        {
          name: "full training, head first (LP-FT), is as accurate as the head alone or more",
          value: (full ?? 0) / (head ?? 1),
          limit: 1,
          least: true,
        },
      ],
    };
  } finally {
    await runtime.close();
    rmSync(folder, { recursive: true });
  }
}

/**
 * Photos in one folder a group, each once: the same photo stands for many a food of one group.
 * @param {string} into
 * @param {number} most
 */
export function photosInto(into, most) {
  const { photos } = demoPackages();
  const all = readdirSync(photos).sort();
  for (const [letter, group] of Object.entries(FOOD_GROUPS)) {
    const distinct = new Map(
      all
        .filter((name) => name.startsWith(letter))
        .map((name) => [
          createHash("sha256")
            .update(readFileSync(join(photos, name)))
            .digest("hex"),
          name,
        ]),
    );
    if (distinct.size < FEWEST_PHOTOS) continue;
    mkdirSync(join(into, group), { recursive: true });
    for (const name of [...distinct.values()].slice(0, most)) {
      copyFileSync(join(photos, name), join(into, group, name));
    }
  }
}

/**
 * The backbone for smaller pictures: its layers take any size, only the declaration names one.
 * @param {import("../dist/onnx/model.js").Model} backbone
 */
export function smaller(backbone) {
  const { graph } = backbone;
  const input = graph.input.map(({ name }) => valueInfo(name, "float32", ["batch", SIDE, SIDE, 3]));
  const output = graph.output.map(({ name }) => valueInfo(name, "float32"));
  const { preprocessing } = readMetadata(backbone);
  const main = copyOf(graph, { input, output, valueInfo: [] });
  return withMetadata(withGraph(backbone, main), { taps: undefined, preprocessing });
}

/** @param {number} share */
function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}
