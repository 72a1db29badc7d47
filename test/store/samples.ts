/** Small models and folders for the tests of the store. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import type { ErrorCode } from "../../src/base/errors.js";
import { type Metadata, withMetadata } from "../../src/onnx/metadata.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { float32 } from "../../src/tensor/tensor.js";

/** So many numbers take more than the weights that stay in the model's file. */
export const MUCH = 300_000;

/** A model that adds `length` numbers, which differ with the seed. */
export function addition(seed: number, length = 4, metadata: Metadata = {}): Model {
  const values = Float32Array.from({ length }, (_, at) => seed + at);
  const main = graph("addition", {
    nodes: [node("Add", ["x", "w"], ["y"])],
    inputs: [valueInfo("x", "float32", [length])],
    outputs: [valueInfo("y", "float32", [length])],
    weights: [weight("w", float32([length], values))],
  });
  return withMetadata(model(main), metadata);
}

/** A folder that is there until the test is over. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "store-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Expects a failure of one kind. */
export async function refuses(work: Promise<unknown>, code: ErrorCode): Promise<void> {
  await expect(work).rejects.toMatchObject({ name: "PolyheadError", code });
}

/** A JSON file as it stands. */
export async function json(...path: string[]) {
  return JSON.parse(await readFile(join(...path), "utf8"));
}

/** Who changes routes in the tests. */
export const author = { by: "test", reason: "to see" };
