/**
 * Pickled modules of `torch.nn` as data: their parts, their tensors, and the layers that they run in order when all
 * of them are plain ones. A module with a `forward` of its own is a name and its parts; what it computes is code.
 */
import { PolyheadError } from "../../base/errors.js";
import { Layer } from "./layer.js";
import { CONTAINERS, layerKind } from "./layers/table.js";
import { NumpyArray } from "./numpy.js";
import { PickledObject, unsupported } from "./objects.js";
import { StoredTensor } from "./tensor.js";

/** Modules within modules go no deeper in any published model. */
const DEEPEST = 64;
const MOST_LAYERS = 2 ** 12;
/** A module may stand in several places, so that a small file can hold very many. */
const MOST_MODULES = 2 ** 14;

/** A pickled instance of a subclass of `torch.nn.Module`. */
export interface PickledModule extends PickledObject {}

/** Whether a value is a pickled module. */
export function isModule(value: unknown): value is PickledModule {
  return (
    value instanceof PickledObject &&
    value.attributes.get("_modules") instanceof Map &&
    value.attributes.get("_parameters") instanceof Map
  );
}

/** A value as a tensor; undefined for all else. */
export function asTensor(value: unknown): StoredTensor | undefined {
  if (value instanceof StoredTensor) return value;
  return value instanceof NumpyArray && value.isNumeric ? value.tensor : undefined;
}

/** A module's parts by name, in order; those that are `None` left out. */
export function partsOf(module: PickledModule): Map<string, PickledModule> {
  const parts = new Map<string, PickledModule>();
  for (const [name, part] of asMap(module.attributes.get("_modules")))
    if (isModule(part)) parts.set(String(name), part);
  return parts;
}

/** The module inside of wrappers for several devices. */
export function unwrapped(module: PickledModule): PickledModule {
  const isWrapper = /^torch\.nn\.parallel\.|^torch\._dynamo\.eval_frame\.OptimizedModule$/.test(
    module.className,
  );
  const [inner] = isWrapper ? partsOf(module).values() : [];
  return inner ?? module;
}

/** A module's own parameters and buffers by name. */
function tensorsOf(module: PickledModule): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const kind of ["_parameters", "_buffers"])
    for (const [name, value] of asMap(module.attributes.get(kind))) {
      const tensor = asTensor(value);
      if (tensor) tensors.set(String(name), tensor);
    }
  return tensors;
}

/** What `state_dict()` of a module would give. */
export function stateOf(module: PickledModule): Map<string, StoredTensor> {
  const state = new Map<string, StoredTensor>();
  for (const { module: each, path } of walk(module))
    for (const [name, tensor] of tensorsOf(each)) state.set(joined(path, name), tensor);
  return state;
}

/** Every module below a module, itself first. @throws PolyheadError LIMIT_EXCEEDED */
export function* walk(module: PickledModule): Generator<{ module: PickledModule; path: string }> {
  let count = 0;
  for (const each of below(module, "", 0)) {
    if (++count > MOST_MODULES) throw tooMuch(`more than ${MOST_MODULES} modules`, MOST_MODULES);
    yield each;
  }
}

function* below(
  module: PickledModule,
  path: string,
  depth: number,
): Generator<{ module: PickledModule; path: string }> {
  requireDepth(depth);
  yield { module, path };
  for (const [name, part] of partsOf(module)) yield* below(part, joined(path, name), depth + 1);
}

/**
 * The layers that a module runs, in order.
 * @throws PolyheadError MODEL_UNSUPPORTED with the name of a class that has a `forward` of its own; LIMIT_EXCEEDED
 */
export function layersOf(module: PickledModule, path: string, notes: string[]): Layer[] {
  const layers: Layer[] = [];
  requireFew(module);
  collect(module, path, notes, layers, 0);
  return layers;
}

function collect(module: PickledModule, path: string, notes: string[], layers: Layer[], depth: number): void {
  requireDepth(depth);
  refuseHooks(module, path);
  const kind = layerKind(module.className);
  if (kind === undefined) throw ownForward(module, path);
  if (!CONTAINERS.has(kind)) {
    if (layers.length >= MOST_LAYERS) throw tooMuch(`more than ${MOST_LAYERS} layers`, MOST_LAYERS);
    const settings = new Map([...module.attributes].map(([name, value]) => [String(name), value]));
    layers.push(new Layer(kind, path, settings, tensorsOf(module)));
    return;
  }
  if (kind === "ModuleList")
    notes.push(
      `${path === "" ? "The file" : JSON.stringify(path)} is a ModuleList, which says no order of its own; its layers are run one after another.`,
    );
  for (const [name, part] of partsOf(module)) collect(part, joined(path, name), notes, layers, depth + 1);
}

/** Hooks and a `forward` set on the instance are code that would change what a layer does. */
function refuseHooks(module: PickledModule, path: string): void {
  const place = path === "" ? module.className : `${module.className} ${JSON.stringify(path)}`;
  for (const name of ["_forward_hooks", "_forward_pre_hooks"]) {
    const [hook] = asMap(module.attributes.get(name)).values();
    if (hook === undefined) continue;
    const what = hook instanceof PickledObject ? hook.className : "a function";
    throw unsupported(
      `${place} has a hook, ${what}, which changes what it computes. Remove it in Python (for weight norm: torch.nn.utils.remove_weight_norm) and save the module again.`,
      { class: module.className, path, hook: what },
    );
  }
  if (module.attributes.has("forward")) throw ownForward(module, path);
}

/** The error that names a class whose `forward` is code, with the ways on. */
function ownForward(module: PickledModule, path: string): PolyheadError {
  const place = path === "" ? module.className : `${module.className}, at ${JSON.stringify(path)},`;
  const parts = [...partsOf(module)].flatMap(([name, part]) => (isPlain(part) ? [name] : []));
  const heads = parts.slice(-3).map((name) => `--head ${joined(path, name)}`);
  const third =
    heads.length > 0
      ? ` Parts of it that are plain layers can be taken as they are: ${heads.join(", ")}.`
      : "";
  const isOwn = module.className.startsWith("torch.nn.");
  return unsupported(
    `${place} ${isOwn ? "is no layer that can be imported" : "has a forward of its own, which is code and not in the file"}. Two ways on: export it where its class is, ` +
      'torch.onnx.export(model.eval(), torch.zeros(1, ...), "model.onnx", dynamic_axes={"input": {0: "batch"}}, input_names=["input"]), and import that; ' +
      `or say what it computes: --architecture FILE.json, with its weights from this file or from torch.save(model.state_dict(), FILE).${third}`,
    { class: module.className, path, parts },
  );
}

/** Whether a part has weights and consists of plain layers. */
function isPlain(module: PickledModule): boolean {
  try {
    return layersOf(module, "", []).length > 0 && stateOf(module).size > 0;
  } catch {
    return false;
  }
}

/** A dotted path. */
export function joined(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}

function asMap(value: unknown): ReadonlyMap<unknown, unknown> {
  return value instanceof Map ? value : new Map();
}

/** @throws PolyheadError LIMIT_EXCEEDED when there are more modules than can be gone through */
function requireFew(module: PickledModule): number {
  return [...walk(module)].length;
}

function requireDepth(depth: number): void {
  if (depth > DEEPEST) throw tooMuch(`modules nested deeper than ${DEEPEST}`, DEEPEST);
}

function tooMuch(what: string, limit: number): PolyheadError {
  return new PolyheadError("LIMIT_EXCEEDED", `The file has ${what}; export the model to ONNX instead.`, {
    limit,
  });
}
