/**
 * Typed access to JSON that somebody else wrote. Every function names what it looked for, so that the error
 * for a broken file says where it is broken.
 */
import { PolyheadError } from "../../base/errors.js";

/** A JSON object. */
export type JsonRecord = Readonly<Record<string, unknown>>;

/** The error for a model file that cannot be understood. */
export function malformed(message: string, details: JsonRecord = {}): PolyheadError {
  return new PolyheadError("MODEL_MALFORMED", message, details);
}

/** Whether the value is a JSON object. */
export function isRecord(value: unknown): value is JsonRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * The value as an object.
 * @throws PolyheadError MODEL_MALFORMED
 */
export function asRecord(value: unknown, what: string): JsonRecord {
  if (isRecord(value)) return value;
  throw wrongType(what, "an object", value);
}

/**
 * The value as a list.
 * @throws PolyheadError MODEL_MALFORMED
 */
export function asList(value: unknown, what: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw wrongType(what, "a list", value);
}

/**
 * The value as a string.
 * @throws PolyheadError MODEL_MALFORMED
 */
export function asText(value: unknown, what: string): string {
  if (typeof value === "string") return value;
  throw wrongType(what, "a string", value);
}

/**
 * The value as a finite number; protobuf's JSON writes 64-bit numbers as strings.
 * @throws PolyheadError MODEL_MALFORMED
 */
export function asNumber(value: unknown, what: string): number {
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  if (typeof number === "number" && Number.isFinite(number)) return number;
  throw wrongType(what, "a number", value);
}

/**
 * The value as a whole number that JavaScript can hold exactly.
 * @throws PolyheadError MODEL_MALFORMED
 */
export function asWholeNumber(value: unknown, what: string): number {
  const number = asNumber(value, what);
  if (Number.isSafeInteger(number)) return number;
  throw wrongType(what, "a whole number", value);
}

function wrongType(what: string, expected: string, got: unknown): PolyheadError {
  const shown = (JSON.stringify(got) ?? String(got)).slice(0, 80);
  return malformed(`${what} should be ${expected}; got ${shown}.`, { what, expected, got: shown });
}
