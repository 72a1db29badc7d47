// Walks the project's own files, for the checks.
import { readdirSync } from "node:fs";
import { join, relative, sep } from "node:path";

const NOT_OURS = new Set(["node_modules", "dist", "out", "generated"]);

/**
 * Paths below `folder` that end in `ending`, relative to `root`, with forward slashes and in order; hidden
 * folders, build output and generated sources are left out, and so is a folder that does not exist.
 * @param {string} root
 * @param {string} folder
 * @param {string} ending
 */
export function filesBelow(root, folder, ending) {
  const found = /** @type {string[]} */ ([]);
  const visit = (/** @type {string} */ path) => {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      const inner = join(path, entry.name);
      if (entry.isDirectory() && !entry.name.startsWith(".") && !NOT_OURS.has(entry.name)) visit(inner);
      if (entry.isFile() && entry.name.endsWith(ending))
        found.push(relative(root, inner).split(sep).join("/"));
    }
  };
  visit(join(root, folder));
  return found.sort();
}

/** TypeScript sources below src/ without tests and generated files. */
export function sourceFiles(/** @type {string} */ root) {
  return filesBelow(root, "src", ".ts").filter((path) => !path.endsWith(".test.ts"));
}

/**
 * Number of the line, from 1, that holds the character at `position`.
 * @param {string} text
 * @param {number} position
 */
export function lineAt(text, position) {
  return text.slice(0, position).split("\n").length;
}

/**
 * Prints the offences and a verdict, and sets the exit status.
 * @param {string} check
 * @param {readonly string[]} offences
 */
export function report(check, offences) {
  for (const offence of offences) console.error(offence);
  console.error(offences.length === 0 ? `${check}: ok` : `${check}: ${offences.length} offence(s)`);
  process.exitCode = offences.length === 0 ? 0 : 1;
}
