/** Switching and loading while other requests are answered, and what those requests see. */
import { setImmediate as turn } from "node:timers/promises";
import { digits, summarise, table } from "./measure.js";
import { detector, detectorInput, linearHead, openBenchEngine } from "./models.js";

/** @typedef {import("./models.js").Engine} Engine */
/** @typedef {import("./models.js").Tensor} Tensor */

/**
 * Requests without a pause, one after the other, each checked: the values must be those of the revision that the
 * answer names.
 */
export class Traffic {
  answers = 0;
  failed = 0;
  mixed = 0;
  #stopped = false;
  #done = Promise.resolve();

  /**
   * @param {Engine} engine
   * @param {{ routes: readonly string[], expected: ReadonlyMap<string, Tensor>,
   *   input: Tensor, options: import("../dist/index.js").RunOptions }} what the values of every revision
   */
  constructor(engine, what) {
    this.#done = this.#run(engine, what);
  }

  /** Waits for the last answer. */
  async stop() {
    this.#stopped = true;
    await this.#done;
  }

  /** @type {(engine: Engine, what: ConstructorParameters<typeof Traffic>[1]) => Promise<void>} */
  async #run(engine, { routes, expected, input, options }) {
    while (!this.#stopped) {
      try {
        const answer = await engine.run(routes, input, options);
        this.answers++;
        if (!isConsistent(answer, expected)) this.mixed++;
      } catch {
        this.failed++;
      }
    }
  }
}

/**
 * Whether every route's values are those of its revision; a revision that is not expected is not judged.
 * @param {import("../dist/index.js").Answer} answer
 * @param {ReadonlyMap<string, Tensor>} expected
 */
export function isConsistent(answer, expected) {
  return Object.values(answer.routes).every(({ revision, outputs }) => {
    const want = expected.get(revision);
    return want === undefined || (outputs.scores !== undefined && equal(outputs.scores, want));
  });
}

/**
 * @param {Tensor} a
 * @param {Tensor} b
 */
function equal(a, b) {
  if (a.data.length !== b.data.length) return false;
  for (let at = 0; at < a.data.length; at++)
    if (!(Math.abs(Number(a.data[at]) - Number(b.data[at])) <= 1e-6)) return false;
  return true;
}

/** @param {{ quick: boolean }} options */
export async function measureSwitching({ quick }) {
  const { backbone } = await detector();
  const input = detectorInput(1);
  const engine = await openBenchEngine();
  await engine.add("backbone", backbone);
  const revisions = [];
  for (let at = 0; at < 16; at++) revisions.push(await engine.load(linearHead(backbone, at)));
  const [first = "", second = "", third = ""] = revisions;
  const expected = new Map();
  await engine.add("other", linearHead(backbone, 2));
  await engine.add("live", linearHead(backbone, 0));
  for (const revision of [third, second, first]) {
    await engine.switch({ live: revision });
    const { routes } = await engine.run(["live"], input, { cache: false });
    expected.set(revision, routes.live.outputs.scores);
  }
  const fresh = { cache: false };
  const kinds = { "cached input": { digest: "seen" }, "full runs": fresh };
  const rows = [];
  const results = /** @type {Record<string, object>} */ ({});
  const targets = [];
  let seed = 1000;
  for (const [kind, options] of Object.entries(kinds)) {
    const traffic = new Traffic(engine, { routes: ["other", "live"], expected, input, options });
    await turn();
    const switches = [];
    const started = performance.now();
    while (switches.length < (quick ? 500 : 5000) && performance.now() - started < 20_000) {
      const revision = switches.length % 2 ? first : second;
      const start = performance.now();
      await engine.switch({ live: revision });
      switches.push(performance.now() - start);
      await turn();
    }
    const loads = [];
    for (let at = 0; at < (quick ? 20 : 100); at++) {
      const head = linearHead(backbone, seed++);
      await turn();
      const start = performance.now();
      const revision = await engine.load(head);
      await engine.switch({ live: revision });
      loads.push(performance.now() - start);
      await engine.switch({ live: first });
      await engine.unload(revision);
    }
    await traffic.stop();
    const [switched, loaded] = [summarise(switches), summarise(loads)];
    results[kind] = {
      switch: switched,
      loadAndSwitch: loaded,
      answers: traffic.answers,
      failed: traffic.failed,
      mixed: traffic.mixed,
    };
    for (const [name, { n, median, p99, max }] of Object.entries({
      [`switch, others: ${kind}`]: switched,
      [`load and switch, others: ${kind}`]: loaded,
    }))
      rows.push([name, String(n), digits(median), digits(p99), digits(max)]);
    rows.push([
      `  ${traffic.answers} answers meanwhile: ${traffic.failed} failed, ${traffic.mixed} mixed`,
      "",
      "",
      "",
      "",
    ]);
    targets.push(
      { name: `switching, p99 in ms, others: ${kind}`, value: switched.p99, limit: 1 },
      { name: `load and switch, p99 in ms, others: ${kind}`, value: loaded.p99, limit: 10 },
      { name: `failed or mixed answers, others: ${kind}`, value: traffic.failed + traffic.mixed, limit: 0 },
    );
  }
  await engine.close();
  return {
    title: "Switching under traffic; 16 linear heads loaded, another route is answered all the time",
    table: table([["case", "n", "p50 ms", "p99 ms", "max ms"], ...rows]),
    results,
    targets,
  };
}
