/**
 * The routes: which revision answers under which name, and how it came to be so. How they are written down is in
 * `routes-json.ts`; a route that is no route is refused here, wherever it comes from.
 */
import { isDeepStrictEqual } from "node:util";
import { PolyheadError } from "../base/errors.js";
import { isHex } from "./digest.js";
import { isObject } from "./json.js";

/** Changes that are remembered; older ones are forgotten, and the models that only they name may be removed. */
export const HISTORY_LIMIT = 256;
/** The same for changes of many routes at once: routes changed in all of the history but its last change. */
export const ROUTE_CHANGE_LIMIT = 4096;
/** Revisions that may share a route, that may shadow it, and that are kept ready for it. */
const MAX_TARGETS = 16;
/** Letters of a name of somebody, and of a request parameter. */
const WHO_LENGTH = 256;
const REASON_LENGTH = 2000;

/** A revision and its share of a route's requests. */
export interface Target {
  readonly revision: string;
  /** Any positive number; shares are relative to the sum of the route's weights. */
  readonly weight: number;
}

/** Bounds that a canary must keep. */
export interface Limits {
  /** Failed requests among all, 0 to 1. */
  readonly maxErrorRate?: number;
  /** Milliseconds. */
  readonly maxLatency?: number;
  /** Answers equal to the main revision's among all compared, 0 to 1. */
  readonly minAgreement?: number;
  /** Requests to see before judging. */
  readonly minRequests?: number;
}

/** Where a public name leads. */
export interface Route {
  /** At least one; the first is the main one, others are canaries. */
  readonly targets: readonly Target[];
  /** The request parameter whose value decides among the targets, so that one caller keeps to one. */
  readonly stickyKey?: string;
  /** Revisions that run beside, are compared and never answer. */
  readonly shadows?: readonly string[];
  /** Revisions that were added to the route, to be switched to later; the newest last. */
  readonly candidates?: readonly string[];
  readonly limits?: Limits;
}

/** One route before and after a change. */
export interface RouteChange {
  readonly name: string;
  /** Null when there was none. */
  readonly from: Route | null;
  /** Null when it was removed. */
  readonly to: Route | null;
}

/** One change of the routes. */
export interface Change {
  /** ISO 8601, UTC. */
  readonly at: string;
  /** Who asked for it. */
  readonly by: string;
  readonly reason: string;
  /** What kind of change it was, where whoever made it said so. */
  readonly action?: string;
  /** Generation before and after. */
  readonly before: number;
  readonly after: number;
  readonly routes: readonly RouteChange[];
}

/** Who changes the routes, and why. */
export interface Author {
  readonly by: string;
  readonly reason: string;
  /** What kind of change it is: `rollback`. */
  readonly action?: string;
}

/** All routes at one time. */
export interface RoutesDocument {
  /** Grows by one with every change; 0 before the first. */
  readonly generation: number;
  readonly routes: ReadonlyMap<string, Route>;
  /** The last changes, oldest first. */
  readonly history: readonly Change[];
}

/** The routes of a new store. */
export const NO_ROUTES: RoutesDocument = { generation: 0, routes: new Map(), history: [] };

/** A route to one revision. */
export function routeTo(revision: string): Route {
  return { targets: [{ revision, weight: 1 }] };
}

/** The route with one more revision to be switched to later; beyond 16 the oldest is given up. */
export function withCandidate(route: Route, revision: string): Route {
  const { targets, candidates = [] } = route;
  if (targets.some((target) => target.revision === revision)) return route;
  const others = candidates.filter((each) => each !== revision);
  return { ...route, candidates: [...others, revision].slice(-MAX_TARGETS) };
}

/** What a route becomes when it is pointed elsewhere: the revisions that wait for it go on waiting. */
export function retargeted(before: Route | undefined, to: Route): Route {
  const { candidates: _, ...rest } = to;
  return before?.candidates ? { ...rest, candidates: before.candidates } : rest;
}

/** Whether a change of a route changed how it answers, and not only what waits to be switched to. */
export function isRetargeting({ from, to }: Pick<RouteChange, "from" | "to">): boolean {
  const answering = (route: Route | null) => route && retargeted(undefined, route);
  return !isDeepStrictEqual(answering(from), answering(to));
}

/** All revisions that a route names. */
export function revisionsOf({ targets, shadows = [], candidates = [] }: Route): string[] {
  return [...targets.map(({ revision }) => revision), ...shadows, ...candidates];
}

/** All revisions that the routes or their history name. */
export function neededRevisions({ routes, history }: RoutesDocument): Set<string> {
  const past = history.flatMap((change) => change.routes).flatMap(({ from, to }) => [from, to]);
  return new Set([...routes.values(), ...past].flatMap((route) => (route ? revisionsOf(route) : [])));
}

/**
 * The document after a change; the same one when nothing differs.
 * @param update changes the map that it is given
 * @throws PolyheadError INVALID_ARGUMENT, and what `update` throws
 */
