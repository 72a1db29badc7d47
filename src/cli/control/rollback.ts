/** Several routes back to where they pointed before their last change, all at once. */
import { PolyheadError } from "../../base/errors.js";
import type { Control } from "./control.js";

/**
 * Where routes pointed before their last change.
 * @throws PolyheadError NOT_FOUND for a route that was nothing else before, INVALID_ARGUMENT for one that was shared by several
 *   revisions, which only a rollback of that route alone brings back
 */
export async function earlierTargets(
  control: Control,
  routes: readonly string[],
): Promise<Record<string, string>> {
  const targets: Record<string, string> = {};
  for (const route of routes) {
    const change = (await control.history(route)).find(
      ({ before, after }) =>
        before && after && JSON.stringify(before.revisions) !== JSON.stringify(after.revisions),
    );
    const [main, ...others] = change?.before?.revisions ?? [];
    if (!main) {
      throw new PolyheadError(
        "NOT_FOUND",
        `The route ${JSON.stringify(route)} has no earlier revision to go back to.`,
        { route },
      );
    }
    if (others.length > 0) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `The route ${JSON.stringify(route)} was shared by ${others.length + 1} revisions before; roll it back alone.`,
        { route },
      );
    }
    targets[route] = main.revision;
  }
  return targets;
}
