/** Training steps beside PyTorch's, in turns, each in a process of its own; what is missing is left out by name. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { digits, interleave, spread, table } from "./measure.js";
import { threads } from "./models.js";
import { Stepper, startPython } from "./stepper.js";

/** Network, images a step, what is trained; and how many times as fast as PyTorch it should be. */
const CASES = /** @type {const} */ ([
  ["resnet18", 8, "full", 1],
  ["mobilenet_v2", 8, "full", 1],
  ["resnet18", 32, "full", 1],
  ["mobilenet_v2", 32, "full", 1],
  ["resnet18", 8, "probe", 10],
]);

/** @param {{ quick: boolean }} options */
export async function measureTrain({ quick }) {
  const rows = [["step", "ms: median (quartiles)", "PyTorch's", "x as fast", "peak MiB", "PyTorch's"]];
  const results = [];
  const targets = [];
  const notes = [];
  for (const [network, batch, way, least] of CASES) {
    if (quick && batch > 8) continue;
    const name = `${network}, ${batch} images, ${way}`;
    try {
      const measured = await besideTorch(network, batch, way, quick ? 3 : 7);
      const { ours, theirs, peak, torchPeak } = measured;
      const ratio = theirs.median / ours.median;
      rows.push([name, spread(ours), spread(theirs), digits(ratio), String(peak), String(torchPeak)]);
      results.push({ name, ...measured });
      targets.push({ name: `${name}, times as fast as PyTorch`, value: ratio, limit: least, least: true });
    } catch (thrown) {
      notes.push(`skipped: ${name}: ${thrown instanceof Error ? thrown.message : thrown}`);
    }
  }
  return {
    title: `Training steps with Adam at 224 x 224, ${threads} threads; a probe has its features cached`,
    table: [table(rows), ...notes].join("\n"),
    results,
    targets,
  };
}

/**
 * @param {string} network
 * @param {number} batch
 * @param {string} way
 * @param {number} rounds
 */
async function besideTorch(network, batch, way, rounds) {
  const folder = mkdtempSync(join(tmpdir(), "polyhead-bench-"));
  const file = join(folder, "network.onnx");
  const open = [];
  try {
    const trainer = fileURLToPath(new URL("pytorch-train.py", import.meta.url));
    const { stepper: torch } = await startPython([
      trainer,
      String(threads),
      file,
      network,
      String(batch),
      way,
    ]);
    open.push(torch);
    const script = fileURLToPath(new URL("polyhead-train.js", import.meta.url));
    const polyhead = new Stepper(process.execPath, [script, String(threads), file, String(batch), way]);
    open.push(polyhead);
    await polyhead.answer();
    let [peak, torchPeak] = [0, 0];
    const { ours, theirs } = await interleave(
      {
        ours: async () => {
          peak = Number(await polyhead.step());
        },
        theirs: async () => {
          torchPeak = Number(await torch.step());
        },
      },
      { rounds },
    );
    return { ours, theirs, peak, torchPeak };
  } finally {
    for (const each of open) each.close();
    rmSync(folder, { recursive: true });
  }
}
