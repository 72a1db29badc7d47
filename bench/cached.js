/** A head on an input that the engine has seen, against a run of everything. */
import { digits, interleave, spread, table } from "./measure.js";
import { detector, detectorInput, linearHead, openBenchEngine } from "./models.js";

/** @param {{ quick: boolean }} options */
export async function measureCached({ quick }) {
  const { backbone } = await detector();
  const input = detectorInput(1);
  const engine = await openBenchEngine();
  await engine.add("backbone", backbone);
  for (let at = 0; at < 16; at++) await engine.add(`head ${at}`, linearHead(backbone, at));
  const routes = Array.from({ length: 16 }, (_, at) => `head ${at}`);
  const cached = async (/** @type {string[]} */ names, /** @type {object} */ options) => {
    const answer = await engine.run(names, input, options);
    if (!answer.cached) throw new Error("The features were not cached.");
  };
  await engine.run(routes, input, { digest: "seen" });
  await engine.run(routes, input);
  const results = await interleave(
    {
      "full run, 1 head": () => engine.run(["head 0"], input, { cache: false }),
      "cached, digest given, 1 head": () => cached(["head 0"], { digest: "seen" }),
      "cached, input hashed, 1 head": () => cached(["head 0"], {}),
      "cached, digest given, 16 heads": () => cached(routes, { digest: "seen" }),
    },
    { rounds: quick ? 10 : 60 },
  );
  await engine.close();
  const full = results["full run, 1 head"].median;
  const share = (/** @type {number} */ median) => `${digits((100 * median) / full)} %`;
  return {
    title: "A head on a cached input; 3 MiB of input, 16 heads loaded",
    table: table([
      ["case", "ms: median (quartiles)", "of the full run"],
      ...Object.entries(results).map(([name, summary]) => [name, spread(summary), share(summary.median)]),
    ]),
    results,
    targets: [
      {
        name: "a head on a cached input (digest given) takes less than 2 % of the full run",
        value: results["cached, digest given, 1 head"].median / full,
        limit: 0.02,
      },
    ],
  };
}
