/** Memory for each further linear head; run as a script, it is the process that is measured. */
import { fileURLToPath } from "node:url";
import { digits, table } from "./measure.js";
import { detector, detectorInput, linearHead, openBenchEngine } from "./models.js";
import { runMeasurable, settledRss } from "./respawn.js";

/** @param {{ quick: boolean }} options */
export async function measureMemory({ quick }) {
  const count = quick ? 64 : 256;
  const { code, output } = await runMeasurable(new URL(import.meta.url), [String(count)]);
  if (code !== 0) throw new Error(`The measured process ended with status ${code}.`);
  const results = JSON.parse(output);
  const kib = (/** @type {number} */ bytes) => digits(bytes / 1024);
  const mib = (/** @type {number} */ bytes) => digits(bytes / 1024 ** 2);
  return {
    title: `Resident memory; ${count} linear heads of 480 x 14 (26 KiB) added to 16`,
    table: table([
      ["what", "value"],
      ["process with backbone, detector and 16 heads", `${mib(results.before)} MiB`],
      [`with ${count} heads more`, `${mib(results.after)} MiB`],
      ["each further head", `${kib(results.perHead)} KiB`],
    ]),
    results,
    targets: [],
  };
}

/** @param {number} count */
async function addHeads(count) {
  const { backbone, detectorHead } = await detector();
  const engine = await openBenchEngine();
  await engine.add("backbone", backbone);
  await engine.add("detector", detectorHead);
  for (let at = 0; at < 16; at++) await engine.add(`head ${at}`, linearHead(backbone, at));
  await engine.run(["detector", "head 0"], detectorInput(1));
  const before = await settledRss();
  for (let at = 16; at < 16 + count; at++) await engine.add(`head ${at}`, linearHead(backbone, at));
  const after = await settledRss();
  await engine.close();
  console.log(JSON.stringify({ count, before, after, perHead: (after - before) / count }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await addHeads(Number(process.argv[2] ?? 256));
