/**
 * What `heads` and `switch` do, wherever the routes are: in a running server, or in a store that nobody serves just
 * now. Both answer in the same words.
 */
import type { Model } from "../../onnx/model.js";
import type { HistoryEntry, RouteStatus, RouteTarget } from "../../server/service.js";

/** A route as it is listed; a server tells more of it than a store. */
export type ListedRoute = RouteTarget &
  Pick<RouteStatus, "name"> &
  Partial<Pick<RouteStatus, "task" | "labels" | "requests" | "failed">>;

/** A change of one route. */
export type ListedChange = HistoryEntry & { readonly route?: string | undefined };

/** Routes and their models, to be looked at and changed. */
export interface Control {
  /**
   * Keeps a model that loads: for a new route, or as a revision of one that is there, or for other models to read.
   * @param title name of its file
   * @returns its revision
   * @throws PolyheadError what loading throws
   */
  add(model: Model, title: string, route: string | undefined): Promise<string>;
  /**
   * Does the same with a model that is kept already.
   * @throws PolyheadError NOT_FOUND, and what loading throws
   */
  addKept(revision: string, route: string): Promise<void>;
  /** The model of a revision. @throws PolyheadError NOT_FOUND */
  model(revision: string): Promise<Model>;
  /** All routes. */
  routes(): Promise<readonly ListedRoute[]>;
  /** Changes, the newest first; of one route or of all. @throws PolyheadError NOT_FOUND */
  history(route?: string): Promise<readonly ListedChange[]>;
  /** Takes a route away. @throws PolyheadError NOT_FOUND */
  remove(route: string): Promise<void>;
  /** All revisions that are known for the routes; a name that is none has none. */
  revisions(routes: readonly string[]): Promise<ReadonlySet<string>>;
  /**
   * Points routes to revisions, all at once.
   * @returns the generation from which on it holds
   * @throws PolyheadError NOT_FOUND
   */
  switch(targets: Readonly<Record<string, string>>): Promise<number>;
  /** Points a route to where it pointed before its last change. @throws PolyheadError NOT_FOUND */
  rollback(route: string): Promise<number>;
}
