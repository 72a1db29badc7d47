/**
 * Proofs by computation. A split is proved on random inputs: node by node as the files say, the parts must give
 * the model's outputs bit for bit; as the runtime optimises them, where fused operators may round differently,
 * within a small bound. Where a cut goes through values of half precision, the bound holds for both: ONNX Runtime
 * computes such models in float32 and rounds to half precision only what leaves a session, as the values at the cut do.
 * A result that is not proved is an error, never a warning.
 */
import { PolyheadError } from "../base/errors.js";
import { DTYPES, type DType } from "../tensor/dtype.js";
import { rowOf, stackRows } from "../tensor/rows.js";
import { sameShape } from "../tensor/shape.js";
import { bfloatToNumber, bytesOf, halfToNumber, type NumericArray, type Tensor } from "../tensor/tensor.js";
import type { DynamicBatch } from "./batch.js";
import { extract } from "./extract.js";
import { GraphIndex } from "./graph.js";
import { requireMemory } from "./memory.js";
import { readMetadata } from "./metadata.js";
import { declaredType, type Model } from "./model.js";
import type { OpenedModel, OpenModel, Optimisation } from "./runner.js";
import { hasOpenBatch, sampleInputs, sampleShapes } from "./samples.js";
import type { Split } from "./split.js";

/** Bound on differences by rounding, relative to an output's largest magnitude. */
const TOLERANCE = 1e-5;
/** The same where values of 11 bits are cut: some of their last places. */
const HALF_TOLERANCE = 2 ** -8;

/** How much to prove. */
export interface ProofOptions {
  /** Inputs for each batch size; 3 by default. */
  readonly inputs?: number;
  /** Batch sizes to try where the batch is open; 1 and 3 by default. Smaller ones stand in for what memory does not take. */
  readonly batches?: readonly number[];
  /** Sizes of other open dimensions by name; 64 for those not named. */
  readonly sizes?: ReadonlyMap<string, number>;
  /** Bound with optimisation: difference relative to an output's largest magnitude; 1e-5 by default, and 0.004 for a
   * cut through values of half precision. */
  readonly tolerance?: number;
}

/** What was proved. */
export interface Proof {
  /** Random inputs that were compared, over all batch sizes. */
  readonly inputs: number;
  /** The batch sizes that were tried. */
  readonly batches: readonly number[];
  /** Whether unoptimised outputs were equal bit for bit; not asked of cuts through values of half precision. */
  readonly bitwise: boolean;
  /** Largest difference of optimised outputs. */
  readonly maxAbsDiff: number;
  /** The same, relative to the output's largest magnitude. */
  readonly maxRelDiff: number;
}

/** How far two tensors are apart. */
export interface Difference {
  /** Whether all bits are the same. */
  readonly equal: boolean;
  readonly absolute: number;
  /** Relative to the largest finite magnitude of the expected tensor. */
  readonly relative: number;
}

/**
 * Proves that a split computes what the model does.
 * @throws PolyheadError PROOF_FAILED with the output, the input and the difference
 * @throws PolyheadError LOAD_FAILED, RUN_FAILED, MODEL_UNSUPPORTED
 * @throws PolyheadError LIMIT_EXCEEDED when a run on one row would take too much memory
 */
export async function proveSplit(
  model: Model,
  split: Split,
  open: OpenModel,
  options: ProofOptions = {},
): Promise<Proof> {
  const { inputs } = new GraphIndex(split.backbone.graph);
  const isWholeOpen = hasOpenBatch(new GraphIndex(model.graph).inputs);
  const perBatch = options.inputs ?? 3;
  const models = [model, split.backbone, ...split.heads.map((head) => head.model)];
  const sizesOf = (batch: number) => ({ batch, ...(options.sizes && { sizes: options.sizes }) });
  const sample = (batch: number, seed: number) => sampleInputs(inputs, sizesOf(batch), seed);
  // Before the runtime sees the models: it computes what is constant as soon as it is given one.
  const shapesOf = (batch: number) => sampleShapes(inputs, sizesOf(batch));
  const wanted = hasOpenBatch(inputs) ? (options.batches ?? [1, 3]) : [1];
  const batches = [...new Set(wanted.map((batch) => fittingBatch([model, split.backbone], batch, shapesOf)))];
  const isHalf = split.taps.some(({ dtype }) => dtype === "float16");
  const tolerance = options.tolerance ?? (isHalf ? HALF_TOLERANCE : TOLERANCE);
  let [worst, bitwise] = [NONE, true];
  for (const optimisation of ["off", "all"] as const) {
    await withOpened(open, models, optimisation, async ([whole, backbone, ...heads]) => {
      for (const batch of batches) {
        for (let seed = 0; seed < perBatch; seed++) {
          const given = sample(batch, seed);
          const expected = (await whole?.run(given)) ?? new Map<string, Tensor>();
          const features = (await backbone?.run(given)) ?? new Map<string, Tensor>();
          // A model of one row runs several times where its parts run once, which may round differently.
          const isExact = optimisation === "off" && (batch === 1 || isWholeOpen);
          const bound = isExact && !isHalf ? undefined : tolerance;
          let got = await runHeads(heads, features);
          for (const bytes of bound === undefined ? PLACES : []) {
            if (isEqual(expected, got)) break;
            got = await runHeads(heads, placed(features, bytes));
          }
          const difference = requireEqual(expected, got, { batch, seed, optimisation }, bound);
          if (isExact && !difference.equal) bitwise = false;
          worst = larger(worst, difference);
        }
      }
    });
  }
  return {
    inputs: perBatch * batches.length,
    batches,
    bitwise,
    maxAbsDiff: worst.absolute,
    maxRelDiff: worst.relative,
  };
}

