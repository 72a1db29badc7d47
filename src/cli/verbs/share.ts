/** `polyhead share`: what several models have in common. */
import { basename } from "node:path";
import type { Command } from "commander";
import { type Shared, shareReport } from "../../onnx/share.js";
import { count, table } from "../format.js";
import { type Outcome, performs } from "../outcome.js";
import { readSourceModel } from "../source-model.js";

/** Adds the verb. */
export function addShare(program: Command): void {
  const command = program
    .command("share")
    .description("show what models have in common")
    .argument("<models...>", "ONNX files, or any other that import takes");
  performs(command, perform);
}

async function perform(paths: readonly string[]): Promise<Outcome> {
  const short = paths.map((path) => basename(path, ".onnx"));
  const areUnique = new Set(short).size === short.length;
  const models = await Promise.all(
    paths.map(async (path, at) => ({
      name: areUnique ? (short[at] ?? path) : path,
      model: (await readSourceModel(path)).model,
    })),
  );
  const report = await shareReport(models);
  const both = ({ separate, shared }: Shared) => `${count(separate)} separately, ${count(shared)} together`;
  return {
    data: report,
    text: [
      ...table([
        ["used by", "nodes", "parameters", "FLOPs"],
        ...report.segments.map(({ usedBy, nodes, parameters, flops }) => [
          usedBy.join(", "),
          nodes,
          count(parameters),
          count(flops),
        ]),
      ]),
      `parameters: ${both(report.parameters)}`,
      `FLOPs per row: ${both(report.flops)}`,
    ],
  };
}
