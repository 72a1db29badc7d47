/**
 * Outputs that depend on no input: anchors of a detector, a table of classes, a weight that is also an output. No segment
 * makes them, and they have no rows to batch: they are computed when a model is loaded, and every answer has them.
 */
import { PolyheadError } from "../base/errors.js";
import type { Identity } from "../onnx/identity.js";
import { neededNodes } from "../onnx/partition.js";
import { type SegmentSource, segmentModel } from "../onnx/segment-model.js";
import { weightTensor } from "../onnx/weight.js";
import { modelBytes } from "../onnx/write.js";
import type { Runtime } from "../runtime/runtime.js";
import type { Tensor } from "../tensor/tensor.js";

/**
 * Values that depend on weights alone.
 * @param known ones from before, which are not computed again
 * @throws PolyheadError LOAD_FAILED, RUN_FAILED, MODEL_UNSUPPORTED
 */
export async function computeConstants(
  values: Iterable<Identity>,
  sources: readonly SegmentSource[],
  runtime: Runtime,
  known: ReadonlyMap<Identity, Tensor>,
): Promise<ReadonlyMap<Identity, Tensor>> {
  const found = new Map<Identity, Tensor>();
  for (const value of new Set(values)) {
    const constant = known.get(value) ?? (await constantOf(value, sources, runtime));
    if (constant) found.set(value, constant);
  }
  return found;
}

async function constantOf(
  value: Identity,
  sources: readonly SegmentSource[],
  runtime: Runtime,
): Promise<Tensor | undefined> {
  for (const { graph } of sources) {
    const weight = graph.weights.get(value);
    if (weight) return weightTensor(weight);
  }
  const source = sources.find(({ graph }) =>
    graph.nodes.some(({ varies, makes }) => !varies && makes.includes(value)),
  );
  return source && compute(value, source, runtime);
}

async function compute(value: Identity, source: SegmentSource, runtime: Runtime): Promise<Tensor> {
  const nodes = neededNodes([source.graph], [value]);
  const model = segmentModel({ usedBy: [], nodes, inputs: [], outputs: [value] }, [source]);
  const session = await runtime.acquire(`constant ${value}`, () => modelBytes(model));
  try {
    const step = { session: session.number, feeds: [], fetches: [[value, value]] } as const;
    const { values, failures } = await runtime.run({ steps: [step], results: [value] }, new Map());
    const made = values.get(value);
    if (made) return made;
    throw failures.get(value) ?? new PolyheadError("INTERNAL", "Nothing made a constant output.", {});
  } finally {
    await session.release();
  }
}
