/** What ONNX Runtime makes of every inner value of a model: the oracle for inferred dtypes and shapes. */
import { create } from "@bufbuild/protobuf";
import { expect } from "vitest";
import { withGraph } from "../../src/onnx/extract.js";
import { GraphProtoSchema, ValueInfoProtoSchema } from "../../src/onnx/generated/onnx_pb.js";
import { declaredType, type Model } from "../../src/onnx/model.js";
import type { OpenModel } from "../../src/onnx/runner.js";
import { inferTypes } from "../../src/onnx/shapes.js";
import { elementCount, type SymbolicShape } from "../../src/tensor/shape.js";
import { float32, type Tensor, tensor } from "../../src/tensor/tensor.js";

/** Every value that a node of the main graph makes, as the runtime computes it, node by node. */
export async function observe(
  openModel: OpenModel,
  model: Model,
  inputs: ReadonlyMap<string, Tensor>,
): Promise<ReadonlyMap<string, Tensor>> {
  const { graph } = model;
  const asked = new Set(graph.output.map(({ name }) => name));
  const inner = graph.node.flatMap((node) => node.output).filter((name) => name !== "" && !asked.has(name));
  const opened = await openModel(
    withGraph(
      model,
      create(GraphProtoSchema, {
        ...graph,
        output: [...graph.output, ...inner.map((name) => create(ValueInfoProtoSchema, { name }))],
      }),
    ),
    "off",
  );
  try {
    return await opened.run(inputs);
  } finally {
    await opened.close();
  }
}

/** Irregular inputs for a model, float32 or int32, with `batch` in place of every named dimension. */
export function sampleInputs(model: Model, batch: number): Map<string, Tensor> {
  return new Map(
    model.graph.input.map((info) => {
      const type = declaredType(info);
      const shape = (type?.shape ?? []).map((size) => (typeof size === "number" ? size : batch));
      const values = Float32Array.from({ length: elementCount(shape) }, (_, at) => Math.sin(at));
      const whole = () => Int32Array.from(values, (value) => Math.round(128 + 100 * value));
      return [info.name, type?.dtype === "int32" ? tensor("int32", shape, whole()) : float32(shape, values)];
    }),
  );
}

/** The shape with numbers for its names; `?` stays. */
export function at(shape: SymbolicShape, sizes: Readonly<Record<string, number>>): (number | string)[] {
  return shape.map((size) => {
    if (typeof size === "number" || size === "?") return size;
    return size.split("*").reduce((total, factor) => total * (sizes[factor] ?? Number(factor)), 1);
  });
}

/** Every value of the model has the dtype and shape that the runtime finds, named dimensions being `batch`. */
export async function expectObserved(openModel: OpenModel, whole: Model, batch: number): Promise<void> {
  const types = inferTypes(whole);
  const values = await observe(openModel, whole, sampleInputs(whole, batch));
  const inferred = [...values.keys()].map((name) => {
    const type = types.get(name);
    return [name, type?.dtype, type?.shape && at(type.shape, { N: batch, batch })];
  });
  expect(inferred).toEqual([...values].map(([name, { dtype, shape }]) => [name, dtype, [...shape]]));
}
