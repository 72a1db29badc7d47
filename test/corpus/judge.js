/**
 * Runs the verbs on the models of the folders it is given, one after the other, in this process: what the command does
 * after it has started. Prints a line of JSON for each folder: how each verb ended, and the most memory that this process
 * had taken by then; processes in which models are tried out are bounded by their own watch. The environment may name
 * the verbs (JUDGED_VERBS) and the file in the folder (JUDGED_FILE).
 */
import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Command } from "commander";
import { addImport } from "../../dist/cli/verbs/import.js";
import { addInspect } from "../../dist/cli/verbs/inspect.js";
import { addSplit } from "../../dist/cli/verbs/split.js";

const { JUDGED_VERBS = "inspect,import,split", JUDGED_FILE = "model.onnx" } = process.env;
/** A longer message nobody could read. */
const LONGEST_MESSAGE = 2000;

/** What a verb prints on standard output, which is one JSON document. */
async function outputOf(words) {
  const write = process.stdout.write;
  const errors = process.stderr.write;
  let printed = "";
  process.stdout.write = (text) => {
    printed += text;
    return true;
  };
  process.stderr.write = () => true;
  try {
    const program = new Command("polyhead").exitOverride();
    for (const add of [addInspect, addImport, addSplit]) add(program);
    await program.parseAsync([...words, "--json"], { from: "user" });
  } finally {
    process.stdout.write = write;
    process.stderr.write = errors;
  }
  return JSON.parse(printed);
}

/** How a verb ended: `ok`, the code of an error, or a fault. */
async function endOf(words, out) {
  process.exitCode = 0;
  try {
    const { error } = await outputOf(words);
    if (!error)
      return process.exitCode === 0 ? "ok" : `fault: exit status ${process.exitCode} without an error`;
    const left = existsSync(out) ? readdirSync(out, { recursive: true }) : [];
    if (left.length > 0) return `fault: ${error.code}, but it left ${left.join(", ")}`;
    if (error.message.length > LONGEST_MESSAGE)
      return `fault: a message of ${error.message.length} characters`;
    return error.code === "INTERNAL" || process.exitCode === 0
      ? `fault: ${error.code}, ${error.message}`
      : error.code;
  } catch (thrown) {
    return `fault: ${thrown instanceof Error ? thrown.stack : thrown}`;
  } finally {
    process.exitCode = 0;
    rmSync(out, { recursive: true, force: true });
  }
}

for (const folder of process.argv.slice(2)) {
  const [model, out] = [join(folder, JUDGED_FILE), join(folder, "out")];
  const ends = {};
  for (const verb of JUDGED_VERBS.split(",")) {
    const to = { inspect: [], import: ["-o", join(out, "imported.onnx")], split: ["-o", join(out, "parts")] }[
      verb
    ];
    ends[verb] = await endOf([verb, model, ...to], out);
  }
  const mebibytes = Math.round(process.resourceUsage().maxRSS / 1024);
  process.stdout.write(`${JSON.stringify({ folder, ends, mebibytes })}\n`);
}
