/** Settings of their own for some parameters, which are said by patterns over names, so that they can be kept as data. */
import { PolyheadError } from "../base/errors.js";
import type { ParameterGroup } from "./updates.js";

/** A group of parameters. */
export interface ParameterRule extends ParameterGroup {
  /** A pattern over whole names; `*` stands for any characters, none included. */
  readonly names: string;
}

/**
 * The group of each parameter: that of the first rule whose pattern fits.
 * @throws PolyheadError NOT_FOUND for a pattern that fits none of the parameters
 */
export function groupsOf(
  rules: readonly ParameterRule[],
  parameters: readonly string[],
): (parameter: string) => ParameterGroup {
  const patterns = rules.map(({ names, ...group }) => ({ names, group, pattern: patternOf(names) }));
  for (const { names, pattern } of patterns) {
    if (parameters.some((name) => pattern.test(name))) continue;
    throw new PolyheadError(
      "NOT_FOUND",
      `No trained parameter is called ${JSON.stringify(names)}; there are ${parameters.slice(0, 8).join(", ")}${parameters.length > 8 ? ` and ${parameters.length - 8} more` : ""}.`,
      { pattern: names, parameters },
    );
  }
  return (parameter) => patterns.find(({ pattern }) => pattern.test(parameter))?.group ?? {};
}

function patternOf(names: string): RegExp {
  const literal = (text: string) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
  return new RegExp(`^${names.split("*").map(literal).join(".*")}$`, "s");
}
