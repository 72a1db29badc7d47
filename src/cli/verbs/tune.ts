/** `polyhead tune`: trains a model, or a part of it. */
import { availableParallelism } from "node:os";
import { type Command, Option } from "commander";
import { PolyheadError } from "../../base/errors.js";
import { defaultCacheFolder } from "../../teach/feature-cache.js";
import { NORM_MODES } from "../../train/batch-norms.js";
import { OPTIMIZER_KINDS } from "../../train/optimizers.js";
import { SCHEDULE_KINDS } from "../../train/schedules.js";
import { HEAD_KINDS } from "../../tune/head-network.js";
import { withControlOptions } from "../control/open-control.js";
import { addLossOptions } from "../loss-option.js";
import {
  readCount,
  readCounts,
  readDecay,
  readNumber,
  readPositive,
  readShare,
  readWholeNumber,
} from "../option-numbers.js";
import { type Outcome, performs } from "../outcome.js";
import { readGroup, type TuneOptions, WAYS } from "../tune/options.js";
import { tuneArrays } from "../tune/tune-arrays.js";
import { tuneBoxes } from "../tune/tune-boxes.js";
import { tuneClasses } from "../tune/tune-classes.js";
import { requireUses } from "../tune/uses.js";

/** Adds the verb. */
export function addTune(program: Command): void {
  const command = program
    .command("tune")
    .description("train a head, a branch or all of a model")
    .argument("<model>", "ONNX file of a backbone or of a whole model")
    .addOption(
      new Option(
        "--way <name>",
        "what is trained: a head on the frozen backbone, a branch of it, everything, or a detector on boxes",
      )
        .choices(WAYS)
        .default("full"),
    )
    .option(
      "--data <path>",
      "images with one class each: a folder of folders, or a list; for detect boxes, as COCO or Pascal VOC have them",
    )
    .option(
      "--tap <name>",
      "value that the head reads; the only tap, or what enters the classifier, by default; for detect maps, by commas",
    )
    .option("--preprocess <recipe>", "how images become the input, where the model does not say it")
    .addOption(new Option("--channels <place>", "where the tap has its channels").choices(["first", "last"]))
    .option("--cache <folder>", "folder for computed features, or none", defaultCacheFolder())
    .addOption(new Option("--head <shape>", "what the head is made of").choices(HEAD_KINDS).default("linear"))
    .option(
      "--hidden <count>",
      "width of an mlp's or a convolution's inner layer, 128; of a detection head's, 64",
      readCount,
    )
    .option(
      "--freeze <value>",
      "for a branch: the value up to which the backbone is frozen, or auto; for detect: none trains it too",
      "auto",
    )
    .option("--depths <count>", "with auto: how many depths to measure beside the head alone", readCount, 3)
    .option("--folds <count>", "judge by cross-validation of so many parts; 5 for a head", readCount)
    .option("--validation <share>", "judge by examples held back; 0.2 for a branch and full", readShare)
    .option("--epochs <count>", "passes over the images; 10 by default", readCount)
    .option("--batch <count>", "images in a step; 16 by default", readCount)
    .option("--augment <strength>", "random views: none, light, standard, strong or a record; light for full")
    .option(
      "--patience <epochs>",
      "epochs without something better after which it stops; 3 by default",
      readCount,
    )
    .option("--balance", "let rare classes weigh more, so that all weigh the same together")
    .option("--bad <count>", "most images that may be left out", readWholeNumber)
    .option(
      "--other <head:folder...>",
      "for full: heads of the backbone, and images to measure their loss on",
    )
    .option("--backbone-out <file>", "for full: ONNX file for the new backbone; beside the head by default")
    .option(
      "--checkpoint <folder>",
      "where the training is kept while it goes on; beside the head by default",
    )
    .option(
      "--checkpoint-steps <count>",
      "steps between checkpoints, beside those after each epoch of images",
      readCount,
    )
    .option("--resume", "go on with a training that was interrupted")
    .option("--report <file>", "the page about the training, or none; beside the head by default")
    .option("--publish <route>", "let the trained head answer for a route of a server or store")
    .option("--npz <file>", "arrays x and y: one batch, or [steps, batch, ...]")
    .addOption(
      new Option("--order <name>", "batches as they stand, or shuffled each time")
        .choices(["given", "shuffled"])
        .default("given"),
    )
    .addOption(new Option("--optimizer <name>", "how to step").choices([...OPTIMIZER_KINDS]).default("adam"))
    .option("--lr <rate>", "learning rate", readNumber)
    .option("--momentum <share>", "with sgd", readShare)
    .option("--nesterov", "look ahead along the momentum, with sgd")
    .option("--weight-decay <number>", "pull towards zero; with adamw apart from the gradient", readNumber)
    .addOption(new Option("--schedule <name>", "how the rate goes on").choices([...SCHEDULE_KINDS]))
    .option("--warmup <steps>", "steps over which the rate rises", readWholeNumber)
    .option(
      "--milestones <steps>",
      "steps after which the schedule step takes a tenth of the rate: 100,200",
      readCounts,
    )
    .option("--clip <length>", "longest gradient of all parameters together", readPositive)
    .option(
      "--average <decay>",
      "train to the moving average of the parameters with this decay, such as 0.99",
      readDecay,
    )
    .option(
      "--group <pattern=rate,decay...>",
      "parameters with a learning rate or a weight decay of their own: '*.bias=,0' 'features.*=1e-5'",
      readGroup,
    )
    .option("--accumulate <count>", "batches whose gradients make one step", readCount, 1)
    .addOption(
      new Option(
        "--norms <mode>",
        "batch norms: frozen keeps their running statistics, batch takes the batch's and lets the running ones follow",
      )
        .choices(NORM_MODES)
        .default("frozen"),
    )
    .option("--recompute", "compute activations again rather than keep them: less memory, longer steps")
    .option("--steps <count>", "steps to take", readCount, 100)
    .option("--seed <number>", "decides what is left to chance", readWholeNumber, 0)
    .option("--threads <count>", "threads to compute with", readCount, availableParallelism())
    .requiredOption("-o, --out <file>", "ONNX file for the trained model");
  performs(withControlOptions(addLossOptions(command), true), perform);
}

async function perform(path: string, options: TuneOptions, command: Command): Promise<Outcome> {
  const { way, data, npz } = options;
  if (npz !== undefined && way !== "full") {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Arrays train all of a model: --npz goes with --way full; got ${way}.`,
      {
        got: way,
        expected: "full",
      },
    );
  }
  requireUses(command, npz === undefined ? way : "arrays");
  if (npz !== undefined) return tuneArrays(path, npz, options);
  if (data !== undefined && way === "detect") return tuneBoxes(path, data, options);
  if (data !== undefined && way !== "detect") return tuneClasses(path, data, { ...options, way });
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    "There is nothing to learn from; give images with --data, or arrays with --npz.",
    {},
  );
}
