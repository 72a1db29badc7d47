/**
 * Proofs by computation. A split is proved on random inputs: node by node as the files say, the parts must give
 * the model's outputs bit for bit; as the runtime optimises them, where fused operators may round differently,
 * within a small bound. A result that is not proved is an error, never a warning.
 */
import { PolyheadError } from "../base/errors.js";
import type { DType } from "../tensor/dtype.js";
import { sameShape } from "../tensor/shape.js";
import { bytesOf, type Tensor } from "../tensor/tensor.js";
import { GraphIndex } from "./graph.js";
import { readMetadata } from "./metadata.js";
import type { Model } from "./model.js";
import type { OpenedModel, OpenModel, Optimisation } from "./runner.js";
import { hasOpenBatch, sampleInputs } from "./samples.js";
import type { Split } from "./split.js";

/** How much to prove. */
export interface ProofOptions {
  /** Inputs for each batch size; 3 by default. */
  readonly inputs?: number;
  /** Batch sizes to try where the batch is open; 1 and 3 by default. */
  readonly batches?: readonly number[];
  /** Sizes of other open dimensions by name; 64 for those not named. */
  readonly sizes?: ReadonlyMap<string, number>;
  /** Bound with optimisation: difference relative to an output's largest magnitude; 1e-5 by default. */
  readonly tolerance?: number;
}

/** What was proved. */
export interface Proof {
  /** Random inputs that were compared, over all batch sizes. */
  readonly inputs: number;
  readonly batches: readonly number[];
  /** Whether unoptimised outputs were equal bit for bit; a proof that is not, is not given. */
  readonly bitwise: true;
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
 */
export async function proveSplit(
  model: Model,
  split: Split,
  open: OpenModel,
  options: ProofOptions = {},
): Promise<Proof> {
  const { inputs } = new GraphIndex(model.graph);
  const batches = hasOpenBatch(inputs) ? (options.batches ?? [1, 3]) : [1];
  const perBatch = options.inputs ?? 3;
  const tolerance = options.tolerance ?? 1e-5;
  let worst = NONE;
  for (const optimisation of ["off", "all"] as const) {
    const parts = await openAll(
      open,
      [model, split.backbone, ...split.heads.map((head) => head.model)],
      optimisation,
    );
    const [whole, backbone, ...heads] = parts;
    try {
      for (const batch of batches) {
        for (let seed = 0; seed < perBatch; seed++) {
          const given = sampleInputs(inputs, { batch, ...(options.sizes && { sizes: options.sizes }) }, seed);
          const expected = await whole?.run(given);
          const features = await backbone?.run(given);
          const got = new Map<string, Tensor>();
          for (const [at, head] of heads.entries()) {
            const part = split.heads[at]?.model;
            const read = part && features ? headInputs(part, features) : new Map<string, Tensor>();
            for (const [name, value] of await head.run(read)) got.set(name, value);
          }
          for (const [name, value] of expected ?? []) {
            const difference = compare(value, got.get(name));
            const isProved = optimisation === "off" ? difference.equal : difference.relative <= tolerance;
            if (!isProved) throw notProved({ output: name, batch, seed, optimisation }, difference);
            if (difference.absolute > worst.absolute) worst = difference;
          }
        }
      }
    } finally {
      for (const part of parts) await part.close();
    }
  }
  return {
    inputs: perBatch * batches.length,
    batches,
    bitwise: true,
    maxAbsDiff: worst.absolute,
    maxRelDiff: worst.relative,
  };
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
  float16: (bits) => {
    const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
    const size =
      exponent === 31
        ? fraction === 0
          ? Number.POSITIVE_INFINITY
          : Number.NaN
        : exponent === 0
          ? fraction * 2 ** -24
          : (1024 + fraction) * 2 ** (exponent - 25);
    return bits & 0x8000 ? -size : size;
  },
  bfloat16: (bits) => new Float32Array(Uint32Array.of(bits << 16).buffer)[0] ?? Number.NaN,
};

async function openAll(
  open: OpenModel,
  models: readonly Model[],
  optimisation: Optimisation,
): Promise<OpenedModel[]> {
  const opened: OpenedModel[] = [];
  try {
    for (const each of models) opened.push(await open(each, optimisation));
    return opened;
  } catch (thrown) {
    for (const each of opened) await each.close();
    throw thrown;
  }
}

function notProved(
  where: { output: string; batch: number; seed: number; optimisation: Optimisation },
  { absolute, relative }: Difference,
): PolyheadError {
  const how = where.optimisation === "off" ? "bit for bit" : "within the bound";
  return new PolyheadError(
    "PROOF_FAILED",
    `The parts do not give the output ${JSON.stringify(where.output)} of the model ${how}: at batch size ${where.batch} it differs by ${absolute} (relative ${relative}). Cut elsewhere; nothing was kept.`,
    { ...where, maxAbsDiff: absolute, maxRelDiff: relative },
  );
}
