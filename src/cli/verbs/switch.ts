/** `polyhead switch`: points routes to other revisions, all at once, or back. */
import type { Command } from "commander";
import { PolyheadError } from "../../base/errors.js";
import { type ControlOptions, openControl, withControlOptions } from "../control/open-control.js";
import { earlierTargets } from "../control/rollback.js";
import { namesOf, parseTargets } from "../control/targets.js";
import { type Outcome, performs } from "../outcome.js";

type Options = ControlOptions & { readonly rollback?: boolean };

/** Adds the verb. */
export function addSwitch(program: Command): void {
  const command = program
    .command("switch")
    .description("point routes of a running server or of a store to other revisions, all at once")
    .argument("<changes...>", "NAME=REVISION; the first 8 letters of a revision or more will do")
    .option("--rollback", "point the routes that are named to where they pointed before their last change");
  performs(withControlOptions(command, true), perform);
}

async function perform(words: readonly string[], options: Options): Promise<Outcome> {
  const control = await openControl(options, "change");
  if (!options.rollback) {
    const targets = parseTargets(words, await control.revisions(namesOf(words)));
    const generation = await control.switch(targets);
    return { data: { generation, targets }, text: describe(generation, targets) };
  }
  const assigned = words.find((word) => word.includes("="));
  if (assigned !== undefined) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `--rollback takes names of routes; got ${JSON.stringify(assigned)}.`,
      { got: words },
    );
  }
  const [name = "", ...others] = words;
  if (others.length > 0) {
    const targets = await earlierTargets(control, words);
    const generation = await control.switch(targets);
    return { data: { generation, targets }, text: describe(generation, targets) };
  }
  const generation = await control.rollback(name);
  const route = (await control.routes()).find((each) => each.name === name);
  const targets = { [name]: route?.revisions[0]?.revision ?? "" };
  return { data: { generation, targets }, text: describe(generation, targets) };
}

function describe(generation: number, targets: Readonly<Record<string, string>>): string[] {
  return [
    ...Object.entries(targets).map(([name, revision]) => `${name} -> ${revision}`),
    `holds from generation ${generation} on`,
  ];
}
