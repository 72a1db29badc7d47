/** `polyhead tune --npz`: full training on batches of arrays as they stand. */
import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import { basename } from "node:path";
import { Checkpoints } from "../../files/checkpoint.js";
import { loadModel, readFileBytes, requireWritable, saveModel } from "../../files/disk.js";
import { readMetadata, withMetadata } from "../../onnx/metadata.js";
import type { Model } from "../../onnx/model.js";
import { revisionOf } from "../../onnx/revision.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { Runtime } from "../../runtime/runtime.js";
import { readNpz } from "../../tensor/npz.js";
import { arrayBatches } from "../../train/array-batches.js";
import { groupsOf } from "../../train/parameter-rules.js";
import { type TrainedBatches, trainBatches } from "../../train/train-batches.js";
import { Trainer } from "../../train/trainer.js";
import { TrainingModel } from "../../train/training-model.js";
import { arrayLossOf } from "../loss-option.js";
import { versions } from "../manifest.js";
import type { Outcome } from "../outcome.js";
import { progressBar } from "../progress.js";
import { checkpointFolder } from "./checkpoint-folder.js";
import { groupsOfRate, optimizerOf, scheduleOf, type TuneOptions } from "./options.js";

/**
 * Trains everything of a model on the batches in `--npz`.
 * @throws PolyheadError as `arrayBatches`, `trainBatches` and `Checkpoints` do; ALREADY_EXISTS for a training that was
 *   interrupted and is not gone on with
 */
export async function tuneArrays(path: string, npz: string, options: TuneOptions): Promise<Outcome> {
  const { way, out, lr = 1e-3, steps, seed, order, accumulate, norms, threads, checkpointSteps } = options;
  const { recompute = false } = options;
  const folder = await checkpointFolder(options);
  await requireWritable(out);
  const given = await loadModel(path);
  const model = new TrainingModel(given, { norms });
  model.requireNorms();
  const bytes = await readFileBytes(npz);
  const { loss, ...target } = arrayLossOf(options);
  const batches = arrayBatches(model, readNpz(bytes), { loss, ...target });
  const optimizer = optimizerOf(options);
  const schedule = scheduleOf(options, { kind: "constant", warmup: 0 });
  const isStatistic = new Set(model.statistics());
  const groups = groupsOfRate(options.group, lr);
  const groupOf = groups && groupsOf(groups, model.parameters);
  const { clip, average } = options;
  const settings = {
    ...{ loss, ...target, optimizer, rate: lr, schedule, clip, average, groups },
    ...{ steps, seed, order, accumulate, norms },
  };
  const data = createHash("sha256").update(bytes).digest("hex");
  const modelRevision = await revisionOf(given);
  const checkpoints = new Checkpoints(folder, {
    settings: { ...settings, threads, ...(recompute && { recompute }) },
    ...{ data, model: modelRevision },
  });
  const saved = await checkpoints.load();
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    const trainer = new Trainer(runtime, model, {
      ...{ optimizer, threads, recompute, clipNorm: clip, average },
      ...(groupOf && { groupOf }),
      ...(saved && { state: saved.arrays, steps: saved.step }),
    });
    const bar = progressBar("steps");
    const trained = await trainBatches(trainer, batches, {
      ...{ steps, rate: lr, schedule, order, seed, accumulate },
      before: (saved?.progress as Progress | undefined)?.losses ?? [],
      onStep: async (done, total, losses) => {
        bar(done, total);
        if (checkpointSteps === undefined || done % checkpointSteps !== 0) return;
        await checkpoints.save({
          step: done,
          arrays: await trainer.state(),
          progress: { losses } satisfies Progress,
        });
      },
    });
    const result = withTraining(model.withValues(trained.parameters), {
      ...{ way, model: basename(path), modelRevision, settings, seed, versions },
      data: { file: basename(npz), sha256: data },
      losses: { first: trained.losses[0], last: trained.losses.at(-1), final: trained.final },
    });
    await saveModel(out, result);
    await rm(folder, { recursive: true, force: true });
    const renewed = [...trained.parameters.keys()];
    const statistics = renewed.filter((name) => isStatistic.has(name));
    const parameters = renewed.filter((name) => !isStatistic.has(name));
    return {
      data: {
        path: out,
        losses: trained.losses,
        final: trained.final,
        parameters,
        ...(norms === "batch" && { statistics }),
        notes: model.notes,
      },
      text: describe(out, trained, { parameters, statistics }, model.notes),
    };
  } finally {
    await runtime.close();
  }
}

/** What is kept beside the arrays. */
interface Progress {
  readonly losses: readonly number[];
}

/** The model with how it was trained beside where it came from; what was measured of it before holds no more. */
function withTraining(model: Model, training: Readonly<Record<string, unknown>>): Model {
  const { provenance } = readMetadata(model);
  return withMetadata(model, {
    provenance: { ...provenance, training: { by: "polyhead tune", ...training } },
    quality: undefined,
  });
}

function describe(
  out: string,
  { losses, final }: TrainedBatches,
  { parameters, statistics }: Readonly<Record<"parameters" | "statistics", readonly string[]>>,
  notes: readonly string[],
): string[] {
  const shown = (loss: number | undefined) => loss?.toFixed(4) ?? "";
  return [
    ...notes,
    `${out}: ${parameters.length} parameters trained in ${losses.length} steps${statistics.length > 0 ? `; ${statistics.length} running statistics followed` : ""}`,
    `loss ${shown(losses[0])} in the first step, ${shown(losses.at(-1))} in the last; ${shown(final)} on the first batch afterwards`,
  ];
}
