/**
 * From one backbone to another with all the heads that live on it: those whose features the new backbone makes as well
 * stay as they are, the others are adapted and judged one by one. Nothing is published here; what is returned is ready
 * to be, all of it or none.
 */
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import { costOf } from "../onnx/cost.js";
import { toEvaluation } from "../onnx/evaluation.js";
import { GraphIndex } from "../onnx/graph.js";
import { type Identity, identify } from "../onnx/identity.js";
import { readMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import { adaptImages, judgeUnadapted } from "./adapt-images.js";
import type { Agreement } from "./agreement.js";
import { type HeadReading, readingsOf } from "./head-reading.js";
import type { AdaptImagesReport, AdaptReport } from "./judgement.js";
import type { AdaptImagesOptions } from "./sources.js";
import { asOneHead } from "./through-adapter.js";

/** A head that answers for a route, and the images that it is adapted and judged on. */
export interface LiveHead extends Pick<AdaptImagesOptions, "data" | "test"> {
  readonly route: string;
  readonly head: Model;
}

/** What to upgrade; what heads have in common is as for adapting one. */
export interface UpgradeOptions extends Omit<AdaptImagesOptions, "head" | "data" | "test" | "names"> {
  readonly from: Model;
  readonly heads: readonly LiveHead[];
  /** Told of each head before it is adapted. */
  readonly onHead?: (route: string) => void;
}

/** What becomes of a route. */
export interface UpgradedRoute {
  readonly route: string;
  /**
   * `fits`: the new backbone makes its features too. `adapt`: through an adapter. `refused`: too little of it would be
   * kept, or it cannot be adapted. `other`: it does not read the old backbone.
   */
  readonly becomes: "fits" | "adapt" | "refused" | "other";
  /** How good the adapted head is, and by which tap and map. */
  readonly quality?: Agreement;
  readonly chosen?: AdaptReport["chosen"];
  /** What the head would make of the new backbone without an adapter; undefined where not even the shapes fit. */
  readonly unadapted?: Agreement;
  /** Floating-point operations that the adapter adds to a request, as a share of the backbone's. */
  readonly added?: number;
  /** Why it was refused. */
  readonly why?: string;
}

/** All routes, and the new heads of those that are adapted. */
export interface Upgrade {
  readonly routes: readonly UpgradedRoute[];
  readonly heads: ReadonlyMap<string, Model>;
}

/**
 * Adapts the heads of a backbone to another.
 * @throws PolyheadError as reading models and images does; what concerns one head is in its row
 */
export async function upgradeHeads(options: UpgradeOptions): Promise<Upgrade> {
  const [before, after] = [toEvaluation(options.from).model, toEvaluation(options.to).model];
  const [own, made] = [await identitiesOf(before), await identitiesOf(after)];
  const routes: UpgradedRoute[] = [];
  const heads = new Map<string, Model>();
  for (const live of options.heads) {
    const { route, head } = live;
    const { taps = [], role } = readMetadata(head);
    if (role === "backbone" || taps.length === 0 || !taps.every(({ identity }) => own.has(identity))) {
      routes.push({ route, becomes: "other" });
      continue;
    }
    if (taps.every(({ identity }) => made.has(identity))) {
      routes.push({ route, becomes: "fits" });
      continue;
    }
    options.onHead?.(route);
    const { row, adapted } = await upgraded(live, { ...options, to: after });
    routes.push(row);
    if (adapted) heads.set(route, adapted);
  }
  return { routes, heads };
}

async function upgraded(
  { route, head, data, test }: LiveHead,
  options: UpgradeOptions,
): Promise<{ readonly row: UpgradedRoute; readonly adapted?: Model }> {
  const { heads: _, onHead: __, ...common } = options;
  // All of the backbone runs for the other heads anyway, and a folded map costs what any other does: the best is taken.
  const adapting: AdaptImagesOptions = { slack: 0, ...common, head, data, test, names: { route } };
  try {
    const unadapted = await withoutAdapter(adapting);
    const asked = unadapted && { unadapted };
    try {
      const made = await adaptImages(adapting);
      const adapted = asOneHead(head, made);
      const added = Math.max(0, flopsOf(adapted) - flopsOf(head)) / Math.max(1, flopsOf(options.to));
      const { quality, chosen } = made.report;
      return { row: { route, becomes: "adapt", quality, chosen, ...asked, added }, adapted };
    } catch (thrown) {
      const { message, details, code } = asPolyheadError(thrown, "INTERNAL", "it failed");
      const report = code === "QUALITY_TOO_LOW" ? (details.report as AdaptImagesReport) : undefined;
      const judged = report && { quality: report.quality, chosen: report.chosen };
      return { row: { route, becomes: "refused", ...judged, ...asked, why: message } };
    }
  } catch (thrown) {
    const { message } = asPolyheadError(thrown, "INTERNAL", "it failed");
    return { row: { route, becomes: "refused", why: message } };
  }
}

/** What the head makes of the tap that has the shape of its own, the one of its name before others. */
async function withoutAdapter(adapting: AdaptImagesOptions): Promise<Agreement | undefined> {
  const readings = readingsOf(adapting.head);
  const [reading] = readings;
  if (reading?.vector === undefined || readings.length > 1) return undefined;
  const tap = tapLike(reading, adapting.to);
  return tap === undefined ? undefined : judgeUnadapted({ ...adapting, taps: [tap] });
}

function tapLike({ tap }: HeadReading, to: Model): string | undefined {
  const types = inferTypes(to);
  const names = readMetadata(to).taps?.map(({ name }) => name) ?? new GraphIndex(to.graph).outputNames;
  const ownFirst = names.toSorted((a, b) => Number(b === tap.name) - Number(a === tap.name));
  return ownFirst.find((name) => {
    const shape = types.get(name)?.shape;
    return (
      shape?.length === tap.shape.length &&
      shape.every((size, axis) => axis === 0 || size === tap.shape[axis])
    );
  });
}

async function identitiesOf(model: Model): Promise<ReadonlySet<Identity>> {
  return new Set((await identify(model)).values());
}

function flopsOf(model: Model): number {
  const index = new GraphIndex(model.graph);
  return costOf(index.order, index, inferTypes(model)).flops;
}

/**
 * The refusal of an upgrade some of whose heads would be lost.
 * @param refused the rows of those
 */
export function upgradeRefused(routes: readonly UpgradedRoute[], floor: number): PolyheadError {
  const refused = routes.filter(({ becomes }) => becomes === "refused");
  const told = refused.map(
    ({ route, quality, why = "" }) =>
      `${route} (${quality ? `${(100 * quality.kept).toFixed(1)} % kept` : why})`,
  );
  return new PolyheadError(
    "QUALITY_TOO_LOW",
    `${refused.length} of ${routes.length} routes cannot be brought to the new backbone with ${(100 * floor).toFixed(0)} % of their quality: ${told.join(", ")}. Nothing was published. Give more images, lower --floor, or leave them on the old backbone with --leave.`,
    { routes },
  );
}
