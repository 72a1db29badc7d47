/** Heads as PyTorch users save them: every one answers as PyTorch did, and the malicious one is refused unread. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { importSafetensors, importTorch } from "../../src/formats/index.js";
import { readNpz } from "../../src/tensor/npz.js";
import type { Tensor } from "../../src/tensor/tensor.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { useRuntime } from "../onnx/runtime.js";

const openModel = useRuntime();
const read = (name: string) => readFile(join(fixturesDir, "heads", name));

describe.skipIf(!hasFixtures)("heads of PyTorch users (fixtures)", () => {
  it.each([
    ["linear_state", ".pth", 1e-5],
    ["linear_state_legacy", ".pth", 1e-5],
    ["linear", ".safetensors", 1e-5],
    ["sequential_module", ".pth", 1e-5],
    ["layernorm_mlp_module", ".pth", 1e-5],
    ["batchnorm_module", ".pth", 1e-5],
    ["conv_module", ".pth", 1e-5],
    ["dense_detection_module", ".pth", 1e-5],
    ["half_state", ".pth", 1e-3],
    ["checkpoint_nested", ".pth", 1e-5],
    ["strided_state", ".pth", 1e-5],
  ])("%s%s answers as PyTorch to %d", async (name, ending, tolerance) => {
    const goldens = readNpz(await read("goldens.npz"));
    const golden = (key: string): Tensor => goldens.get(`${name}/${key}`) ?? expect.fail(`no golden ${key}`);
    const bytes = await read(name + ending);
    const { model } = ending === ".safetensors" ? importSafetensors(bytes) : importTorch(bytes);
    const opened = await openModel(model, "all");
    const output = (await opened.run(new Map([["input", golden("x")]]))).get("output");
    await opened.close();
    expect(output?.shape).toEqual(golden("y").shape);
    const [got, wanted] = [output?.data as Float32Array, golden("y").data as Float32Array];
    expect(
      Math.max(...wanted.map((value, at) => Math.abs(value - (got[at] ?? Number.NaN)))),
    ).toBeLessThanOrEqual(tolerance);
  });

  it("refuses malicious.pth by the name of what it calls, and nothing runs", async () => {
    const bytes = await read("malicious.pth");
    expect(() => importTorch(bytes)).toThrowError(
      expect.objectContaining({
        code: "MODEL_UNSUPPORTED",
        message: expect.stringContaining("posix.system"),
        details: { refused: "posix.system" },
      }),
    );
    expect(existsSync("/tmp/polyhead_pwned")).toBe(false);
  });
});
