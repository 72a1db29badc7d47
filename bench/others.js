/** The same detector in TF.js, and a network in PyTorch, beside the engine; what is missing is left out by name. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadModel } from "../dist/index.js";
import { float32 } from "../dist/tensor/tensor.js";
import { digits, interleave, spread, table } from "./measure.js";
import { detector, detectorFolder, detectorInput, openBenchEngine, threads } from "./models.js";
import { startPython } from "./stepper.js";

const DETECTIONS = "tower_0/detections";

/** @param {{ quick: boolean }} options */
export async function measureOthers({ quick }) {
  const rounds = quick ? 4 : 20;
  const tfjs = await measureTfjs(rounds);
  const torch = await measureTorch(Math.min(rounds, 8));
  const rows = [...tfjs.rows, ...torch.rows];
  return {
    title: `Other runtimes; ${threads} threads where they take threads`,
    table: [table([["case", "ms: median (quartiles)", "x engine"], ...rows]), ...torch.notes].join("\n"),
    results: { tfjs: tfjs.results, torch: torch.results },
    targets: [],
  };
}

/** @param {number} rounds */
async function measureTfjs(rounds) {
  const tf = await import("@tensorflow/tfjs-core");
  const { loadGraphModel } = await import("@tensorflow/tfjs-converter");
  const { setWasmPaths } = await import("@tensorflow/tfjs-backend-wasm");
  const require = createRequire(import.meta.url);
  setWasmPaths(`${dirname(require.resolve("@tensorflow/tfjs-backend-wasm"))}/`);
  await tf.setBackend("wasm");
  const json = JSON.parse(readFileSync(join(detectorFolder, "centernet.json"), "utf8"));
  const weights = readFileSync(join(detectorFolder, "centernet.bin"));
  const network = await loadGraphModel({
    load: async () => ({
      modelTopology: json.modelTopology,
      signature: json.signature,
      weightSpecs: json.weightsManifest.flatMap((/** @type {{ weights: object[] }} */ each) => each.weights),
      weightData: Uint8Array.from(weights).buffer,
    }),
  });
  const input = detectorInput(1);
  const image = tf.tensor(/** @type {Float32Array} */ (input.data), [...input.shape], "float32");
  const { backbone, detectorHead } = await detector();
  const engine = await openBenchEngine(0);
  await engine.add("backbone", backbone);
  await engine.add("detector", detectorHead);
  const ours = "engine: the detector";
  const theirs = "TF.js (wasm, 1 thread): the detector";
  const results = await interleave(
    {
      [ours]: () => engine.run(["detector"], input),
      [theirs]: async () => {
        const result = network.execute(image, DETECTIONS);
        const [detections] = Array.isArray(result) ? result : [result];
        await detections?.data();
        detections?.dispose();
      },
    },
    { rounds },
  );
  await engine.close();
  return { results, rows: rowsOf(results, ours) };
}

/** @param {number} rounds */
async function measureTorch(rounds) {
  const folder = mkdtempSync(join(tmpdir(), "polyhead-bench-"));
  const file = join(folder, "network.onnx");
  const script = fileURLToPath(new URL("pytorch.py", import.meta.url));
  try {
    const { stepper, first } = await startPython([script, String(threads), file]);
    try {
      return await besideTorch(stepper, JSON.parse(first), file, rounds);
    } finally {
      stepper.close();
    }
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : thrown;
    return { results: undefined, rows: [], notes: [`skipped: PyTorch: ${reason}`] };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/**
 * The engine on the network that PyTorch exported, in turns with PyTorch.
 * @param {import("./stepper.js").Stepper} torch
 * @param {{ version: string, cases: string[] }} offer what it says first
 * @param {string} file
 * @param {number} rounds
 */
async function besideTorch(torch, { version, cases }, file, rounds) {
  const engine = await openBenchEngine(0);
  await engine.add("network", await loadModel(file));
  const image = float32([1, 3, 224, 224], new Float32Array(3 * 224 * 224).fill(0.5));
  const ours = "engine: MobileNetV3 and 1 head";
  const theirs = cases.map((name) => [`PyTorch ${version}: MobileNetV3, ${name}`, () => torch.step(name)]);
  const results = await interleave(
    { [ours]: () => engine.run(["network"], image), ...Object.fromEntries(theirs) },
    { rounds },
  );
  await engine.close();
  return { results, rows: rowsOf(results, ours), notes: [] };
}

/**
 * @param {Readonly<Record<string, import("./measure.js").Summary>>} results
 * @param {string} base
 */
function rowsOf(results, base) {
  const unit = results[base]?.median ?? Number.NaN;
  return Object.entries(results).map(([name, summary]) => [
    name,
    spread(summary),
    digits(summary.median / unit),
  ]);
}
