/**
 * The routes as JSON, in three kinds of documents: the routes as they were at one time, a piece of their history, and one
 * change. What is read is never trusted.
 */
import { PolyheadError } from "../base/errors.js";
import { damaged } from "./durable.js";
import { isObject, jsonBytes, parseObject } from "./json.js";
import { bounded } from "./oci.js";
import {
  type Change,
  HISTORY_LIMIT,
  isCount,
  isRoute,
  type Route,
  type RouteChange,
  type RoutesDocument,
  whyNotName,
  whyNotRoute,
} from "./routes.js";

/** The largest document of routes, and the largest change, in bytes. */
export const ROUTES_LIMIT = 16 * 2 ** 20;
/** The largest piece of history in bytes. */
export const HISTORY_BYTES = 2 * ROUTES_LIMIT;
/** Version 1 had all of the history inside. */
const SCHEMA_VERSION = 2;
const HISTORY_SCHEMA_VERSION = 1;

/** A document of routes as it stands. */
export interface ParsedRoutes extends RoutesDocument {
  /** Whether its history is inside, as it was in version 1. */
  readonly isOld: boolean;
}

/** Routes without their history, as bytes. @throws PolyheadError LIMIT_EXCEEDED */
export function routesBytes({ generation, routes }: RoutesDocument): Uint8Array {
  const listed = [...routes].map(([name, route]) => ({ name, ...route }));
  const document = { schemaVersion: SCHEMA_VERSION, generation, routes: listed };
  return bounded(jsonBytes(document), ROUTES_LIMIT, "The document of routes");
}

/**
 * Routes from bytes; their history only where it is inside.
 * @throws PolyheadError STORE_DAMAGED, and STORE_REFUSED when a newer version of Polyhead wrote it
 */
export function parseRoutes(bytes: Uint8Array): ParsedRoutes {
  const what = "The document of routes";
  const { schemaVersion, generation, routes, history } = parseObject(bytes, what);
  refuseNewer(schemaVersion, SCHEMA_VERSION);
  const isOld = schemaVersion === 1;
  if ((!isOld && schemaVersion !== SCHEMA_VERSION) || !isCount(generation) || !Array.isArray(routes))
    throw damaged(`${what} has no schema version, generation or routes.`, {});
  const byName = new Map<string, Route>();
  for (const entry of routes) {
    if (!isObject(entry) || typeof entry.name !== "string") throw damaged("A route has no name.", {});
    const { name, ...route } = entry;
    const wrong = whyNotName(name) ?? (byName.has(name) ? "is there twice" : whyNotRoute(route));
    if (wrong !== undefined || !isRoute(route))
      throw damaged(`The route ${JSON.stringify(name)} ${wrong}.`, { route: name });
    byName.set(name, route);
  }
  return { generation, routes: byName, history: isOld ? changesIn(history, HISTORY_LIMIT) : [], isOld };
}

/** Changes in their order, as bytes. @throws PolyheadError LIMIT_EXCEEDED */
export function historyBytes(changes: readonly Change[]): Uint8Array {
  const document = { schemaVersion: HISTORY_SCHEMA_VERSION, changes };
  return bounded(jsonBytes(document), HISTORY_BYTES, "A piece of the history");
}

/** Changes from bytes. @throws PolyheadError STORE_DAMAGED, STORE_REFUSED */
export function parseHistory(bytes: Uint8Array): readonly Change[] {
  const { schemaVersion, changes } = parseObject(bytes, "A piece of the history");
  refuseNewer(schemaVersion, HISTORY_SCHEMA_VERSION);
  return changesIn(changes, Number.POSITIVE_INFINITY);
}

/** One change as bytes. @throws PolyheadError LIMIT_EXCEEDED */
export function changeBytes(change: Change): Uint8Array {
  return bounded(jsonBytes({ schemaVersion: HISTORY_SCHEMA_VERSION, ...change }), ROUTES_LIMIT, "The change");
}

/** One change from bytes. @throws PolyheadError STORE_DAMAGED, STORE_REFUSED */
export function parseChange(bytes: Uint8Array): Change {
  const { schemaVersion, ...change } = parseObject(bytes, "A change");
  refuseNewer(schemaVersion, HISTORY_SCHEMA_VERSION);
  if (isChange(change)) return change;
  throw damaged("A file of the store is not a change of its routes.", {});
}

function refuseNewer(schemaVersion: unknown, known: number): void {
  if (typeof schemaVersion !== "number" || schemaVersion <= known) return;
  throw new PolyheadError(
    "STORE_REFUSED",
    `The store's routes have schema version ${schemaVersion}; this version of Polyhead knows ${known}. Use the newer one.`,
    { schemaVersion, known },
  );
}

function changesIn(value: unknown, most: number): readonly Change[] {
  if (Array.isArray(value) && value.length <= most && value.every(isChange)) return value;
  throw damaged("The history of the routes is not a list of changes.", {});
}

function isChange(value: unknown): value is Change {
  return (
    isObject(value) &&
    typeof value.at === "string" &&
    !Number.isNaN(Date.parse(value.at)) &&
    typeof value.by === "string" &&
    typeof value.reason === "string" &&
    (value.action === undefined || typeof value.action === "string") &&
    isCount(value.before) &&
    isCount(value.after) &&
    Array.isArray(value.routes) &&
    value.routes.every(isRouteChange)
  );
}

function isRouteChange(value: unknown): value is RouteChange {
  return (
    isObject(value) &&
    typeof value.name === "string" &&
    [value.from, value.to].every((route) => route === null || isRoute(route))
  );
}
