/**
 * What PyTorch exports of torchvision's architectures, small and with random weights: shapes, default cuts, parts
 * against PyTorch's numbers, identities and sharing. scripts/fixtures/architectures.py makes the files.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { loadModel } from "../../src/files/disk.js";
import { openEngine } from "../../src/index.js";
import { toEvaluation } from "../../src/onnx/evaluation.js";
import { identify } from "../../src/onnx/identity.js";
import { joinModels } from "../../src/onnx/join.js";
import type { Model } from "../../src/onnx/model.js";
import { shareReport } from "../../src/onnx/share.js";
import { type Split, splitModel } from "../../src/onnx/split.js";
import { compare, headInputs, proveSplit } from "../../src/onnx/verify.js";
import { readNpz } from "../../src/tensor/npz.js";
import { rowOf } from "../../src/tensor/rows.js";
import type { SymbolicShape } from "../../src/tensor/shape.js";
import type { Tensor } from "../../src/tensor/tensor.js";
import { expectObserved } from "./observe.js";
import { useRuntime } from "./runtime.js";

const folder = fileURLToPath(new URL("../fixtures/architectures", import.meta.url));
const all = readdirSync(folder).flatMap((file) => (file.endsWith(".onnx") ? [file.slice(0, -5)] : []));
const VARIANT = /-(renamed|tuned)$/;
const names = all.filter((name) => !VARIANT.test(name));
const classifiers = names.filter((name) => goldens(name).has("features"));
const others = names.filter((name) => !classifiers.includes(name));
/** Exported for one row. */
const fixed = names.filter((name) => name.endsWith("-fixed") || name === "mobilenet-v2");

const again = all.flatMap((name) => (name.endsWith("-tuned") ? [name.replace(VARIANT, "")] : []));
const LEVELS = [
  ["N", 4, 8, 8],
  ["N", 8, 4, 4],
  ["N", 16, 2, 2],
];
/** Networks with other tasks: shapes of the taps, and the heads. */
const PARTS: Readonly<Record<string, { taps: readonly SymbolicShape[]; heads: readonly string[] }>> = {
  retinanet: { taps: LEVELS, heads: ["head"] },
  ssdlite: { taps: LEVELS, heads: ["scores", "boxes"] },
  // Auxiliary classifiers are for training; each classifier becomes a head of its own, read at its input.
  googlenet: {
    taps: [
      ["N", 64],
      ["N", 16],
      ["N", 16],
    ],
    heads: ["logits", "aux2", "aux1"],
  },
  // They enlarge to the size of their input, which the head therefore reads.
  lraspp: { taps: [["N", 5, 4, 4], [4], [4]], heads: ["head"] },
  deeplab: { taps: [["N", 8, 4, 4], [4], [4]], heads: ["head"] },
};

const open = useRuntime();

function goldens(name: string): ReadonlyMap<string, Tensor> {
  return readNpz(readFileSync(join(folder, `${name}.npz`)));
}

function golden(name: string, key: string): Tensor {
  const found = goldens(name).get(key);
  if (!found) throw new Error(`no ${key} of ${name}`);
  return found;
}

/** As `polyhead import` and `polyhead split` take it: in evaluation mode. */
async function load(name: string): Promise<Model> {
  return toEvaluation(await loadModel(join(folder, `${name}.onnx`))).model;
}

async function outputIdentities(of: Model): Promise<(string | undefined)[]> {
  const identities = await identify(of);
  return of.graph.output.map(({ name }) => identities.get(name));
}

/** Features and answers of the parts, as the runtime optimises them. */
async function answers({ backbone, heads }: Split, input: Tensor) {
  const run = async (of: Model, inputs: ReadonlyMap<string, Tensor>) => {
    const opened = await open(of, "all");
    try {
      return await opened.run(inputs);
    } finally {
      await opened.close();
    }
  };
  const features = await run(backbone, new Map([[backbone.graph.input[0]?.name ?? "", input]]));
  const outputs = new Map<string, Tensor>();
  for (const { model } of heads)
    for (const [name, value] of await run(model, headInputs(model, features))) outputs.set(name, value);
  return { features, outputs };
}

function expectNear(got: Tensor | undefined, expected: Tensor, what: string): void {
  expect(got?.shape, what).toEqual(expected.shape);
  expect(compare(expected, got).relative, what).toBeLessThan(1e-4);
}

