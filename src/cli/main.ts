/**
 * The command `polyhead`: its verbs and options. Everything a verb does lives in the folders below; this
 * file only reads the arguments.
 */
import { readFileSync } from "node:fs";
import { Command } from "commander";

const manifest: { version: string; description: string } = JSON.parse(
  readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
);

await new Command("polyhead").description(manifest.description).version(manifest.version).parseAsync();
