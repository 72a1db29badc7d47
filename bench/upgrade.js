/**
 * A backbone is trained fully on one task, and the heads of others follow it: what each keeps through its adapter, what it
 * would be worth without one, and what the adapter adds to a request. The demo's detector backbone and photos of food, which
 * are told apart by group, which is what the backbone is trained on, by kingdom, by shelf and by colour; judged on photos that
 * nothing was trained on.
 */
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { upgradeHeads } from "../dist/adapt/index.js";
import { listFolder } from "../dist/data/index.js";
import { withGraph } from "../dist/onnx/extract.js";
import { withMetadata } from "../dist/onnx/metadata.js";
import { copyOf, valueInfo } from "../dist/onnx/model.js";
import { inferTypes } from "../dist/onnx/shapes.js";
import { splitModel } from "../dist/onnx/split.js";
import { OrtWorker } from "../dist/runtime/node/ort-worker.js";
import { openModelOn } from "../dist/runtime/open-model.js";
import { Runtime } from "../dist/runtime/runtime.js";
import { teachImages } from "../dist/teach/index.js";
import { tuneImages } from "../dist/tune/index.js";
import { table } from "./measure.js";
import { detector, PYRAMID, threads } from "./models.js";
import { LINEAR_HEAD, photosInto, SIDE, smaller, TAP } from "./tune.js";

/**
 * The other tasks: a class for every group.
 * @type {Readonly<Record<string, (group: string) => string>>}
 */
const TASKS = {
  kingdom: (group) => (ANIMALS.includes(group) ? "animal" : "plant"),
  shelf: (group) => {
    if (ANIMALS.includes(group)) return /fish/.test(group) ? "fish" : "meat and eggs";
    if (/vegetables|roots|mushrooms|spices/.test(group)) return "greengrocer";
    return /fruits|nuts/.test(group) ? "fruits and nuts" : "dry goods";
  },
};
const ANIMALS = [
  "milk",
  "egg dishes",
  "poultry",
  "meat",
  "marine fish",
  "shellfish",
  "molluscs",
  "freshwater fish",
];
/** How warm a photo is: thirds of them, by how much more red than blue it has. */
const COLOURS = ["cold", "neutral", "warm"];
/** Every third photo is kept aside. */
const KEPT_ASIDE = 3;

