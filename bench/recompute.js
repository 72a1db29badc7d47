/**
 * What activations that are computed again save, and what they cost: steps of Adam with and without, in turns, each in a
 * process of its own. PyTorch makes the networks; without it nothing is measured.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { digits, interleave, spread, table } from "./measure.js";
import { threads } from "./models.js";
import { Stepper, startPython } from "./stepper.js";

/** Network, images a step, and what batch norms do. */
const CASES = /** @type {const} */ ([
  ["mobilenet_v2", 32, "batch"],
  ["densenet121", 16, "frozen"],
  ["mobilenet_v2", 32, "frozen"],
  ["resnet18", 32, "frozen"],
]);
const POLYHEAD = fileURLToPath(new URL("polyhead-train.js", import.meta.url));
const PYTORCH = fileURLToPath(new URL("pytorch-train.py", import.meta.url));

/** @param {{ quick: boolean }} options */
export async function measureRecompute({ quick }) {
  const rows = [["step", "kept, ms", "again, ms", "time", "kept, peak MiB", "again, peak MiB", "memory"]];
  const results = [];
  const notes = [];
  for (const [network, batch, norms] of quick ? CASES.slice(0, 1) : CASES) {
    const name = `${network}, ${batch} images, norms ${norms}`;
    try {
      const measured = await inTurns(network, batch, norms, quick ? 2 : 4);
      const { kept, again, peaks } = measured;
      const time = again.median / kept.median;
      const memory = peaks.again / peaks.kept;
      rows.push([
        ...[name, spread(kept), spread(again), digits(time)],
        ...[String(peaks.kept), String(peaks.again), digits(memory)],
      ]);
      results.push({ name, ...measured });
    } catch (thrown) {
      notes.push(`skipped: ${name}: ${thrown instanceof Error ? thrown.message : thrown}`);
    }
  }
  return {
    title: `Activations kept, or computed again in the backward part; 224 x 224, ${threads} threads`,
    table: [table(rows), ...notes].join("\n"),
    results,
    targets: [],
  };
}

/**
 * @param {string} network
 * @param {number} batch
 * @param {string} norms
 * @param {number} rounds
 */
async function inTurns(network, batch, norms, rounds) {
  const folder = mkdtempSync(join(tmpdir(), "polyhead-bench-"));
  const file = join(folder, "network.onnx");
  const open = /** @type {Stepper[]} */ ([]);
  try {
    const { stepper: torch } = await startPython([PYTORCH, String(threads), file, network, "2", "full"]);
    torch.close();
    const peaks = { kept: 0, again: 0 };
    const start = async (/** @type {keyof typeof peaks} */ which) => {
      const stepper = new Stepper(process.execPath, [
        ...[POLYHEAD, String(threads), file, String(batch), "full", norms],
        ...(which === "again" ? ["recompute"] : []),
      ]);
      open.push(stepper);
      await stepper.answer();
      return async () => {
        peaks[which] = Number(await stepper.step());
      };
    };
    const times = await interleave({ kept: await start("kept"), again: await start("again") }, { rounds });
    return { ...times, peaks };
  } finally {
    for (const each of open) each.close();
    rmSync(folder, { recursive: true });
  }
}
