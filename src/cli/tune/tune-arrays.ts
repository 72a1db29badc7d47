/** `polyhead tune --npz`: full training on batches of arrays as they stand. */
import { createHash } from "node:crypto";
import { basename } from "node:path";
import { loadModel, readFileBytes, saveModel } from "../../files/disk.js";
import { readMetadata, withMetadata } from "../../onnx/metadata.js";
import type { Model } from "../../onnx/model.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { Runtime } from "../../runtime/runtime.js";
import { readNpz } from "../../tensor/npz.js";
import { arrayBatches } from "../../train/array-batches.js";
import { groupsOf } from "../../train/parameter-rules.js";
import { type TrainedBatches, trainBatches } from "../../train/train-batches.js";
import { Trainer } from "../../train/trainer.js";
import { TrainingModel } from "../../train/training-model.js";
import { arrayLossOf } from "../loss-option.js";
import { manifest } from "../manifest.js";
import type { Outcome } from "../outcome.js";
import { progressBar } from "../progress.js";
import { groupsOfRate, optimizerOf, scheduleOf, type TuneOptions } from "./options.js";

/**
 * Trains everything of a model on the batches in `--npz`.
 * @throws PolyheadError as `arrayBatches` and `trainBatches` do
 */
export async function tuneArrays(path: string, npz: string, options: TuneOptions): Promise<Outcome> {
  const { way, out, lr = 1e-3, steps, seed, order, accumulate, threads } = options;
  const model = new TrainingModel(await loadModel(path));
  const bytes = await readFileBytes(npz);
  const { loss, ...target } = arrayLossOf(options);
  const batches = arrayBatches(model, readNpz(bytes), { loss, ...target });
  const optimizer = optimizerOf(options);
  const schedule = scheduleOf(options, { kind: "constant", warmup: 0 });
  const groups = groupsOfRate(options.group, lr);
  const groupOf = groups && groupsOf(groups, model.parameters);
  const { clip, average } = options;
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    const trainer = new Trainer(runtime, model, {
      ...{ optimizer, threads, clipNorm: clip, average },
      ...(groupOf && { groupOf }),
    });
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
      settings: {
        ...{ loss, ...target, optimizer, rate: lr, schedule, clip, average, groups },
        ...{ steps, seed, order, accumulate },
      },
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
