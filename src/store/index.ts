/** Models, routes and their history on disk, content-addressed. */
export type { Collected } from "./collect.js";
export type { StoredModel } from "./model-artifact.js";
export {
  type Author,
  type Change,
  HISTORY_LIMIT,
  isRetargeting,
  type Limits,
  type Route,
  type RouteChange,
  type RoutesDocument,
  requireRouteName,
  retargeted,
  revisionsOf,
  routeTo,
  type Target,
  withCandidate,
} from "./routes.js";
export * from "./store.js";
export type { Finding, Verification } from "./verify.js";
