/** The page on training against the code: the operators that have a gradient, the losses and the optimisers. */
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { FAMILIES } from "../../src/train/autodiff/rules.js";
import { LOSS_KINDS } from "../../src/train/losses.js";
import { OPTIMIZER_KINDS } from "../../src/train/optimizers.js";

const page = await readFile(new URL("../../docs/train.md", import.meta.url), "utf8");

describe("docs/train.md", () => {
  it("lists every operator with a rule, by family", () => {
    const block = /<!-- operators -->\n([\s\S]*?)<!-- \/operators -->/.exec(page)?.[1] ?? "";
    const listed = [...block.matchAll(/^\| ([a-z.][a-z .]*) \| (.*) \|$/gm)].map(([, family, list = ""]) => [
      family,
      list.split(", "),
    ]);
    const rules = Object.entries(FAMILIES).map(([family, of]) => [family, Object.keys(of).sort()]);
    expect(listed.filter(([family]) => family !== "family")).toEqual(rules);
  });

  it("names every loss and optimiser", () => {
    for (const name of [...LOSS_KINDS, ...OPTIMIZER_KINDS]) expect(page).toContain(`\`${name}\``);
  });
});