/**
 * Bytes by which inputs are moved when bits differ: ONNX Runtime's sums begin where memory is aligned to the
 * processor's vectors (64 bytes at most), so that where an input lies can change the last bit. Within a model all values
 * are aligned; an array of JavaScript lies at any 16 bytes.
 */
const PLACES = [16, 32, 48];

async function runHeads(
  heads: readonly OpenedPart[],
  features: ReadonlyMap<string, Tensor>,
): Promise<ReadonlyMap<string, Tensor>> {
  const made = new Map<string, Tensor>();
  for (const head of heads)
    for (const [name, value] of await head.run(headInputs(head.model, features))) made.set(name, value);
  return made;
}

/** The same tensors so many bytes further on in memory. */
function placed(tensors: ReadonlyMap<string, Tensor>, bytes: number): ReadonlyMap<string, Tensor> {
  return new Map(
    [...tensors].map(([name, tensor]) => {
      if (!ArrayBuffer.isView(tensor.data)) return [name, tensor];
      const Kind = DTYPES[tensor.dtype].array;
      const room = new ArrayBuffer(bytes + tensor.data.byteLength);
      new Uint8Array(room, bytes).set(bytesOf(tensor));
      return [name, { ...tensor, data: new Kind(room, bytes, tensor.data.length) as NumericArray }];
    }),
  );
}

function isEqual(expected: ReadonlyMap<string, Tensor>, got: ReadonlyMap<string, Tensor>): boolean {
  return [...expected].every(([output, value]) => compare(value, got.get(output)).equal);
}

/**
 * The batch size itself, or the largest below it of which a run fits into memory.
 * @throws PolyheadError LIMIT_EXCEEDED when not even one row does
 */
function fittingBatch(
  models: readonly Model[],
  wanted: number,
  shapesOf: (batch: number) => ReadonlyMap<string, Pick<Tensor, "shape">>,
): number {
  for (let batch = wanted; ; batch--) {
    try {
      for (const each of models) requireMemory(each, shapesOf(batch));
      return batch;
    } catch (thrown) {
      if (batch <= 1) throw thrown;
    }
  }
}

/**
 * Proves that a model whose batch was opened gives for two rows what it gave for each of them alone, in all outputs
 * that were opened.
 * @param model as it was before
 * @returns the largest difference; larger batches may round differently
 * @throws PolyheadError PROOF_FAILED with the output and the difference
 * @throws PolyheadError LOAD_FAILED, RUN_FAILED, MODEL_UNSUPPORTED
 * @throws PolyheadError LIMIT_EXCEEDED when a run would take too much memory
 */
export async function proveBatch(
  model: Model,
  opened: DynamicBatch,
  open: OpenModel,
  options: ProofOptions = {},
): Promise<Difference> {
  const index = new GraphIndex(opened.model.graph);
  const fixed = new Set(opened.fixed.map(({ output }) => output));
  const outputs = index.outputNames.filter((name) => !fixed.has(name));
  if (outputs.length === 0 || !hasOpenBatch(index.inputs)) return NONE;
  const names = index.inputs.map(({ name }) => name);
  const part = extract(opened.model, index, names, outputs, opened.types);
  const batch = 2;
  const sample = (seed: number) =>
    sampleInputs(index.inputs, { batch, ...(options.sizes && { sizes: options.sizes }) }, seed);
  for (const each of [model, part]) requireMemory(each, sample(0));
  let worst = NONE;
  await withOpened(open, [model, part], "off", async ([single, several]) => {
    for (let seed = 0; seed < (options.inputs ?? 3); seed++) {
      const given = sample(seed);
      const all = (await single?.run(given)) ?? new Map<string, Tensor>();
      const expected = new Map([...all].filter(([name]) => !fixed.has(name)));
      const got = (await several?.run(given)) ?? new Map<string, Tensor>();
      const where = { batch, seed, optimisation: "off" } as const;
      worst = larger(worst, requireEqual(expected, got, where, options.tolerance ?? TOLERANCE));
    }
  });
  return worst;
}

/** A head's inputs from a backbone's outputs, by its taps. */
export function headInputs(head: Model, features: ReadonlyMap<string, Tensor>): Map<string, Tensor> {
  const { taps = [] } = readMetadata(head);
  const found = new Map<string, Tensor>();
  new GraphIndex(head.graph).inputs.forEach(({ name }, place) => {
    const value = features.get(taps[place]?.name ?? name);
    if (value) found.set(name, value);
  });
  return found;
}

