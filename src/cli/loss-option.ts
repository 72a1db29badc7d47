/** The loss as options of a verb. */
import { type Command, Option } from "commander";
import { LOSS_KINDS, type Loss } from "../train/losses.js";
import { readNumber } from "./option-numbers.js";

/** What the options give. */
export interface LossOptions {
  readonly loss: Loss["kind"];
  readonly output?: string;
  readonly labelSmoothing?: number;
  readonly classWeights?: readonly number[];
  readonly temperature?: number;
}

/** Adds the options to a verb. */
export function addLossOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--loss <name>", "what is made small").choices([...LOSS_KINDS]).default("cross-entropy"),
    )
    .option("--output <name>", "output that the loss looks at; the first by default")
    .option(
      "--label-smoothing <share>",
      "share of each target that all classes get, with cross-entropy",
      readNumber,
    )
    .option(
      "--class-weights <list>",
      "weight of each class, separated by commas, with cross-entropy",
      readNumbers,
    )
    .option("--temperature <number>", "divides both logits, with distillation", readNumber);
}

/** The loss that the options say. */
export function lossOf({ loss, labelSmoothing, classWeights, temperature }: LossOptions): Loss {
  if (loss === "cross-entropy") {
    return {
      kind: loss,
      ...(labelSmoothing !== undefined && { labelSmoothing }),
      ...(classWeights && { classWeights }),
    };
  }
  if (loss === "distillation") return { kind: loss, ...(temperature !== undefined && { temperature }) };
  return { kind: loss };
}

function readNumbers(text: string): number[] {
  return text.split(",").map(readNumber);
}
