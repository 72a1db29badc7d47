/**
 * How a verb ends: one outcome, printed as text for people or, with `--json`, as exactly one JSON document on
 * standard output. Failures leave through here too, with the exit status that the catalogue gives their code.
 */
import type { Command } from "commander";
import { asPolyheadError } from "../base/errors.js";

/** What a verb has to say. */
export interface Outcome {
  /** For programs; JSON-serialisable. */
  readonly data: unknown;
  /** For people: lines without a line end. */
  readonly text: readonly string[];
}

/** Wraps what a verb does into a commander action with a `--json` option. */
export function performs<Arguments extends unknown[]>(
  command: Command,
  perform: (...given: Arguments) => Promise<Outcome>,
): Command {
  return command.option("--json", "print one JSON document").action(async (...given: unknown[]) => {
    const asJson = command.opts<{ json?: boolean }>().json === true;
    try {
      const { data, text } = await perform(...(given as Arguments));
      process.stdout.write(asJson ? `${JSON.stringify(data)}\n` : text.map((line) => `${line}\n`).join(""));
    } catch (thrown) {
      const error = asPolyheadError(thrown, "INTERNAL", "polyhead failed");
      if (asJson) process.stdout.write(`${JSON.stringify({ error })}\n`);
      process.stderr.write(`polyhead: ${error.message} (${error.code})\n`);
      if (error.code === "INTERNAL" && error.cause instanceof Error) {
        process.stderr.write(`${error.cause.stack ?? ""}\n`);
      }
      process.exitCode = error.status.exit;
    }
  });
}
