/**
 * Model files as routes of an engine, named by their files: backbones first and adapters next, so that the heads
 * beside them find what they read. Where heads are there, they answer; a backbone or adapter without heads answers
 * with its taps.
 */
import { basename } from "node:path";
import { PolyheadError } from "../base/errors.js";
import type { Engine } from "../engine/engine.js";
import { loadModel } from "../files/disk.js";
import { openEngine } from "../index.js";
import { toEvaluation } from "../onnx/evaluation.js";
import { GraphIndex } from "../onnx/graph.js";
import { type Metadata, readMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";

/** A route that answers. */
export interface Route {
  readonly name: string;
  readonly metadata: Metadata;
  /** Names of the inputs that its requests give. */
  readonly inputs: readonly string[];
}

/** An engine with its routes. */
export interface Routes {
  readonly engine: Engine;
  /** In the order of the files. */
  readonly routes: readonly Route[];
  /** The metadata of the backbones. */
  readonly backbones: readonly Metadata[];
  /** What was changed in the models. */
  readonly notes: readonly string[];
}

interface Loaded {
  readonly name: string;
  readonly model: Model;
  readonly metadata: Metadata;
}

/**
 * Opens an engine over model files; the caller closes it.
 * @param bind names, by a head's input, the tap that it reads whatever it was made for
 * @throws PolyheadError INVALID_ARGUMENT for equal names and bindings of no input, and what loading throws; then
 *   nothing remains open
 */
export async function openRoutes(
  paths: readonly string[],
  bind: Readonly<Record<string, string>> = {},
): Promise<Routes> {
  const notes: string[] = [];
  const loaded: Loaded[] = [];
  for (const path of paths) {
    const name = basename(path, ".onnx");
    if (loaded.some((each) => each.name === name)) throw sameName(name);
    const evaluation = toEvaluation(await loadModel(path));
    notes.push(...evaluation.notes.map((note) => `${name}: ${note}`));
    loaded.push({ name, model: evaluation.model, metadata: readMetadata(evaluation.model) });
  }
  refuseUnusedBindings(
    bind,
    loaded.filter(({ metadata }) => metadata.role !== "backbone"),
  );
  const backbones = loaded.filter(({ metadata }) => metadata.role === "backbone");
  const adapters = loaded.filter(({ metadata }) => metadata.role === "adapter");
  const heads = loaded.filter((each) => !backbones.includes(each) && !adapters.includes(each));
  const answering = [heads, adapters, backbones].find((some) => some.length > 0) ?? [];
  const engine = await openEngine({ cacheBytes: 0 });
  try {
    for (const { name, model } of backbones) await engine.add(name, model);
    for (const { name, model } of [...adapters, ...heads])
      await engine.add(name, model, bindingOf(model, bind));
    const inputsOf = new Map(
      engine.models.flatMap(({ routes, inputs }) => routes.map((route) => [route, inputs] as const)),
    );
    return {
      engine,
      routes: answering.map(({ name, metadata }) => ({
        name,
        metadata,
        inputs: inputsOf.get(name) ?? [],
      })),
      backbones: backbones.map(({ metadata }) => metadata),
      notes,
    };
  } catch (thrown) {
    await engine.close();
    throw thrown;
  }
}

/** The part of the bindings that is about a model's inputs. */
function bindingOf(model: Model, bind: Readonly<Record<string, string>>) {
  const own = new GraphIndex(model.graph).inputs.flatMap(({ name }) => {
    const tap = Object.hasOwn(bind, name) ? bind[name] : undefined;
    return tap === undefined ? [] : [[name, tap] as const];
  });
  return own.length > 0 ? { bind: Object.fromEntries(own) } : {};
}

function refuseUnusedBindings(bind: Readonly<Record<string, string>>, heads: readonly Loaded[]): void {
  const names = heads.flatMap(({ model }) => new GraphIndex(model.graph).inputs.map(({ name }) => name));
  const unused = Object.keys(bind).find((name) => !names.includes(name));
  if (unused === undefined) return;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `No head has an input ${JSON.stringify(unused)} to bind; expected one of ${names.join(", ") || "none"}.`,
    { input: unused, expected: names },
  );
}

function sameName(name: string): PolyheadError {
  return new PolyheadError(
    "INVALID_ARGUMENT",
    `Two files are named ${JSON.stringify(name)}, and routes are named by their files; rename one of them.`,
    { name },
  );
}
