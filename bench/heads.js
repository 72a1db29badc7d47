/** Many heads on one input: the engine against the whole model, run once and run once for each head. */
import { digits, interleave, spread, table } from "./measure.js";
import { detector, detectorInput, linearHead, openBenchEngine, openMonolith, threads } from "./models.js";

const COUNTS = [1, 4, 16, 64, 256];

/** @param {{ quick: boolean }} options */
export async function measureHeads({ quick }) {
  const { whole, backbone, detectorHead } = await detector();
  const input = detectorInput(1);
  const engine = await openBenchEngine(0);
  const monoliths = /** @type {Awaited<ReturnType<typeof openMonolith>>[]} */ ([]);
  for (let count = 0; count < 4; count++) monoliths.push(await openMonolith(whole));
  const [monolith = await openMonolith(whole)] = monoliths;
  await engine.add("backbone", backbone);
  await engine.add("detector", detectorHead);
  const routes = Array.from({ length: Math.max(...COUNTS) }, (_, at) => `head ${at}`);
  const loads = [];
  for (const [at, route] of routes.entries()) {
    const head = linearHead(backbone, at);
    const start = performance.now();
    await engine.add(route, head);
    loads.push(performance.now() - start);
  }
  const runs = (/** @type {string[]} */ names) => () => engine.run(names, input);
  const results = await interleave(
    /** @type {Record<string, () => Promise<unknown>>} */ ({
      "monolith, run once": () => monolith.run(input),
      "4 monoliths": async () => {
        for (const each of monoliths) await each.run(input);
      },
      ...Object.fromEntries(
        COUNTS.map((count) => [`engine, ${count} linear heads`, runs(routes.slice(0, count))]),
      ),
      "engine, detector": runs(["detector"]),
      "engine, detector and 16 linear heads": runs(["detector", ...routes.slice(0, 16)]),
    }),
    { rounds: quick ? 5 : 25 },
  );
  await engine.close();
  for (const each of monoliths) await each.release();

  const median = (/** @type {string} */ name) => results[name]?.median ?? Number.NaN;
  const one = median("monolith, run once");
  const four = median("4 monoliths");
  const rows = Object.entries(results).map(([name, summary]) => [
    name,
    spread(summary),
    digits(summary.median / one),
  ]);
  for (const count of COUNTS.filter((each) => each > 4))
    rows.push([
      `${count} monoliths (${count / 4} times the time of 4)`,
      digits((four * count) / 4),
      digits((four * count) / 4 / one),
    ]);
  return {
    title: `Heads on one input; no feature cache, ${threads} threads, ${COUNTS.at(-1)} heads loaded`,
    table: table([["case", "ms: median (quartiles)", "x monolith"], ...rows]),
    results: { ...results, firstLoad: loads[0], lastLoad: loads.at(-1) },
    targets: [
      {
        name: "16 linear heads cost at most 1.10 x the monolith",
        value: median("engine, 16 linear heads") / one,
        limit: 1.1,
      },
    ],
  };
}
