/** How much memory a batch may take: with sizes that are always as large as is allowed. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { Engine } from "../../src/engine/index.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { float32 } from "../../src/tensor/tensor.js";
import { Gate } from "./gated.js";

vi.mock("../../src/engine/batch-sizes.js", () => ({
  BatchSizes: class {
    learn(): void {}
    next(rows: number): number {
      return rows;
    }
  },
}));

const [CHANNELS, SIDE] = [4, 8];
/** Of one value of one row. */
const VALUE = 4 * CHANNELS * SIDE * SIDE;

/** So many convolutions in a chain, each of which reads one value and makes another. */
function chain(length: number, rows: number | string = "n"): Model {
  const names = Array.from({ length: length + 1 }, (_, at) => `v${at}`);
  const shape = [rows, CHANNELS, SIDE, SIDE];
  return model(
    graph("chain", {
      nodes: names.slice(1).map((name, at) => node("Conv", [`v${at}`, "kernel"], [name])),
      inputs: [valueInfo("v0", "float32", shape)],
      outputs: [valueInfo(`v${length}`, "float32", shape)],
      weights: [
        weight("kernel", float32([CHANNELS, CHANNELS, 1, 1], new Float32Array(CHANNELS ** 2).fill(0.25))),
      ],
    }),
  );
}

let engine: Engine;
afterEach(() => engine.close());

/** The largest of the batches in which twelve requests of one row ran that had waited together. */
async function largestBatch(of: Model, batchBytes: number): Promise<number> {
  const gate = new Gate();
  engine = await Engine.open(await Runtime.open(gate.start), { cacheBytes: 0, batchBytes });
  await engine.add("chain", of);
  gate.shut();
  const sent = Array.from({ length: 13 }, (_, at) =>
    engine.run(["chain"], float32([1, CHANNELS, SIDE, SIDE], new Float32Array(VALUE / 4).fill(at))),
  );
  await vi.waitFor(() => expect(engine.work.queued).toBe(12));
  gate.open();
  const [, ...waited] = await Promise.all(sent);
  return Math.max(...waited.map(({ batchRows }) => batchRows));
}

describe("the rows of a batch", () => {
  it.each([
    ["as many as their values have room for", 3 * 2 * VALUE, 3],
    ["no more where there is room for a part of a row", 3 * 2 * VALUE - 1, 2],
    ["one at least", 1, 1],
    ["all that wait where there is room", 2 ** 25, 12],
  ])("are %s", async (_, bytes, rows) => {
    expect(await largestBatch(chain(3), bytes)).toBe(rows);
  });

  it("are not limited where they run one by one, or take little", async () => {
    expect(await largestBatch(chain(3, 1), 1)).toBe(12);
    await engine.close();
    expect(await largestBatch(chain(1), 1)).toBe(12);
  });
});
