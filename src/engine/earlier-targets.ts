/** Where routes pointed before, the newest last, for going back; a bounded number for each. */
import type { RouteTarget } from "./route.js";

/** Earlier targets that a route remembers. */
const MOST = 32;

/** Earlier targets of routes by name. */
export class EarlierTargets {
  readonly #past = new Map<string, readonly RouteTarget[]>();

  /** A route has been pointed elsewhere than here. */
  push(route: string, target: RouteTarget): void {
    this.#past.set(route, [...(this.#past.get(route) ?? []), target].slice(-MOST));
  }

  /** Where the route pointed last; undefined where nothing is remembered. */
  last(route: string): RouteTarget | undefined {
    return this.#past.get(route)?.at(-1);
  }

  /** Forgets where the route pointed last. */
  pop(route: string): void {
    this.#past.set(route, (this.#past.get(route) ?? []).slice(0, -1));
  }

  /** Forgets a route that is gone. */
  delete(route: string): void {
    this.#past.delete(route);
  }

  /** Forgets all targets with a revision that is not loaded any more. */
  without(revision: string): void {
    for (const [route, past] of this.#past)
      this.#past.set(
        route,
        past.filter((target) => !usesRevision(target, revision)),
      );
  }
}

function usesRevision({ revisions, shadows = [] }: RouteTarget, revision: string): boolean {
  return revisions.some((each) => each.revision === revision) || shadows.includes(revision);
}
