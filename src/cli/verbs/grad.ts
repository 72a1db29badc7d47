/** `polyhead grad`: loss and gradients of one batch, for comparison with other tools. */
import { type Command, Option } from "commander";
import { loadModel, readFileBytes, writeFileAtomic } from "../../files/disk.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { openModelOn } from "../../runtime/open-model.js";
import { Runtime } from "../../runtime/runtime.js";
import { readNpz, writeNpz } from "../../tensor/npz.js";
import { float32 } from "../../tensor/tensor.js";
import { arrayBatches } from "../../train/array-batches.js";
import { NORM_MODES, type NormMode } from "../../train/batch-norms.js";
import { batchGradients } from "../../train/gradients.js";
import { TrainingModel } from "../../train/training-model.js";
import { addLossOptions, arrayLossOf, type LossOptions } from "../loss-option.js";
import { type Outcome, performs } from "../outcome.js";

interface Options extends LossOptions {
  readonly npz: string;
  readonly norms: NormMode;
  readonly out: string;
}

/** Adds the verb. */
export function addGrad(program: Command): void {
  const command = program
    .command("grad")
    .description("compute the loss of one batch and its gradients")
    .argument("<model>", "ONNX file")
    .requiredOption("--npz <file>", "arrays x and y: one batch, or several, of which the first is taken")
    .addOption(
      new Option("--norms <mode>", "batch norms: frozen uses their running statistics, batch the batch's")
        .choices(NORM_MODES)
        .default("frozen"),
    )
    .requiredOption("--out <file>", "npz file for loss and grad/PARAMETER");
  performs(addLossOptions(command), perform);
}

async function perform(path: string, options: Options): Promise<Outcome> {
  const model = new TrainingModel(await loadModel(path), { norms: options.norms });
  model.requireNorms();
  const arrays = readNpz(await readFileBytes(options.npz));
  const [batch] = arrayBatches(model, arrays, arrayLossOf(options));
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    const { loss, gradients } = await batchGradients(
      openModelOn(runtime),
      model,
      batch?.inputs ?? new Map(),
      batch?.terms ?? [],
    );
    const named = [...gradients].map(([name, value]) => [`grad/${name}`, value] as const);
    await writeFileAtomic(options.out, writeNpz(new Map([["loss", float32([], [loss])], ...named])));
    const without = model.parameters.filter((name) => !gradients.has(name));
    const parameters = [...gradients.keys()];
    return {
      data: { path: options.out, loss, parameters, without, notes: model.notes },
      text: [
        ...model.notes,
        `${options.out}: loss ${loss}, gradients of ${parameters.length} parameters`,
        ...(without.length > 0 ? [`without influence on the loss: ${without.join(", ")}`] : []),
      ],
    };
  } finally {
    await runtime.close();
  }
}
