/**
 * Parameters of an inference request, as both protocols have them: texts, numbers and bools by name. Those that
 * nobody knows are ignored, as the Open Inference Protocol has it.
 */
import { PolyheadError } from "../../base/errors.js";
import { type Limits, limitExceeded } from "./limits.js";
import { checkModelName, checkName } from "./names.js";
import { shown } from "./shown.js";

/** What the parameters of a request ask for. */
export interface InferenceParameters {
  /** Routes that shall answer from the same features as the model of the request. */
  readonly routes: readonly string[];
  /** Callers of one key get one revision of a canary. */
  readonly key: string | undefined;
  /** Whether features may come from the cache. */
  readonly cache: boolean;
  /** Milliseconds. */
  readonly timeout: number;
}

/**
 * Reads
 * - `routes`: names, separated by commas; a list of names where the protocol has lists;
 * - `key`: a text;
 * - `cache`: a bool;
 * - `timeout`: microseconds, as Triton has it; 0 and more than the limit mean the limit;
 * - `priority`: Triton's whole number, which has no effect: routes have weights, requests have none.
 * @throws PolyheadError INVALID_ARGUMENT, LIMIT_EXCEEDED
 */
export function readParameters(
  parameters: ReadonlyMap<string, unknown>,
  limits: Limits,
): InferenceParameters {
  if (parameters.size > limits.entries) {
    throw limitExceeded("The request has", parameters.size, limits.entries, "parameters");
  }
  const key = parameters.get("key");
  wholeNumber(parameters.get("priority"), "priority", 0);
  const microseconds = wholeNumber(parameters.get("timeout"), "timeout", 0);
  return {
    routes: routeNames(parameters.get("routes"), limits),
    key: key === undefined ? undefined : checkName(key, "The parameter key", limits),
    cache: bool(parameters.get("cache"), "cache", true),
    timeout: microseconds === 0 ? limits.timeout : Math.min(microseconds / 1000, limits.timeout),
  };
}

/**
 * A parameter that is a bool.
 * @param fallback for one that is not given
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function bool(given: unknown, name: string, fallback: boolean): boolean {
  const value = given === undefined ? fallback : given;
  if (typeof value === "boolean") return value;
  throw refused(name, value, "a bool");
}

/**
 * A parameter that is a whole number from 0 on.
 * @param fallback for one that is not given
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function wholeNumber(given: unknown, name: string, fallback?: number): number {
  const value = given === undefined ? fallback : given;
  const number = typeof value === "bigint" ? Number(value) : value;
  if (typeof number === "number" && Number.isInteger(number) && number >= 0) return number;
  throw refused(name, value, "a whole number from 0 on");
}

function routeNames(value: unknown, limits: Limits): string[] {
  if (value === undefined || value === "") return [];
  const names = typeof value === "string" ? value.split(",").map((name) => name.trim()) : value;
  if (!Array.isArray(names)) throw refused("routes", value, "names of routes, separated by commas");
  if (names.length > limits.entries) {
    throw limitExceeded("The request has", names.length, limits.entries, "routes");
  }
  return names.map((name: unknown) => checkModelName(name, "A name in the parameter routes", limits));
}

function refused(name: string, got: unknown, expected: string): PolyheadError {
  return new PolyheadError(
    "INVALID_ARGUMENT",
    `The parameter ${name} is ${shown(got)}; expected ${expected}.`,
    {
      parameter: name,
      expected,
    },
  );
}
