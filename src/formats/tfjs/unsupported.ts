/** What import says when it meets something that it has no rule for. */
import { PolyheadError } from "../../base/errors.js";

/** The error for a use of an operator that no rule covers; the importer collects these over the whole graph. */
export function unsupported(reason: string): PolyheadError {
  return new PolyheadError("MODEL_UNSUPPORTED", reason, { reason });
}
