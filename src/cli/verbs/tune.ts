/** `polyhead tune`: trains a model, or a part of it. */
import { availableParallelism } from "node:os";
import { type Command, Option } from "commander";
import { PolyheadError } from "../../base/errors.js";
import { OPTIMIZER_KINDS } from "../../train/optimizers.js";
import { addLossOptions, readCount, readNumber } from "../loss-option.js";
import { type Outcome, performs } from "../outcome.js";
import { type TuneOptions, WAYS } from "../tune/options.js";
import { tuneArrays } from "../tune/tune-arrays.js";

/** Adds the verb. */
export function addTune(program: Command): void {
  const command = program
    .command("tune")
    .description("train a model further")
    .argument("<model>", "ONNX file")
    .addOption(new Option("--way <name>", "what is trained: full, everything").choices(WAYS).default("full"))
    .option("--npz <file>", "arrays x and y: one batch, or [steps, batch, ...]")
    .addOption(
      new Option("--order <name>", "batches as they stand, or shuffled each time")
        .choices(["given", "shuffled"])
        .default("given"),
    )
    .addOption(new Option("--optimizer <name>", "how to step").choices([...OPTIMIZER_KINDS]).default("adam"))
    .option("--lr <rate>", "learning rate", readNumber)
    .option("--momentum <share>", "with sgd", readNumber)
    .option("--nesterov", "look ahead along the momentum, with sgd")
    .option("--weight-decay <number>", "pull towards zero; with adamw apart from the gradient", readNumber)
    .addOption(new Option("--schedule <name>", "how the rate goes on").choices(["constant", "cosine"]))
    .option("--warmup <steps>", "steps over which the rate rises", readNumber)
    .option("--clip <length>", "longest gradient of all parameters together", readNumber)
    .option("--accumulate <count>", "batches whose gradients make one step", readCount, 1)
    .option("--steps <count>", "steps to take", readCount, 100)
    .option("--seed <number>", "decides what is left to chance", readNumber, 0)
    .option("--threads <count>", "threads to compute with", readCount, availableParallelism())
    .requiredOption("-o, --out <file>", "ONNX file for the trained model");
  performs(addLossOptions(command), perform);
}

async function perform(path: string, options: TuneOptions): Promise<Outcome> {
  if (options.npz !== undefined) return tuneArrays(path, options.npz, options);
  throw new PolyheadError("INVALID_ARGUMENT", "There is nothing to learn from; give arrays with --npz.", {});
}