/**
 * How far a tensor is from the expected one. Other dtypes, other shapes, missing tensors, and NaN or infinity
 * against anything else are infinitely far; NaN is as good as NaN.
 */
export function compare(expected: Tensor, got: Tensor | undefined): Difference {
  if (!got || got.dtype !== expected.dtype || !sameShape(got.shape, expected.shape)) return FAR;
  if (!ArrayBuffer.isView(expected.data) || !ArrayBuffer.isView(got.data)) {
    const other = got.data;
    return [...expected.data].every((text, at) => text === other[at]) ? NONE : FAR;
  }
  const bytes = bytesOf(got);
  if (bytesOf(expected).every((byte, at) => byte === bytes[at])) return NONE;
  const number = NUMBERS[expected.dtype] ?? Number;
  let absolute = 0;
  let scale = 0;
  for (let at = 0; at < expected.data.length; at++) {
    const [a, b] = [number(Number(expected.data[at])), number(Number(got.data[at]))];
    if (Number.isFinite(a)) scale = Math.max(scale, Math.abs(a));
    if (Object.is(a, b) || a === b) continue;
    const apart = Math.abs(a - b);
    absolute = Math.max(absolute, Number.isNaN(apart) ? Number.POSITIVE_INFINITY : apart);
  }
  return { equal: false, absolute, relative: absolute === 0 ? 0 : absolute / (scale || 1) };
}

const NONE: Difference = { equal: true, absolute: 0, relative: 0 };
const FAR: Difference = {
  equal: false,
  absolute: Number.POSITIVE_INFINITY,
  relative: Number.POSITIVE_INFINITY,
};

/** What the bits of dtypes mean that JavaScript keeps as bits. */
const NUMBERS: { readonly [Name in DType]?: (bits: number) => number } = {
  float16: halfToNumber,
  bfloat16: bfloatToNumber,
};

/** A model ready to run on any number of rows: one that takes a single row is run for each. */
class OpenedPart {
  readonly model: Model;
  readonly #opened: OpenedModel;

  constructor(model: Model, opened: OpenedModel) {
    this.model = model;
    this.#opened = opened;
  }

  async run(given: ReadonlyMap<string, Tensor>): Promise<ReadonlyMap<string, Tensor>> {
    const perRow = new GraphIndex(this.model.graph).inputs.filter(
      (info) => declaredType(info)?.shape?.[0] === 1 && (given.get(info.name)?.shape[0] ?? 1) !== 1,
    );
    const [first] = perRow;
    if (!first) return this.#opened.run(given);
    const answers: ReadonlyMap<string, Tensor>[] = [];
    for (let row = 0; row < (given.get(first.name)?.shape[0] ?? 0); row++) {
      const inputs = new Map(given);
      for (const { name } of perRow) {
        const value = given.get(name);
        if (value) inputs.set(name, rowOf(value, row));
      }
      answers.push(await this.#opened.run(inputs));
    }
    const names = [...(answers[0]?.keys() ?? [])];
    return new Map(
      names.map((name) => [name, stackRows(answers.flatMap((answer) => answer.get(name) ?? []))] as const),
    );
  }

  close(): Promise<void> {
    return this.#opened.close();
  }
}

async function withOpened(
  open: OpenModel,
  models: readonly Model[],
  optimisation: Optimisation,
  use: (parts: readonly OpenedPart[]) => Promise<void>,
): Promise<void> {
  const parts: OpenedPart[] = [];
  try {
    for (const each of models) parts.push(new OpenedPart(each, await open(each, optimisation)));
    await use(parts);
  } finally {
    for (const part of parts) await part.close();
  }
}

function larger(a: Difference, b: Difference): Difference {
  return b.absolute > a.absolute ? b : a;
}

/**
 * The largest difference between outputs.
 * @param tolerance relative; every bit must be the same without it
 * @throws PolyheadError PROOF_FAILED
 */
function requireEqual(
  expected: ReadonlyMap<string, Tensor>,
  got: ReadonlyMap<string, Tensor>,
  where: { readonly batch: number; readonly seed: number; readonly optimisation: Optimisation },
  tolerance: number | undefined,
): Difference {
  let worst = NONE;
  for (const [output, value] of expected) {
    const difference = compare(value, got.get(output));
    worst = larger(worst, difference);
    if (tolerance === undefined ? difference.equal : difference.relative <= tolerance) continue;
    const { absolute, relative } = difference;
    const how = tolerance === undefined ? "bit for bit" : `within ${tolerance}`;
    throw new PolyheadError(
      "PROOF_FAILED",
      `What was made of the model does not give its output ${JSON.stringify(output)} ${how}: with ${where.batch} rows it differs by ${absolute} (relative ${relative}). It is not used; cut elsewhere or keep the batch as it is.`,
      { ...where, output, maxAbsDiff: absolute, maxRelDiff: relative },
    );
  }
  return worst;
}
