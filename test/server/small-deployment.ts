/** Deployments of small models over real engines and stores: a backbone of two channels, and heads of two classes. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openEngine } from "../../src/index.js";
import { readMetadata, withMetadata } from "../../src/onnx/metadata.js";
import { graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { splitModel } from "../../src/onnx/split.js";
import { weight } from "../../src/onnx/weight.js";
import { Deployment, type DeploymentOptions } from "../../src/server/deployment.js";
import { Store } from "../../src/store/index.js";
import { float32, type Tensor, toNumbers } from "../../src/tensor/tensor.js";

const open: { close(): Promise<void> }[] = [];
const folders: string[] = [];

/** For `afterEach`. */
export async function endDeployments(): Promise<void> {
  for (const each of open.splice(0)) await each.close();
  for (const each of folders.splice(0)) await rm(each, { recursive: true, force: true });
}

export async function newFolder(): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), "deployment-"));
  folders.push(made);
  return made;
}

export async function deploy(folder: string, options: DeploymentOptions = {}): Promise<Deployment> {
  const made = await Deployment.open(await Store.open(folder), await openEngine(), {
    version: "1",
    ...options,
  });
  open.push(made);
  return made;
}

/** The mean of each of two channels. */
export async function backbone(): Promise<Model> {
  const main = graph("backbone", {
    nodes: [node("Relu", ["image"], ["maps"]), node("GlobalAveragePool", ["maps"], ["mean"])],
    inputs: [valueInfo("image", "float32", ["n", 2, 2, 2])],
    outputs: [valueInfo("mean", "float32", ["n", 2, 1, 1])],
    weights: [],
  });
  return (await splitModel(model(main), { at: ["mean"] })).backbone;
}

/** Two scores, which are the means by a matrix. */
export function head(of: Model, factors: readonly number[]): Model {
  const main = graph("head", {
    nodes: [node("Flatten", ["mean"], ["flat"]), node("Gemm", ["flat", "w"], ["scores"])],
    inputs: [valueInfo("mean", "float32", ["n", 2, 1, 1])],
    outputs: [valueInfo("scores", "float32", ["n", 2])],
    weights: [weight("w", float32([2, 2], factors))],
  });
  return withMetadata(model(main), { role: "head", taps: readMetadata(of).taps ?? [], labels: ["a", "b"] });
}

/** One row whose means are 1 and 3. */
export const image = float32([1, 2, 2, 2], [1, 1, 1, 1, 3, 3, 3, 3]);

export const scoresOf = (outputs: Readonly<Record<string, Tensor>> | undefined) =>
  outputs?.scores ? [...toNumbers(outputs.scores)] : [];
