/** `polyhead split`: a model into a backbone and its heads, proved equal before anything is written. */
import { join } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { loadModel, saveModels } from "../../files/disk.js";
import { parameterCount } from "../../onnx/cost.js";
import { toEvaluation } from "../../onnx/evaluation.js";
import { splitModel } from "../../onnx/split.js";
import { upgraded } from "../../onnx/upgrade.js";
import { type Proof, proveSplit } from "../../onnx/verify.js";
import { formatShape } from "../../tensor/shape.js";
import { count } from "../format.js";
import { type Outcome, performs } from "../outcome.js";
import { inTrial } from "../trial/trial.js";

interface Options {
  readonly at?: string[];
  readonly out: string;
  readonly keepBatch?: boolean;
  readonly size?: ReadonlyMap<string, number>;
}

function sameness({ bitwise, maxAbsDiff, maxRelDiff }: Proof): string {
  return bitwise
    ? `equal bit for bit; optimised, at most ${maxAbsDiff} apart`
    : `equal but for the rounding to half precision at the cut, which is ${maxRelDiff.toExponential(1)} of the outputs' size`;
}

/** Adds the verb. */
export function addSplit(program: Command): void {
  const command = program
    .command("split")
    .description("split a model into a backbone and heads, proved equal, or write nothing")
    .argument("<model>", "ONNX file")
    .option(
      "--at <taps>",
      "values to cut at, separated by commas; the classifier's input or the like by default",
      (text: string) => text.split(","),
    )
    .option(
      "--size <name=number>",
      "size to prove with for an open dimension beside the batch; 64 by default; can be given again",
      readSize,
    )
    .option("--keep-batch", "leave a batch of one as it is")
    .requiredOption("-o, --out <folder>", "folder for the parts");
  performs(command, perform);
}

/** @throws InvalidArgumentError of the command line */
function readSize(text: string, before?: ReadonlyMap<string, number>): ReadonlyMap<string, number> {
  const [, name, size] = /^(.+)=([1-9]\d*)$/.exec(text) ?? [];
  if (name !== undefined) return new Map([...(before ?? []), [name, Number(size)]]);
  throw new InvalidArgumentError(`${JSON.stringify(text)} is no size; expected NAME=NUMBER, height=224 say.`);
}

async function perform(path: string, { at, out, keepBatch = false, size }: Options): Promise<Outcome> {
  const { model, notes: changes } = toEvaluation(await loadModel(path));
  const newer = upgraded(model);
  const split = await splitModel(newer.model, { keepBatch, ...(at && { at }) });
  const proof = await inTrial((open) => proveSplit(model, split, open, size && { sizes: size }));
  const notes = [...changes, ...newer.notes, ...split.notes];
  const backbonePath = join(out, "backbone.onnx");
  const heads = split.heads.map((head) => ({ ...head, path: join(out, `${head.name}.onnx`) }));
  await saveModels([
    [backbonePath, split.backbone],
    ...heads.map((head) => [head.path, head.model] as const),
  ]);
  return {
    data: {
      backbone: { path: backbonePath, taps: split.taps, parameters: parameterCount(split.backbone) },
      heads: heads.map((head) => ({
        name: head.name,
        path: head.path,
        parameters: parameterCount(head.model),
      })),
      proof,
      notes,
    },
    text: [
      ...notes,
      `${backbonePath}: ${count(parameterCount(split.backbone))} parameters`,
      ...split.taps.map(({ name, dtype, shape }) => `  tap ${name}: ${dtype} ${formatShape(shape)}`),
      ...heads.map((head) => `${head.path}: ${count(parameterCount(head.model))} parameters`),
      `proved on ${proof.inputs} random inputs of ${proof.batches.join(" and ")} ${proof.batches.join() === "1" ? "row" : "rows"}: ${sameness(proof)}`,
    ],
  };
}
