/** Every layer, option, container and element type against PyTorch's own answers; see scripts/fixtures/torch-heads.py. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { importSafetensors, importTorch, type TorchImportOptions } from "../../src/formats/index.js";
import { readNpz } from "../../src/tensor/npz.js";
import { type Tensor, toNumbers } from "../../src/tensor/tensor.js";
import { useRuntime } from "../onnx/runtime.js";

interface Imported extends TorchImportOptions {
  readonly file: string;
  /** What a remark of the import has to say. */
  readonly note?: string;
}

interface Refused {
  readonly file: string;
  /** What the refusal has to name. */
  readonly names: string;
  readonly code: string;
}

const read = (name: string) =>
  readFileSync(fileURLToPath(new URL(`../fixtures/torch/${name}`, import.meta.url)));
const cases: { imported: Record<string, Imported>; refused: Record<string, Refused> } = JSON.parse(
  new TextDecoder().decode(read("cases.json")),
);
const goldens = readNpz(read("goldens.npz"));
const openModel = useRuntime();

function golden(name: string): Tensor {
  return goldens.get(name) ?? expect.fail(`no golden ${name}`);
}

describe("PyTorch files", () => {
  it.each(Object.entries(cases.imported))(
    "%s answers as PyTorch does",
    async (name, { file, note, ...options }) => {
      const bytes = read(file);
      const { model, notes } = file.endsWith(".safetensors")
        ? importSafetensors(bytes, options)
        : importTorch(bytes, options);
      if (note !== undefined) expect(notes.join("\n")).toContain(note);
      const opened = await openModel(model, "all");
      const output = (await opened.run(new Map([["input", golden(`${name}/x`)]]))).get("output");
      await opened.close();
      const expected = golden(`${name}/y`);
      expect(output?.shape).toEqual(expected.shape);
      const [got, wanted] = [toNumbers(output ?? expected), toNumbers(expected)];
      const scale = Math.max(1, ...wanted.map(Math.abs));
      const worst = Math.max(...wanted.map((value, at) => Math.abs(value - (got[at] ?? Number.NaN)) / scale));
      expect(worst).toBeLessThanOrEqual(1e-5);
    },
  );

  it.each(Object.entries(cases.refused))("%s is refused by name", (_, { file, names, code }) => {
    expect(() => importTorch(read(file))).toThrowError(
      expect.objectContaining({ code, message: expect.stringContaining(names) }),
    );
    expect(existsSync("/tmp/polyhead_ran")).toBe(false);
  });
});
