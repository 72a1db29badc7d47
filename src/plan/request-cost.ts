/**
 * What a route costs a request: milliseconds alone, and in addition to the other heads of the same backbone, measured in an
 * engine, in turns, so that what slows the machine slows all of them. Without the feature cache, one image at a time.
 */

import { PolyheadError } from "../base/errors.js";
import type { Engine } from "../engine/index.js";
import { GraphIndex } from "../onnx/graph.js";
import type { Model } from "../onnx/model.js";
import { sampleInputs } from "../onnx/samples.js";

/** A head, with what stands between it and the backbone. */
export interface Candidate {
  readonly head: Model;
  readonly adapter?: Model | undefined;
  /** A backbone of its own, where it does not read the one that is there. */
  readonly backbone?: Model | undefined;
  /** Taps to read by name whatever the head was made for. */
  readonly bind?: Readonly<Record<string, string>> | undefined;
}

/** Milliseconds of a request, medians. */
export interface RequestCost {
  /** For this route alone, the backbone included. */
  readonly alone: number;
  /** What it adds to a request for all the other heads, the median of pairs; undefined where there are none. */
  readonly beside: number | undefined;
}

const ROUNDS = 15;
const WARM_UP = 3;

/**
 * Measures a candidate.
 * @param others heads that live on the backbone already
 * @throws PolyheadError as `Engine.add` and `Engine.run` do
 */
export async function requestCost(
  openEngine: () => Promise<Engine>,
  backbone: Model,
  { head, adapter, backbone: own, bind }: Candidate,
  others: readonly Model[],
): Promise<RequestCost> {
  const engine = await openEngine();
  try {
    await engine.add("backbone", backbone);
    const names = others.map((_, at) => `other ${at}`);
    for (const [at, other] of others.entries()) await engine.add(names[at] ?? "", other);
    if (own) await engine.add("own backbone", own);
    if (adapter) await engine.load(adapter);
    await engine.add("candidate", head, bind ? { bind } : {});
    const input = [...sampleInputs(new GraphIndex(backbone.graph).inputs, { batch: 1 }, 1)];
    const inputs = Object.fromEntries(input);
    const cases: readonly (readonly string[])[] =
      names.length > 0 ? [["candidate"], names, [...names, "candidate"]] : [["candidate"]];
    const times = cases.map((): number[] => []);
    for (let round = 0; round < WARM_UP + ROUNDS; round++) {
      for (const [at, routes] of cases.entries()) {
        const start = performance.now();
        await engine.run(routes, inputs, { cache: false });
        if (round >= WARM_UP) times[at]?.push(performance.now() - start);
      }
    }
    const [alone = [], without = [], withIt] = times;
    return {
      alone: median(alone),
      beside: withIt && median(withIt.map((time, at) => time - (without[at] ?? 0))),
    };
  } finally {
    await engine.close();
  }
}

/** @throws PolyheadError INTERNAL for no values */
function median(values: readonly number[]): number {
  const middle = values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
  if (middle !== undefined) return middle;
  throw new PolyheadError("INTERNAL", "Nothing was measured.", {});
}
