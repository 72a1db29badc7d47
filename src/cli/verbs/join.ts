/** `polyhead join`: a backbone and what reads it as one model again. */
import type { Command } from "commander";
import { loadModel, saveModel } from "../../files/disk.js";
import { parameterCount } from "../../onnx/cost.js";
import { GraphIndex } from "../../onnx/graph.js";
import { joinModels } from "../../onnx/join.js";
import { count } from "../format.js";
import { type Outcome, performs } from "../outcome.js";

/** Adds the verb. */
export function addJoin(program: Command): void {
  const command = program
    .command("join")
    .description("join a backbone, adapters if any, and heads into one model")
    .argument("<backbone>", "ONNX file of the backbone")
    .argument("<parts...>", "ONNX files of adapters and heads, each after what it reads")
    .requiredOption("-o, --out <file>", "ONNX file to write");
  performs(command, perform);
}

async function perform(
  backbone: string,
  parts: readonly string[],
  { out }: { readonly out: string },
): Promise<Outcome> {
  const joined = await joinModels(await loadModel(backbone), ...(await Promise.all(parts.map(loadModel))));
  const index = new GraphIndex(joined.graph);
  const bytes = await saveModel(out, joined);
  const inputs = index.inputs.map(({ name }) => name);
  const outputs = index.outputNames;
  const parameters = parameterCount(joined);
  return {
    data: { path: out, inputs, outputs, parameters, bytes },
    text: [`${out}: ${inputs.join(", ")} to ${outputs.join(", ")}, ${count(parameters)} parameters`],
  };
}
