/**
 * Whether a runtime has the blocked layout on this processor, and how wide its blocks are. It is an inner matter of ONNX
 * Runtime, so nothing is taken for granted: the width is read off a tensor, and a small network with every kind of
 * convolution that is rewritten must answer in blocks what it answers without.
 */
import { PolyheadError } from "../base/errors.js";
import { graph, type Model, model as modelOf, node, valueInfo } from "../onnx/model.js";
import type { OpenModel } from "../onnx/runner.js";
import { elementCount, type Shape } from "../tensor/shape.js";
import { float32, type Tensor, toNumbers } from "../tensor/tensor.js";
import { blockedLayout, reorderModel } from "./blocked-layout.js";

/** Largest difference of two answers, relative to the largest number in them; sums are taken in another order. */
const CLOSE = 1e-5;

/**
 * Channels in a block.
 * @param open opens models on the runtime in question
 * @returns undefined where training should keep to the usual layout
 * @throws PolyheadError WORKER_LOST, CLOSED
 */
export async function blockWidth(open: OpenModel): Promise<number | undefined> {
  try {
    const one = await answer(open, reorderModel(), new Map([["x", float32([1, 4, 1, 1], [1, 2, 3, 4])]]));
    const width = one.shape[1] ?? 0;
    if (width < 8) return undefined;
    const { model, values } = trial(2 * width);
    const usual = await answer(open, model, values);
    const blocked = await answer(open, blockedLayout(model, width), values);
    return isClose(toNumbers(usual), toNumbers(blocked)) ? width : undefined;
  } catch (thrown) {
    const isRefused = thrown instanceof PolyheadError && ["LOAD_FAILED", "RUN_FAILED"].includes(thrown.code);
    if (isRefused) return undefined;
    throw thrown;
  }
}

/** The output `y` of a model. */
async function answer(open: OpenModel, asked: Model, values: ReadonlyMap<string, Tensor>): Promise<Tensor> {
  const opened = await open(asked, "all");
  try {
    return (await opened.run(values)).get("y") ?? float32([0], []);
  } finally {
    await opened.close();
  }
}

/** All channels from three, one channel each with strides and padding, all from many, a factor a channel, and a sum. */
function trial(channels: number): { model: Model; values: ReadonlyMap<string, Tensor> } {
  const shapes: Readonly<Record<string, Shape>> = {
    x: [2, 3, 9, 9],
    first: [channels, 3, 3, 3],
    each: [channels, 1, 3, 3],
    bias: [channels],
    all: [channels, channels, 3, 3],
    factor: [channels, 1, 1],
  };
  const inputs = Object.entries(shapes).map(([name, shape]) => valueInfo(name, "float32", shape));
  const nodes = [
    node("Conv", ["x", "first"], ["a"], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }),
    node("Relu", ["a"], ["b"]),
    node("Conv", ["b", "each", "bias"], ["c"], {
      kernel_shape: [3, 3],
      strides: [2, 2],
      pads: [1, 1, 1, 1],
      group: channels,
    }),
    node("Conv", ["c", "all", "bias"], ["d"], { kernel_shape: [3, 3], pads: [1, 1, 1, 1] }),
    node("Mul", ["d", "factor"], ["e"]),
    node("Add", ["e", "c"], ["y"]),
  ];
  const outputs = [valueInfo("y", "float32", [2, channels, 5, 5])];
  let seed = 0;
  const values = Object.entries(shapes).map(([name, shape]) => {
    const numbers = Array.from({ length: elementCount(shape) }, () => Math.sin(++seed));
    return [name, float32(shape, numbers)] as const;
  });
  return { model: modelOf(graph("trial", { nodes, inputs, outputs, weights: [] })), values: new Map(values) };
}

function isClose(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  const largest = Array.from(a).reduce((most, each) => Math.max(most, Math.abs(each)), 0);
  return Array.from(a).every((each, at) => Math.abs(each - (b[at] ?? Number.NaN)) <= CLOSE * largest);
}
