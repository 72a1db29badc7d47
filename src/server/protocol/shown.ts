/** How a client's value looks in a message: short, whatever was sent. */

const LENGTH = 60;

/** The value as JSON when it is short and flat, else what kind of value it is. */
export function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "string") {
    return JSON.stringify(value.length > LENGTH ? `${value.slice(0, LENGTH)}...` : value);
  }
  return typeof value === "object" && value !== null ? "an object" : String(value);
}
