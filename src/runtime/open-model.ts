/** Models opened one by one on a {@link Runtime}, for proofs and for the command; the engine shares sessions instead. */
import { PolyheadError } from "../base/errors.js";
import { GraphIndex } from "../onnx/graph.js";
import { declaredType, type Model } from "../onnx/model.js";
import type { OpenModel } from "../onnx/runner.js";
import { modelBytes } from "../onnx/write.js";
import { formatShape } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Program, RunResult } from "./backend.js";
import type { Runtime } from "./runtime.js";

/** Counts over all runtimes, so that no two callers of one runtime share a session by chance. */
let opened = 0;

/** Opens models on a runtime, each as a session of its own. */
export function openModelOn(runtime: Runtime): OpenModel {
  return async (model, optimisation) => {
    const key = `open-model ${opened++}`;
    const handle = await runtime.acquire(key, () => modelBytes(model), { optimisation });
    return {
      run: (inputs) =>
        runModel(model, handle.number, inputs, (program, values) => runtime.run(program, values)),
      close: () => handle.release(),
    };
  };
}

/**
 * All outputs of a model that is loaded as a session.
 * @param run runs a program where that session is
 * @throws PolyheadError INPUT_MISMATCH, and what `run` fails with
 */
export async function runModel(
  model: Model,
  session: number,
  inputs: ReadonlyMap<string, Tensor>,
  run: (program: Program, values: ReadonlyMap<string, Tensor>) => Promise<RunResult>,
): Promise<ReadonlyMap<string, Tensor>> {
  const index = new GraphIndex(model.graph);
  const values = new Map(index.inputs.map((info) => [`in ${info.name}`, requireInput(info, inputs)]));
  const step = {
    session,
    feeds: index.inputs.map(({ name }) => [name, `in ${name}`] as const),
    fetches: index.outputNames.map((name) => [name, `out ${name}`] as const),
  };
  const result = await run({ steps: [step], results: step.fetches.map(([, value]) => value) }, values);
  for (const failure of result.failures.values()) throw failure;
  return new Map([...result.values].map(([value, tensor]) => [value.slice("out ".length), tensor] as const));
}

/**
 * The tensor for a model's input, checked against its declaration.
 * @throws PolyheadError INPUT_MISMATCH
 */
export function requireInput(
  info: Parameters<typeof declaredType>[0],
  inputs: ReadonlyMap<string, Tensor>,
): Tensor {
  const given = inputs.get(info.name);
  const type = declaredType(info);
  const expected = type ? `${type.dtype}${type.shape ? ` ${formatShape(type.shape)}` : ""}` : "any tensor";
  if (!given) {
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `The input ${JSON.stringify(info.name)} is missing; expected ${expected}, got inputs ${[...inputs.keys()].map((name) => JSON.stringify(name)).join(", ") || "none"}.`,
      { input: info.name, expected, got: [...inputs.keys()] },
    );
  }
  const fits =
    !type ||
    (type.dtype === given.dtype &&
      (!type.shape ||
        (type.shape.length === given.shape.length &&
          type.shape.every((size, axis) => typeof size === "string" || size === given.shape[axis]))));
  if (fits) return given;
  const got = `${given.dtype} ${formatShape(given.shape)}`;
  throw new PolyheadError(
    "INPUT_MISMATCH",
    `The input ${JSON.stringify(info.name)} is ${got}; expected ${expected}.`,
    { input: info.name, expected, got },
  );
}
