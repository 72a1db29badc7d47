/** Where routes point, in the words of the store, of the engine and of the protocols. */
import type { RouteTarget as EngineTarget } from "../engine/index.js";
import { type Change, isRetargeting, type Limits, type Route } from "../store/index.js";
import type { CanaryLimits, HistoryEntry, RouteTarget } from "./service.js";

/** As the store keeps it. */
export function toStored({ revisions, shadows, limits }: RouteTarget): Route {
  const kept: Limits | undefined = limits && {
    minRequests: limits.requests,
    ...(limits.errorRate !== undefined && { maxErrorRate: limits.errorRate }),
    ...(limits.latency !== undefined && { maxLatency: limits.latency }),
    ...(limits.agreement !== undefined && { minAgreement: limits.agreement }),
  };
  return {
    targets: revisions.map(({ revision, weight }) => ({ revision, weight })),
    ...(shadows.length > 0 && { shadows }),
    ...(kept && { limits: kept }),
  };
}

/** As protocols show it. */
export function fromStored({ targets, shadows = [], limits }: Route): RouteTarget {
  const shown: CanaryLimits | undefined = limits && {
    requests: limits.minRequests ?? 0,
    errorRate: limits.maxErrorRate,
    latency: limits.maxLatency,
    agreement: limits.minAgreement,
  };
  return { revisions: targets, shadows, limits: shown };
}

/** As the engine runs it. */
export function toEngine({ targets, shadows = [], limits }: Route): EngineTarget {
  return { revisions: targets, shadows, ...(limits?.minAgreement !== undefined && { compared: true }) };
}

/** A change of the store's history, one entry for each route. */
export function historyOf({
  at,
  by,
  reason,
  action,
  after,
  routes,
}: Change): (HistoryEntry & { readonly route: string })[] {
  return routes.map(({ name, from, to }) => ({
    route: name,
    at,
    by,
    reason,
    generation: after,
    action: actionOf(from, to, action),
    before: from ? fromStored(from) : undefined,
    after: to ? fromStored(to) : undefined,
  }));
}

/** What was asked for, where the change says it; else what the routes show. */
function actionOf(from: Route | null, to: Route | null, asked: string | undefined): HistoryEntry["action"] {
  if (!from || (to && !isRetargeting({ from, to }))) return "add";
  if (!to) return "remove";
  if (asked === "rollback" || asked === "promote") return asked;
  const [main] = to.targets;
  if (to.targets.length > from.targets.length) return "canary";
  if (from.targets.length > to.targets.length)
    return main?.revision === from.targets[0]?.revision ? "rollback" : "promote";
  return main?.revision === from.targets[0]?.revision ? "shadow" : "switch";
}
