/**
 * Names that clients send. A model's name is one part of a path and one part of an output's name
 * (`route/output`), so it has no slash; no name has control characters or is longer than the limit.
 */
import { PolyheadError } from "../../base/errors.js";
import type { Limits } from "./limits.js";
import { shown } from "./shown.js";

/**
 * A name without control characters.
 * @param what is named, as the beginning of a sentence: `The input's name`
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function checkName(name: unknown, what: string, limits: Limits): string {
  if (typeof name !== "string" || name === "") {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${what} is ${shown(name)}; expected a text that is not empty.`,
      {},
    );
  }
  if (name.length > limits.nameLength) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${what} has ${name.length} letters; the limit is ${limits.nameLength}.`,
      { got: name.length, limit: limits.nameLength },
    );
  }
  if (/\p{Cc}|\p{Cs}/u.test(name)) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${what} is ${shown(name)}; control characters are refused.`,
      {},
    );
  }
  return name;
}

/**
 * A name of a route, backbone or revision: without slashes, and not `.` or `..`.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function checkModelName(name: unknown, what: string, limits: Limits): string {
  const checked = checkName(name, what, limits);
  if (/[/\\]/.test(checked) || /^\.+$/.test(checked)) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${what} is ${shown(checked)}; slashes and names of dots only are refused.`,
      {},
    );
  }
  return checked;
}