export function changed(
  document: RoutesDocument,
  update: (routes: Map<string, Route>) => void,
  { by, reason, action }: Author,
): RoutesDocument {
  if (!isText(by, WHO_LENGTH) || by === "" || !isText(reason, REASON_LENGTH)) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `A change of routes needs who makes it (up to ${WHO_LENGTH} letters) and a reason (up to ${REASON_LENGTH}).`,
      { by, reason },
    );
  }
  const draft = new Map(document.routes);
  update(draft);
  const names = [...new Set([...document.routes.keys(), ...draft.keys()])];
  const differing = names.flatMap((name): RouteChange[] => {
    if (document.routes.get(name) === draft.get(name)) return [];
    const from = document.routes.get(name) ?? null;
    const to = draft.has(name) ? plainRoute(name, draft.get(name)) : null;
    return isDeepStrictEqual(from, to) ? [] : [{ name, from, to }];
  });
  if (differing.length === 0) return document;
  const [before, after] = [document.generation, document.generation + 1];
  const at = new Date().toISOString();
  const change = { at, by, reason, ...(action && { action }), before, after, routes: differing };
  return applied(document, [change]);
}

/** The document after changes that were made of it, oldest first. */
export function applied(document: RoutesDocument, changes: readonly Change[]): RoutesDocument {
  const last = changes.at(-1);
  if (!last) return document;
  const routes = new Map(document.routes);
  for (const { name, to } of changes.flatMap((change) => change.routes)) {
    if (to) routes.set(name, to);
    else routes.delete(name);
  }
  return { generation: last.after, routes, history: recent([...document.history, ...changes]) };
}

/** The newest changes that the limits allow, the last one always. */
export function recent(history: readonly Change[]): Change[] {
  let count = 0;
  const tooMuch = history.findLastIndex((change, at) => {
    count += change.routes.length;
    return at < history.length - 1 && count > ROUTE_CHANGE_LIMIT;
  });
  return history.slice(tooMuch + 1).slice(-HISTORY_LIMIT);
}

/** The route as it will be read back: no keys without a value, nothing shared with the caller. */
function plainRoute(name: string, route: unknown): Route {
  const plain: unknown = isObject(route) ? JSON.parse(JSON.stringify(route)) : route;
  const wrong = whyNotName(name) ?? whyNotRoute(plain);
  if (wrong === undefined && isRoute(plain)) return plain;
  throw new PolyheadError("INVALID_ARGUMENT", `The route ${JSON.stringify(name)} ${wrong}.`, { route: name });
}

/** What is wrong with the name of a route, which stands in URLs, file names and arguments of the command. */
export function whyNotName(name: string): string | undefined {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name)
    ? undefined
    : "has no good name; expected up to 128 letters, digits, dots, dashes and underscores, first a letter or digit";
}

/**
 * Refuses what cannot be the name of a route, for those who do much before they change one.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function requireRouteName(name: string): void {
  const wrong = whyNotName(name);
  if (wrong === undefined) return;
  throw new PolyheadError("INVALID_ARGUMENT", `The route ${JSON.stringify(name)} ${wrong}.`, { route: name });
}

/** Whether a value is a route. */
export function isRoute(value: unknown): value is Route {
  return whyNotRoute(value) === undefined;
}

/** What is wrong with a value that should be a route; undefined where nothing is. */
export function whyNotRoute(value: unknown): string | undefined {
  if (!isObject(value)) return "is not an object";
  const { targets, stickyKey, shadows = [], candidates = [], limits } = value;
  const unknown = Object.keys(value).find(
    (key) => !["targets", "stickyKey", "shadows", "candidates", "limits"].includes(key),
  );
  if (unknown !== undefined) return `has an unknown key ${JSON.stringify(unknown)}`;
  if (!Array.isArray(targets) || targets.length === 0 || targets.length > MAX_TARGETS)
    return `needs 1 to ${MAX_TARGETS} targets`;
  if (!targets.every(isTarget))
    return "has a target that is not a revision (64 hexadecimal digits) with a positive weight";
  if (new Set(targets.map(({ revision }) => revision)).size < targets.length)
    return "has one revision twice among its targets";
  if (stickyKey !== undefined && (!isText(stickyKey, WHO_LENGTH) || stickyKey === ""))
    return "has a sticky key that is not a short text";
  for (const [what, list] of Object.entries({ shadows, candidates }))
    if (!Array.isArray(list) || list.length > MAX_TARGETS || !list.every(isHex))
      return `has ${what} that are not up to ${MAX_TARGETS} revisions`;
  if (limits !== undefined && !isLimits(limits))
    return "has limits that are not maxErrorRate and minAgreement (0 to 1), maxLatency (milliseconds) and minRequests (whole)";
  return undefined;
}

function isTarget(value: unknown): value is Target {
  return (
    isObject(value) &&
    Object.keys(value).length === 2 &&
    isHex(value.revision) &&
    typeof value.weight === "number" &&
    Number.isFinite(value.weight) &&
    value.weight > 0
  );
}

const LIMIT_CHECKS: Readonly<Record<keyof Limits, (value: unknown) => boolean>> = {
  maxErrorRate: isShare,
  maxLatency: (value) => typeof value === "number" && Number.isFinite(value) && value > 0,
  minAgreement: isShare,
  minRequests: isCount,
};

function isLimits(value: unknown): value is Limits {
  const checks = new Map(Object.entries(LIMIT_CHECKS));
  return isObject(value) && Object.entries(value).every(([key, each]) => checks.get(key)?.(each) === true);
}

function isShare(value: unknown): boolean {
  return typeof value === "number" && value >= 0 && value <= 1;
}

/** Whether a value is a whole number from 0 on. */
export function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isText(value: unknown, length: number): value is string {
  return typeof value === "string" && value.length <= length;
}
