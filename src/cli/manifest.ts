/** Name and versions of this package, from its own `package.json`. */
import { readFileSync } from "node:fs";

/** What the command says of itself. */
export const manifest: {
  readonly version: string;
  readonly description: string;
  readonly dependencies: Readonly<Record<string, string>>;
} = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));

/** Versions of what makes a model, for its metadata. */
export const versions: Readonly<Record<string, string>> = {
  polyhead: manifest.version,
  "onnxruntime-node": manifest.dependencies["onnxruntime-node"] ?? "",
};
