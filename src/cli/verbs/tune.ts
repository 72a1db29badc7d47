/** `polyhead tune`: trains a model on batches of arrays. */
import { createHash } from "node:crypto";
import { availableParallelism } from "node:os";
import { basename } from "node:path";
import { type Command, Option } from "commander";
import { loadModel, readFileBytes, saveModel } from "../../files/disk.js";
import { readMetadata, withMetadata } from "../../onnx/metadata.js";
import type { Model } from "../../onnx/model.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { Runtime } from "../../runtime/runtime.js";
import { readNpz } from "../../tensor/npz.js";
import { arrayBatches } from "../../train/array-batches.js";
import { OPTIMIZER_KINDS, type Optimizer } from "../../train/optimizers.js";
import type { Schedule } from "../../train/schedules.js";
import { type TrainedBatches, trainBatches } from "../../train/train-batches.js";
import { Trainer } from "../../train/trainer.js";
import { TrainingModel } from "../../train/training-model.js";
import { addLossOptions, type LossOptions, lossOf, readCount, readNumber } from "../loss-option.js";
import { manifest } from "../manifest.js";
import { type Outcome, performs } from "../outcome.js";
import { progressBar } from "../progress.js";

interface Options extends LossOptions {
  readonly way: "full";
  readonly npz: string;
  readonly order: "given" | "shuffled";
  readonly optimizer: Optimizer["kind"];
  readonly lr: number;
  readonly momentum?: number;
  readonly nesterov?: boolean;
  readonly weightDecay?: number;
  readonly schedule: NonNullable<Schedule["kind"]>;
  readonly warmup: number;
  readonly clip?: number;
  readonly accumulate: number;
  readonly steps: number;
  readonly seed: number;
  readonly threads: number;
  readonly out: string;
}

/** Adds the verb. */
export function addTune(program: Command): void {
  const command = program
    .command("tune")
    .description("train a model further")
    .argument("<model>", "ONNX file")
    .addOption(
      new Option("--way <name>", "what is trained: full, everything").choices(["full"]).default("full"),
    )
    .requiredOption("--npz <file>", "arrays x and y: one batch, or [steps, batch, ...]")
    .addOption(
      new Option("--order <name>", "batches as they stand, or shuffled each time")
        .choices(["given", "shuffled"])
        .default("given"),
    )
    .addOption(new Option("--optimizer <name>", "how to step").choices([...OPTIMIZER_KINDS]).default("adam"))
    .option("--lr <rate>", "learning rate", readNumber, 1e-3)
    .option("--momentum <share>", "with sgd", readNumber)
    .option("--nesterov", "look ahead along the momentum, with sgd")
    .option("--weight-decay <number>", "pull towards zero; with adamw apart from the gradient", readNumber)
    .addOption(
      new Option("--schedule <name>", "how the rate goes on")
        .choices(["constant", "cosine"])
        .default("constant"),
    )
    .option("--warmup <steps>", "steps over which the rate rises", readNumber, 0)
    .option("--clip <length>", "longest gradient of all parameters together", readNumber)
    .option("--accumulate <count>", "batches whose gradients make one step", readCount, 1)
    .option("--steps <count>", "steps to take", readCount, 100)
    .option("--seed <number>", "decides what is left to chance", readNumber, 0)
    .option("--threads <count>", "threads to compute with", readCount, availableParallelism())
    .requiredOption("-o, --out <file>", "ONNX file for the trained model");
  performs(addLossOptions(command), perform);
}

async function perform(path: string, options: Options): Promise<Outcome> {
  const { way, npz, out, lr, steps, seed, order, accumulate, threads } = options;
  const model = new TrainingModel(await loadModel(path));
  const bytes = await readFileBytes(npz);
  const loss = lossOf(options);
  const batches = arrayBatches(model, readNpz(bytes), { loss, output: options.output });
  const optimizer = optimizerOf(options);
  const schedule = { kind: options.schedule, warmup: options.warmup };
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    const trainer = new Trainer(runtime, model, { optimizer, threads, clipNorm: options.clip });
    const bar = progressBar("steps");
    const trained = await trainBatches(trainer, batches, {
      steps,
      rate: lr,
      schedule,
      order,
      seed,
      accumulate,
      onStep: (done, total) => bar(done, total),
    });
    const result = withTraining(model.withValues(trained.parameters), {
      way,
      model: basename(path),
      data: { file: basename(npz), sha256: createHash("sha256").update(bytes).digest("hex") },
      settings: { loss, optimizer, rate: lr, schedule, clip: options.clip, steps, seed, order, accumulate },
      losses: { first: trained.losses[0], last: trained.losses.at(-1), final: trained.final },
    });
    await saveModel(out, result);
    return {
      data: {
        path: out,
        losses: trained.losses,
        final: trained.final,
        parameters: [...trained.parameters.keys()],
        notes: model.notes,
      },
      text: describe(out, trained, model.notes),
    };
  } finally {
    await runtime.close();
  }
}

function optimizerOf({ optimizer, momentum, nesterov, weightDecay }: Options): Optimizer {
  const decay = weightDecay === undefined ? {} : { weightDecay };
  if (optimizer !== "sgd") return { kind: optimizer, ...decay };
  return {
    kind: optimizer,
    ...decay,
    ...(momentum !== undefined && { momentum }),
    ...(nesterov && { nesterov }),
  };
}

/** The model with how it was trained beside where it came from; what was measured of it before holds no more. */
function withTraining(model: Model, training: Readonly<Record<string, unknown>>): Model {
  const { provenance } = readMetadata(model);
  return withMetadata(model, {
    provenance: { ...provenance, training: { by: "polyhead tune", polyhead: manifest.version, ...training } },
    quality: undefined,
  });
}

function describe(
  out: string,
  { losses, final, parameters }: TrainedBatches,
  notes: readonly string[],
): string[] {
  const shown = (loss: number | undefined) => loss?.toFixed(4) ?? "";
  return [
    ...notes,
    `${out}: ${parameters.size} parameters trained in ${losses.length} steps`,
    `loss ${shown(losses[0])} in the first step, ${shown(losses.at(-1))} in the last; ${shown(final)} on the first batch afterwards`,
  ];
}
