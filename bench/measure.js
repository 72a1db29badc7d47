/** Measuring: interleaved rounds, quartiles, tables. Nothing here knows what is measured. */

/**
 * @typedef {{ n: number, min: number, q1: number, median: number, q3: number, p99: number, max: number }} Summary
 */

/**
 * The value below which a share of the samples lies, between neighbours in proportion.
 * @param {readonly number[]} sorted ascending
 * @param {number} share
 */
export function quantile(sorted, share) {
  const place = (sorted.length - 1) * share;
  const low = sorted[Math.floor(place)] ?? Number.NaN;
  const high = sorted[Math.ceil(place)] ?? Number.NaN;
  return low + (high - low) * (place - Math.floor(place));
}

/**
 * @param {readonly number[]} samples
 * @returns {Summary}
 */
export function summarise(samples) {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (/** @type {number} */ share) => quantile(sorted, share);
  return {
    n: sorted.length,
    min: at(0),
    q1: at(0.25),
    median: at(0.5),
    q3: at(0.75),
    p99: at(0.99),
    max: at(1),
  };
}

/**
 * Runs all cases in every round, in an order that rotates, so that what slows the machine for a while slows all
 * of them; the first rounds only warm up.
 * @template {string} Name
 * @param {Readonly<Record<Name, () => Promise<unknown>>>} cases
 * @param {{ rounds: number, warmUp?: number }} options
 * @returns {Promise<Record<Name, Summary>>} milliseconds
 */
export async function interleave(cases, { rounds, warmUp = 2 }) {
  const names = /** @type {Name[]} */ (Object.keys(cases));
  const samples = new Map(names.map((name) => [name, /** @type {number[]} */ ([])]));
  for (let round = -warmUp; round < rounds; round++) {
    const turn = (round + warmUp) % names.length;
    for (const name of [...names.slice(turn), ...names.slice(0, turn)]) {
      const start = performance.now();
      await cases[name]();
      if (round >= 0) samples.get(name)?.push(performance.now() - start);
    }
  }
  return /** @type {Record<Name, Summary>} */ (
    Object.fromEntries(names.map((name) => [name, summarise(samples.get(name) ?? [])]))
  );
}

/**
 * Milliseconds (or whatever it is) with three significant digits.
 * @param {number} value
 */
export function digits(value) {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/**
 * Median and quartiles in one cell.
 * @param {Summary} summary
 */
export function spread({ median, q1, q3 }) {
  return `${digits(median)} (${digits(q1)}-${digits(q3)})`;
}

/**
 * A table for people; numbers are aligned as text.
 * @param {readonly (readonly string[])[]} rows the first one is the head
 */
export function table(rows) {
  const widths = (rows[0] ?? []).map((_, at) => Math.max(...rows.map((row) => (row[at] ?? "").length)));
  const line = (/** @type {readonly string[]} */ row) =>
    `| ${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(" | ")} |`;
  const [head = [], ...body] = rows;
  return [line(head), `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`, ...body.map(line)].join(
    "\n",
  );
}