describe("an export of PyTorch", () => {
  it.each(names)("%s: every value has the dtype and shape that the runtime finds", async (name) => {
    const whole = await load(name);
    for (const batch of fixed.includes(name) ? [1] : [1, 3]) await expectObserved(open, whole, batch);
  });

  it.each(classifiers)("%s splits at its classifier, and the parts agree with PyTorch", async (name) => {
    const whole = await load(name);
    const split = await splitModel(whole);
    expect(await proveSplit(whole, split, open)).toMatchObject({ bitwise: true, batches: [1, 3] });
    expect(split.heads.map((head) => head.name)).toEqual(["head"]);
    expect(split.taps).toHaveLength(1);
    const input = golden(name, "input");
    for (const rows of [input, rowOf(input, 1)]) {
      const pick = (key: string) => (rows === input ? golden(name, key) : rowOf(golden(name, key), 1));
      const { features, outputs } = await answers(split, rows);
      expectNear(features.get(split.taps[0]?.name ?? ""), pick("features"), "features");
      expectNear(outputs.get("logits"), pick("logits"), "logits");
    }
  });

  it.each(Object.entries(PARTS))(
    "%s splits where it branches, and agrees with PyTorch",
    async (name, parts) => {
      const whole = await load(name);
      const split = await splitModel(whole);
      expect(await proveSplit(whole, split, open)).toMatchObject({ bitwise: true, batches: [1, 3] });
      const { taps, heads } = split;
      expect({ taps: taps.map(({ shape }) => shape), heads: heads.map((head) => head.name) }).toEqual(parts);
      const { outputs } = await answers(split, golden(name, "input"));
      for (const { name: output } of whole.graph.output)
        expectNear(outputs.get(output), golden(name, output), output);
    },
  );

  it("has every network with several outputs, or another task, in the list", () => {
    expect(Object.keys(PARTS).sort()).toEqual(others.sort());
  });

  it.each(names)("%s: its parts join to the same identities", async (name) => {
    const whole = await load(name);
    const { backbone, heads } = await splitModel(whole, { keepBatch: true });
    const joined = await joinModels(backbone, ...heads.map(({ model }) => model));
    const order = whole.graph.output.map(({ name }) => name);
    const identities = await identify(joined);
    expect(order.map((output) => identities.get(output))).toEqual(await outputIdentities(whole));
  });

  it.each(names)("%s: backbone and heads answer through the engine as PyTorch does", async (name) => {
    const { backbone, heads } = await splitModel(await load(name));
    const engine = await openEngine();
    try {
      await engine.add("backbone", backbone);
      for (const head of heads) await engine.add(head.name, head.model);
      const routes = heads.map((head) => head.name);
      const { routes: answered } = await engine.run(routes, golden(name, "input"));
      for (const { name: route, model } of heads)
        for (const { name: output } of model.graph.output)
          expectNear(answered[route]?.outputs[output], golden(name, output), output);
    } finally {
      await engine.close();
    }
  });
});

describe("a network exported in another way", () => {
  it.each(again)("%s has the same identities under other names", async (name) => {
    const [one, other] = await Promise.all([load(name), load(`${name}-renamed`)]);
    // The exporter numbers some values, whatever they belong to.
    const inner = (of: Model) =>
      of.graph.node.flatMap(({ output }) => output).filter((value) => !value.startsWith("onnx::"));
    expect(inner(one).filter((value) => inner(other).includes(value))).toEqual([]);
    expect(await outputIdentities(other)).toEqual(await outputIdentities(one));
  });

  it.each(again)("%s shares its trunk with one that has another last layer", async (name) => {
    const [one, tuned] = await Promise.all([load(name), load(`${name}-tuned`)]);
    const { segments } = await shareReport([
      { name: "one", model: one },
      { name: "tuned", model: tuned },
    ]);
    expect(segments.map(({ usedBy, nodes }) => [usedBy, usedBy.length > 1 || nodes])).toEqual([
      [["one", "tuned"], true],
      [["one"], 1],
      [["tuned"], 1],
    ]);
    const width = golden(name, "features").shape[1] ?? 0;
    expect(segments.slice(1).map(({ parameters }) => parameters)).toEqual([5 * width + 5, 5 * width + 5]);
    const [split, other] = await Promise.all([splitModel(one), splitModel(tuned)]);
    expect(other.taps[0]?.identity).toBe(split.taps[0]?.identity);
    const { outputs } = await answers(
      { ...other, backbone: split.backbone },
      golden(`${name}-tuned`, "input"),
    );
    expectNear(outputs.get("logits"), golden(`${name}-tuned`, "logits"), "logits");
  });
});
