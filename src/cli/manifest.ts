/** Name and version of this package, from its own `package.json`. */
import { readFileSync } from "node:fs";

/** What the command says of itself. */
export const manifest: {
  readonly version: string;
  readonly description: string;
  readonly dependencies: Readonly<Record<string, string>>;
} = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