/** @param {{ quick: boolean }} options */
export async function measureUpgrade({ quick }) {
  const folder = mkdtempSync(join(tmpdir(), "polyhead-bench-"));
  const runtime = await Runtime.open(() => OrtWorker.start());
  const at = (/** @type {string[]} */ ...parts) => join(folder, ...parts);
  try {
    photosInto(at("all"), quick ? 18 : Number.POSITIVE_INFINITY);
    const counts = await deal(folder);
    const preprocessing = { range: [0, 255], layout: "nhwc", height: SIDE, width: SIDE };
    const { backbone: from } = await splitModel(
      declared(smaller((await detector()).backbone), preprocessing),
      {
        at: PYRAMID,
      },
    );
    const open = openModelOn(runtime);
    const common = { open, cache: at("features") };
    const heads = [];
    for (const route of [...Object.keys(TASKS), "colour"]) {
      const { model } = await teachImages({ ...common, backbone: from, tap: TAP, data: at("learn", route) });
      heads.push({ route, head: model, data: at("learn", route), test: at("test", route) });
    }
    const tuned = await tuneImages({
      ...{ way: "full", backbone: from, runtime, threads, versions: {}, tap: TAP },
      listing: await listFolder(at("learn", "group")),
      names: { backbone: "centernet", data: "groups" },
      judging: { by: "held-back", share: 0.2 },
      head: LINEAR_HEAD,
      tuning: {
        epochs: quick ? 4 : 10,
        batch: 16,
        rate: 3e-4,
        optimizer: { kind: "adam" },
        schedule: { kind: "cosine" },
      },
    });
    const { backbone: to, report: training } = tuned;
    if (!to || training.choice?.kept === "head")
      throw new Error("Full training did not make another backbone.");
    const { routes } = await upgradeHeads({ ...common, from, to, heads, floor: 0 });
    const rows = routes.map(({ route, quality, unadapted, chosen, added = 0, why }) => {
      if (!quality || !unadapted) throw new Error(`${route}: ${why}`);
      return { route, quality, unadapted, chosen, added };
    });
    return {
      title: `Three heads follow a backbone that was trained fully on food groups: ${counts.learn} photos of ${SIDE} x ${SIDE} to learn from, judged on ${counts.test} others`,
      table: table([
        [
          "head",
          "before",
          "on the new backbone, through its adapter",
          "without",
          "kept",
          "kept without",
          "map",
          "adds",
        ],
        ...rows.map(({ route, quality, unadapted, chosen, added }) => [
          route,
          withInterval(quality.nativeAccuracy),
          withInterval(quality.accuracy),
          withInterval(unadapted.accuracy),
          percent(quality.kept),
          percent(unadapted.kept),
          `${chosen?.rung} on ${chosen?.tap.split("/").at(-1)}`,
          `${(100 * added).toFixed(3)} %`,
        ]),
      ]),
      results: {
        counts,
        rows,
        training: { accuracy: training.accuracy, choice: training.choice, seconds: training.seconds },
      },
      targets: [
        {
          name: "least share of a head's accuracy that its adapter keeps",
          value: Math.min(...rows.map(({ quality }) => quality.kept)),
          limit: 0.95,
          least: true,
        },
        {
          name: "most operations that an adapter adds to a request, share",
          value: Math.max(...rows.map(({ added }) => added)),
          limit: 0.01,
        },
      ],
    };
  } finally {
    await runtime.close();
    rmSync(folder, { recursive: true });
  }
}

/**
 * `learn` and `test`, each with a folder a task.
 * @param {string} folder
 */
async function deal(folder) {
  const counts = { learn: 0, test: 0 };
  const dealt = readdirSync(join(folder, "all")).flatMap((group) =>
    readdirSync(join(folder, "all", group))
      .sort()
      .map((name, at) => ({ group, name, isTest: at % KEPT_ASIDE === KEPT_ASIDE - 1 })),
  );
  const warmth = new Map();
  for (const { group, name } of dealt) {
    const { channels } = await sharp(join(folder, "all", group, name)).stats();
    warmth.set(name, (channels[0]?.mean ?? 0) - (channels[2]?.mean ?? 0));
  }
  const ranked = [...warmth.keys()].sort((a, b) => warmth.get(a) - warmth.get(b));
  const ranks = new Map(ranked.map((name, at) => [name, at]));
  for (const { group, name, isTest } of dealt) {
    const part = isTest ? "test" : "learn";
    counts[part]++;
    const colour = COLOURS[Math.floor((COLOURS.length * (ranks.get(name) ?? 0)) / ranked.length)] ?? "";
    const classes = Object.entries(TASKS).map(([task, of]) => [task, of(group)]);
    for (const [task = "", label = ""] of [["group", group], ["colour", colour], ...classes]) {
      mkdirSync(join(folder, part, task, label), { recursive: true });
      copyFileSync(join(folder, "all", group, name), join(folder, part, task, label, name));
    }
  }
  return counts;
}

/**
 * The backbone with the shapes of its outputs, which a split asks for.
 * @param {import("../dist/onnx/model.js").Model} backbone
 * @param {Readonly<Record<string, unknown>>} preprocessing
 */
function declared(backbone, preprocessing) {
  const types = inferTypes(backbone);
  const output = backbone.graph.output.map(({ name }) => valueInfo(name, "float32", types.get(name)?.shape));
  return withMetadata(withGraph(backbone, copyOf(backbone.graph, { output })), { preprocessing });
}

/** @param {number} share */
function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

/** @param {{ value: number, low: number, high: number } | undefined} share */
function withInterval(share) {
  return share ? `${percent(share.value)} (${percent(share.low)} to ${percent(share.high)})` : "";
}
