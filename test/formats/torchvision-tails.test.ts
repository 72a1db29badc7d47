/**
 * The last layers of torchvision's networks, taken out of their checkpoints: each answers what it answered within the
 * network. `scripts/fixtures/torchvision-tails.py` made the files and the answers.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { importSafetensors, importTorch } from "../../src/formats/index.js";
import { compare } from "../../src/onnx/verify.js";
import { readNpz } from "../../src/tensor/npz.js";
import { float32 } from "../../src/tensor/tensor.js";
import { useRuntime } from "../onnx/runtime.js";

const open = useRuntime();
const place = new URL("../fixtures/tails/", import.meta.url);
const goldens = readNpz(readFileSync(new URL("goldens.npz", place)));
const golden = (key: string) => goldens.get(key) ?? float32([0], []);

/** Network, the tail's place in it, and whether its layers are told by knowledge of the network. */
const TAILS: [network: string, head: string, isKnown: boolean][] = [
  ["resnet", "fc", false],
  ["regnet", "fc", false],
  ["shufflenet", "fc", false],
  ["googlenet", "fc", false],
  ["efficientnet", "classifier.1", false],
  ["mobilenet_v2", "classifier.1", false],
  ["mnasnet", "classifier.1", false],
  ["densenet", "classifier", false],
  ["vit", "heads.head", false],
  ["swin", "head", false],
  ["squeezenet", "classifier", true],
  ["convnext", "classifier", true],
  ["mobilenet_v3", "classifier", true],
  ["vit_pre_logits", "heads", true],
];

describe("tails of torchvision", () => {
  it.each(TAILS)("%s --head %s", async (network, head, isKnown) => {
    const { model, notes } = importTorch(new Uint8Array(readFileSync(new URL(`${network}.pth`, place))), {
      head,
      inputLike: golden(`${network}/x`).shape.map((size, axis) => (axis === 0 ? "batch" : size)),
    });
    const opened = await open(model, "all");
    const made = (await opened.run(new Map([["input", golden(`${network}/x`)]]))).get("output");
    await opened.close();
    expect(compare(golden(`${network}/y`), made).relative).toBeLessThan(1e-5);
    expect(notes.some((note) => /torchvision/i.test(note))).toBe(isKnown);
  });
});

describe("a few weights beside a head", () => {
  it("are answered with the head's name, where there is more than the head", () => {
    const shapes = { "classifier.weight": [2, 3], "vit.layernorm.weight": [3], "vit.pooler.weight": [3, 3] };
    expect(() => importSafetensors(safetensors(shapes))).toThrow(/--head classifier; or describe the layers/);
    const { model } = importSafetensors(safetensors(shapes), { head: "classifier" });
    expect(model.graph.node.map(({ opType }) => opType)).toEqual(["Gemm"]);
    expect(() => importSafetensors(safetensors({ "head.weight": [2, 3], "head.norm.weight": [3] }))).toThrow(
      /what they compute.*\. Describe the layers/,
    );
  });
});

/** A file of zeros. */
function safetensors(shapes: Readonly<Record<string, number[]>>): Uint8Array {
  let end = 0;
  const entries = Object.entries(shapes).map(([name, shape]) => {
    const start = end;
    end += 4 * shape.reduce((product, size) => product * size, 1);
    return [name, { dtype: "F32", shape, data_offsets: [start, end] }] as const;
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, Buffer.alloc(end)]);
}
