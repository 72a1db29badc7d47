/** JSON in the store: always UTF-8, bounded, and never trusted. */
import { asError } from "../base/errors.js";
import { damaged } from "./durable.js";

/** A JSON object of which nothing is known. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Whether a value is a JSON object. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a value is an object of texts only. */
export function isTexts(value: unknown): value is Readonly<Record<string, string>> {
  return isObject(value) && Object.values(value).every((each) => typeof each === "string");
}

/**
 * A JSON object from bytes.
 * @param what names the bytes in the error
 * @throws PolyheadError STORE_DAMAGED
 */
export function parseObject(bytes: Uint8Array, what: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (thrown) {
    throw damaged(`${what} is not JSON: ${asError(thrown).message}`, { what });
  }
  if (isObject(value)) return value;
  throw damaged(`${what} is not a JSON object.`, { what });
}

/** A value as the bytes of a JSON file. */
export function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
