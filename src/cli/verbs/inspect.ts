/** `polyhead inspect`: what a model takes and gives, what it is made of and costs, and where it can be cut. */
import { basename } from "node:path";
import type { Command } from "commander";
import { PolyheadError } from "../../base/errors.js";
import { loadModel } from "../../files/disk.js";
import { type Cost, costOf } from "../../onnx/cost.js";
import { type Cut, candidateCuts } from "../../onnx/cuts.js";
import { type Evaluation, toEvaluation } from "../../onnx/evaluation.js";
import { GraphIndex } from "../../onnx/graph.js";
import { type Metadata, readMetadata } from "../../onnx/metadata.js";
import {
  canonicalDomain,
  declaredType,
  type Model,
  type ValueInfo,
  type ValueType,
} from "../../onnx/model.js";
import { inferTypes } from "../../onnx/shapes.js";
import { formatShape, type SymbolicShape } from "../../tensor/shape.js";
import { count, table } from "../format.js";
import { type Outcome, performs } from "../outcome.js";
import { describeSource, readSourceModel } from "../source-model.js";

/** What one model is, as `--json` prints it. */
interface Report {
  readonly file: string;
  /** The program that wrote the file, with its version; empty when it does not say. */
  readonly producer: string;
  /** Versions of the operator sets by domain. */
  readonly opsets: Readonly<Record<string, number>>;
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
  /** Nodes of the main graph by operator, most frequent first. */
  readonly operators: Readonly<Record<string, number>>;
  readonly parameters: number;
  /** Floating-point operations for one row of a batch; a multiply-accumulate is two. */
  readonly flops: number;
  readonly metadata: Metadata;
  /** None when `split` refuses the model. */
  readonly cuts: readonly CutReport[];
  /** What was put into evaluation mode, as `split` does it, or why `split` refuses the model. */
  readonly notes: readonly string[];
}

/** A value's name and type; null stands for what is not known. */
interface Value {
  readonly name: string;
  readonly dtype: string | null;
  readonly shape: SymbolicShape | null;
}

interface CutReport {
  readonly isDefault: boolean;
  readonly values: readonly Value[];
  readonly backbone: Cost;
  readonly head: Cost;
}

/** Adds the verb. */
export function addInspect(program: Command): void {
  const command = program
    .command("inspect")
    .description("show what a model takes, gives and costs, and where it can be cut")
    .argument("<model>", "ONNX file, or any other that import takes");
  performs(command, perform);
}

async function perform(path: string): Promise<Outcome> {
  const { format, label, isSure } = await describeSource(path);
  // An ONNX file is shown as it is, and not as import would write it.
  const isForeign = format !== "onnx" && isSure;
  const source = isForeign ? await readSourceModel(path) : { model: await loadModel(path), notes: [] };
  const { model, notes: changes, isRefused } = evaluated(source.model);
  const notes = [...(isForeign ? [`Read as ${label}, as import does.`] : []), ...source.notes, ...changes];
  const report = inspect(basename(path), model);
  const cuts = isRefused ? [] : report.cuts;
  const seen = { ...report, cuts, notes };
  return { data: seen, text: describe(seen) };
}

/** The model as `split` sees it; as it is when `split` refuses it. */
function evaluated(model: Model): Evaluation & { readonly isRefused: boolean } {
  try {
    return { ...toEvaluation(model), isRefused: false };
  } catch (thrown) {
    if (thrown instanceof PolyheadError && thrown.code === "MODEL_UNSUPPORTED")
      return { model, notes: [thrown.message], isRefused: true };
    throw thrown;
  }
}

function inspect(file: string, model: Model): Omit<Report, "notes"> {
  const index = new GraphIndex(model.graph);
  const types = inferTypes(model);
  const value = ({ name }: Pick<ValueInfo, "name">, type: ValueType | undefined): Value => ({
    name,
    dtype: type?.dtype ?? null,
    shape: type?.shape ?? null,
  });
  return {
    file,
    producer: [model.producerName, model.producerVersion].filter((text) => text !== "").join(" "),
    opsets: Object.fromEntries(
      model.opsetImport.map(({ domain, version }) => [
        canonicalDomain(domain) === "" ? "ai.onnx" : domain,
        Number(version),
      ]),
    ),
    inputs: index.inputs.map((info) => value(info, types.get(info.name) ?? declaredType(info))),
    outputs: index.graph.output.map((info) => value(info, types.get(info.name))),
    operators: operatorCounts(model),
    ...costOf(index.order, index, types),
    metadata: readMetadata(model),
    cuts: candidateCuts(model, types).map((cut) => cutReport(cut, value)),
  };
}

function cutReport(
  { values, backbone, head, isDefault }: Cut,
  value: (named: { name: string }, type: ValueType) => Value,
): CutReport {
  return { isDefault, values: values.map((each) => value(each, each)), backbone, head };
}

function operatorCounts(model: Model): Record<string, number> {
  const counts = new Map<string, number>();
  for (const { domain, opType } of model.graph.node) {
    const name = canonicalDomain(domain) === "" ? opType : `${domain}.${opType}`;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return Object.fromEntries([...counts].sort(([a, more], [b, less]) => less - more || (a < b ? -1 : 1)));
}

function describe(report: Report): string[] {
  const { producer, opsets, operators, metadata } = report;
  const sets = Object.entries(opsets).map(([domain, version]) => `${domain} ${version}`);
  const counts = Object.entries(operators).map(([name, times]) => `${name} ${times}`);
  return [
    `${report.file}: ${count(report.parameters)} parameters, ${count(report.flops)} FLOPs for one row (a multiply-accumulate is two)`,
    `operator sets: ${sets.join(", ")}${producer === "" ? "" : `; written by ${producer}`}`,
    `operators: ${counts.join(", ")}`,
    "",
    ...table([
      ["", "name", "dtype", "shape"],
      ...report.inputs.map((value) => ["input", ...cells(value)]),
      ...report.outputs.map((value) => ["output", ...cells(value)]),
      ...(metadata.taps ?? []).map((tap) => ["tap", ...cells(tap)]),
    ]),
    ...describeMetadata(metadata),
    ...(report.notes.length > 0 ? ["", ...report.notes.map((note) => `note: ${note}`)] : []),
    "",
    ...describeCuts(report.cuts),
  ];
}

function cells({ name, dtype, shape }: Value): string[] {
  return [name, dtype ?? "?", shape ? formatShape(shape) : "?"];
}

function describeMetadata({ role, task, labels, notes }: Metadata): string[] {
  const facts = [
    ...(role === undefined ? [] : [`role: ${role}`]),
    ...(task === undefined ? [] : [`task: ${task}`]),
    ...(labels === undefined ? [] : [`labels: ${labels.length}`]),
    ...(notes ?? []).map((note) => `note: ${note}`),
  ];
  return facts.length > 0 ? ["", ...facts] : [];
}

function describeCuts(cuts: readonly CutReport[]): string[] {
  if (cuts.length === 0) return ["no place to cut"];
  const rows = cuts.flatMap(({ values, backbone, head, isDefault }) =>
    values.map((value, place) => {
      const sides = [backbone.parameters, backbone.flops, head.parameters, head.flops].map(count);
      return [isDefault && place === 0 ? "*" : "", ...cells(value), ...(place === 0 ? sides : ["+"])];
    }),
  );
  return [
    "places to cut, * by default; a + crosses together with the value above it",
    ...table([
      ["", "value", "dtype", "shape", "backbone parameters", "FLOPs", "head parameters", "FLOPs"],
      ...rows,
    ]),
  ];
}
