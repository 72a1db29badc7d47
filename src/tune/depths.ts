/**
 * How deep to train: the same training with the stem frozen up to several places, each with its accuracy and what it costs
 * a request and in memory, and the rule by which one is taken.
 */

import { GraphIndex } from "../onnx/graph.js";
import type { Model } from "../onnx/model.js";
import type { OpenModel } from "../onnx/runner.js";
import { sampleInputs } from "../onnx/samples.js";
import type { Plot } from "../report/plot.js";
import { type LeavingPoint, leavingPoints, type Site } from "./site.js";

/** What a head or branch costs, beside the stem that is there for others as well. */
export interface Cost {
  /** Floating-point operations of one row. */
  readonly flops: number;
  /** Bytes of its weights, which each such head has for itself. */
  readonly bytes: number;
  /** Median time of one row, alone; by the clock, so it differs from run to run. */
  readonly milliseconds: number;
}

/** One depth, measured. */
export interface Depth extends Cost {
  /** The value up to which the backbone is frozen. */
  readonly from: string;
  readonly accuracy: number;
  /** Standard error of the accuracy. */
  readonly error: number;
  /** Seconds to train and judge. */
  readonly seconds: number;
}

/** The rule of {@link chosenDepth} in words. */
export const DEPTH_RULE =
  "the depth of the fewest operations whose accuracy is within one standard error of the best";

/** The one-standard-error rule (Breiman et al., "Classification and Regression Trees", 1984). */
export function chosenDepth<Each extends Depth>(depths: readonly [Each, ...Each[]]): Each {
  const best = depths.reduce((a, b) => (b.accuracy > a.accuracy ? b : a));
  const enough = depths.filter(({ accuracy }) => accuracy >= best.accuracy - best.error);
  return enough.reduce((a, b) => (b.flops < a.flops ? b : a), best);
}

/** Leaving points after which about a half, a quarter, an eighth ... of the work up to the tap is left, the least first. */
export function depthsToTry(site: Site, most: number): LeavingPoint[] {
  const points = leavingPoints(site);
  const total = Math.max(...points.map(({ flops }) => flops));
  const chosen = new Set<LeavingPoint>();
  for (let halvings = most; halvings >= 1; halvings--) {
    const target = total / 2 ** halvings;
    const distance = ({ flops }: LeavingPoint) => Math.abs(Math.log(Math.max(1, flops) / target));
    const [nearest] = points.toSorted((a, b) => distance(a) - distance(b));
    if (nearest) chosen.add(nearest);
  }
  return [...chosen].sort((a, b) => a.flops - b.flops);
}

const ROUNDS = 15;
const WARM_UP = 3;

/** Median milliseconds of one row of each model, measured in turns. */
export async function millisecondsOf(models: readonly Model[], open: OpenModel): Promise<number[]> {
  const opened = [];
  try {
    for (const model of models) {
      const inputs = sampleInputs(new GraphIndex(model.graph).inputs, { batch: 1 }, 1);
      opened.push({ session: await open(model, "all"), inputs, times: [] as number[] });
    }
    for (let round = 0; round < WARM_UP + ROUNDS; round++) {
      for (const { session, inputs, times } of opened) {
        const start = performance.now();
        await session.run(inputs);
        if (round >= WARM_UP) times.push(performance.now() - start);
      }
    }
    return opened.map(({ times }) => times.toSorted((a, b) => a - b)[Math.floor(ROUNDS / 2)] ?? 0);
  } finally {
    for (const { session } of opened) await session.close();
  }
}

/** Accuracy against cost per request, and against memory per head. */
export function depthPlots(depths: readonly Depth[]): Plot[] {
  const series = (x: (depth: Depth) => number) => [
    {
      label: "depth",
      kind: "both" as const,
      points: depths.map((each) => [x(each), 100 * each.accuracy] as const),
      names: depths.map(({ from }) => shortName(from)),
    },
  ];
  const y = { label: "accuracy, %" };
  return [
    {
      title: "Accuracy against cost per request",
      x: { label: "operations after the stem", isLogarithmic: true },
      y,
      series: series(({ flops }) => flops),
    },
    {
      title: "Accuracy against memory per head",
      x: { label: "bytes of weights", isLogarithmic: true },
      y,
      series: series(({ bytes }) => bytes),
    },
  ];
}

/** The last part of a value's name. */
function shortName(value: string): string {
  const parts = value.split("/").filter((part) => part !== "");
  return parts.slice(-2).join("/");
}
