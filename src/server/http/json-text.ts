/**
 * JSON with whole numbers of any length. `JSON.parse` rounds those beyond 2^53, which would change an INT64
 * without a word, so texts that have long numbers are read with these as bigints.
 */
import { randomUUID } from "node:crypto";
import { asError, PolyheadError } from "../../base/errors.js";

/** Numbers of up to 15 digits are exact. */
const LONG = /\d{16}/;
const LONG_OR_QUOTE = /"|-?\d{16,}/g;
const MARK = `${randomUUID()}:`;

/**
 * The value of a JSON text; whole numbers of 16 digits and more are bigints.
 * @param what has the text, as the beginning of a sentence: `The body`
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  const text = decode(bytes, what);
  const value = parse(text, what);
  if (!LONG.test(text)) return value;
  const marked = markLongNumbers(text);
  if (marked === text) return value;
  try {
    return JSON.parse(marked, revive);
  } catch (thrown) {
    // The reviver is called by recursion.
    if (!(thrown instanceof RangeError)) throw thrown;
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${what} has lists within lists too deep; expected a few levels.`,
      {},
    );
  }
}

function decode(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new PolyheadError("INVALID_ARGUMENT", `${what} is not UTF-8; expected JSON.`, {});
  }
}

function parse(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (thrown) {
    const hint = /\b(NaN|Infinity)\b/.test(text) ? " JSON has no NaN or Infinity; write them as texts." : "";
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${what} is not JSON: ${asError(thrown).message}.${hint}`,
      {},
    );
  }
}

/** Puts long whole numbers of a valid JSON text between quotes, behind a mark that no client can know. */
function markLongNumbers(text: string): string {
  const parts: string[] = [];
  let kept = 0;
  LONG_OR_QUOTE.lastIndex = 0;
  for (let match = LONG_OR_QUOTE.exec(text); match; match = LONG_OR_QUOTE.exec(text)) {
    const [found] = match;
    if (found === '"') {
      LONG_OR_QUOTE.lastIndex = afterString(text, match.index);
      continue;
    }
    const end = match.index + found.length;
    const isPart = /[\d.eE+]/.test(text.charAt(match.index - 1)) || /[.eE]/.test(text.charAt(end));
    if (isPart) continue;
    parts.push(text.slice(kept, match.index), `"${MARK}${found}"`);
    kept = end;
  }
  return parts.join("") + text.slice(kept);
}

function afterString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const character = text.charAt(at);
    if (character === "\\") at++;
    else if (character === '"') return at + 1;
  }
  return text.length;
}

function revive(_key: string, value: unknown): unknown {
  return typeof value === "string" && value.startsWith(MARK) ? BigInt(value.slice(MARK.length)) : value;
}
