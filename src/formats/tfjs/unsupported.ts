/** What import says when it meets something that it has no rule for. */
import { PolyheadError } from "../../base/errors.js";

/** The error for a use of an operator that no rule covers; the importer collects these over the whole graph. */
export function unsupported(reason: string): PolyheadError {
  return new PolyheadError("MODEL_UNSUPPORTED", reason, { reason });
}

/** Lists that import writes out, such as the rows of a resized image, are not longer than this. */
export const LONGEST_LIST = 2 ** 16;

/**
 * Refuses what would have to be written out element by element and is too long for it.
 * @throws PolyheadError MODEL_UNSUPPORTED
 */
export function checkListLength(length: number, what: string): void {
  if (length > LONGEST_LIST)
    throw unsupported(`${what} of ${length} elements; at most ${LONGEST_LIST} are covered`);
}
