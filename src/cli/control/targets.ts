/** `NAME=REVISION` of the command line, with revisions as short as they are still clear. */
import { PolyheadError } from "../../base/errors.js";

const SHORTEST = 8;
const LENGTH = 64;

/** The routes that such words name. */
export function namesOf(words: readonly string[]): string[] {
  return words.map((word) => word.split("=", 1)[0] ?? "");
}

/**
 * Routes with the revisions that they shall point to.
 * @param known revisions that a short one may mean
 * @throws PolyheadError INVALID_ARGUMENT for other words, a route twice or a short revision that means several;
 *   NOT_FOUND for one that means none
 */
export function parseTargets(words: readonly string[], known: ReadonlySet<string>): Record<string, string> {
  const targets = new Map<string, string>();
  for (const word of words) {
    const [, name, revision] = /^([^=]+)=(.+)$/.exec(word) ?? [];
    if (name === undefined || revision === undefined) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `${JSON.stringify(word)} is not a change of a route; expected NAME=REVISION, or NAMEs with --rollback.`,
        { got: word },
      );
    }
    if (targets.has(name)) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `The route ${JSON.stringify(name)} is named twice; give it one revision.`,
        { route: name },
      );
    }
    targets.set(name, fullRevision(revision, known));
  }
  return Object.fromEntries(targets);
}

/**
 * The revision that its first letters mean.
 * @throws PolyheadError INVALID_ARGUMENT for too few letters or ones that several begin with; NOT_FOUND
 */
export function fullRevision(given: string, known: ReadonlySet<string>): string {
  if (known.has(given) || given.length === LENGTH) return given;
  if (given.length < SHORTEST) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The revision ${JSON.stringify(given)} is too short; expected at least its first ${SHORTEST} letters.`,
      { got: given },
    );
  }
  const [found, ...others] = [...known].filter((revision) => revision.startsWith(given));
  if (others.length > 0) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${others.length + 1} revisions begin with ${JSON.stringify(given)}; give more of it.`,
      { got: given, found: [found, ...others] },
    );
  }
  if (found !== undefined) return found;
  throw new PolyheadError(
    "NOT_FOUND",
    `No revision begins with ${JSON.stringify(given)}; \`polyhead heads history\` has those of the routes, and \`polyhead heads add\` prints that of a new one.`,
    { got: given },
  );
}
