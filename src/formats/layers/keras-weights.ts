/**
 * Which weights of a Keras file belong to which layer. In HDF5 files of a whole model each layer at the top has a
 * group with a list of its weights, those of layers within included; Keras goes by their order: what is trained first,
 * then the rest. Keras 3's archives have a group for each layer, at every depth.
 */
import type { Tensor } from "../../tensor/tensor.js";
import type { Hdf5Object } from "../hdf5/file.js";
import { malformed } from "../tfjs/json.js";
import type { BoundWeights, Dialect, WeightSpec } from "./rule.js";
import { isModelClass, type LayerSpec, type ModelSpec } from "./topology.js";
import { refuseMissing, weightSpecs } from "./weights.js";

type Bound = Map<LayerSpec, ReadonlyMap<string, Tensor>>;

/** A place in the order of a model's weights. */
interface Slot {
  readonly layer: LayerSpec;
  readonly spec: WeightSpec;
}

/**
 * Binds the weights of an HDF5 file of a whole model.
 * @param group with a group for each layer
 * @throws PolyheadError MODEL_MALFORMED, MODEL_UNSUPPORTED
 */
export function bindByOrder(model: ModelSpec, dialect: Dialect, group: Hdf5Object): BoundWeights {
  const bound: Bound = new Map();
  const missing: string[] = [];
  for (const layer of model.layers) {
    const slots = slotsOf(layer, dialect);
    if (slots.length === 0) continue;
    const own = group.find(layer.name);
    const names = own ? (listedTexts(own, "weight_names") ?? []) : [];
    const chosen = byName(slots, names) ?? inOrder(slots, names);
    if (!own || !chosen) {
      const wanted = slots.map(({ layer: each, spec }) => `${each.name}/${spec.name}`);
      if (names.length === 0) missing.push(...wanted);
      else throw wrongCount(layer, wanted, names);
      continue;
    }
    for (const [slot, name] of chosen) {
      const found = own.find(name);
      if (!found)
        throw malformed(`The file lists the weight ${JSON.stringify(name)}, which it does not hold.`, {
          weight: name,
        });
      put(bound, slot, found.tensor());
    }
  }
  refuseMissing(missing);
  return bound;
}

function wrongCount(layer: LayerSpec, expected: readonly string[], got: readonly string[]) {
  return malformed(
    `Layer ${JSON.stringify(layer.name)} (${layer.className}) has ${got.length} weights in the file; its configuration needs ${expected.length}.`,
    { layer: layer.name, expected, got },
  );
}

function put(bound: Bound, { layer, spec }: Slot, tensor: Tensor): void {
  bound.set(layer, new Map([...(bound.get(layer) ?? []), [spec.name, tensor]]));
}

/** All texts of an attribute, which Keras cuts into several when they are too long for one. */
export function listedTexts(group: Hdf5Object, name: string): string[] | undefined {
  const whole = group.texts(name);
  if (whole) return whole;
  const parts: string[] = [];
  for (let at = 0; ; at++) {
    const part = group.texts(`${name}${at}`);
    if (!part) return at === 0 ? undefined : parts;
    parts.push(...part);
  }
}

/** By the names of layers within a model, when each weight has one that only it can have. */
function byName(slots: readonly Slot[], names: readonly string[]): [Slot, string][] | undefined {
  const chosen: [Slot, string][] = [];
  for (const slot of slots) {
    const ends = [slot.spec.name, ...(slot.spec.aliases ?? [])].map((each) => `/${slot.layer.name}/${each}`);
    const found = names.filter((name) => ends.some((end) => `/${name.replace(/:\d+$/, "")}`.endsWith(end)));
    const [only] = found;
    if (only === undefined || found.length > 1) {
      if (found.length === 0 && slot.spec.isOptional) continue;
      return undefined;
    }
    chosen.push([slot, only]);
  }
  return new Set(chosen.map(([, name]) => name)).size === chosen.length ? chosen : undefined;
}

function inOrder(slots: readonly Slot[], names: readonly string[]): [Slot, string][] | undefined {
  const kept = names.length === slots.length ? slots : slots.filter(({ spec }) => !spec.isOptional);
  if (names.length !== kept.length) return undefined;
  return kept.flatMap((slot, at) => names.slice(at, at + 1).map((name): [Slot, string] => [slot, name]));
}

/** The weights of a layer, and of all within, in Keras' order. */
function slotsOf(layer: LayerSpec, dialect: Dialect): Slot[] {
  const { trained, rest } = ordered(layer, dialect);
  return [...trained, ...rest];
}

function ordered(layer: LayerSpec, dialect: Dialect): { trained: Slot[]; rest: Slot[] } {
  const isTrained = layer.config.bool("trainable", true);
  const own = weightSpecs(layer, dialect).map((spec) => ({ layer, spec }));
  const inner = (layer.inner?.layers ?? []).map((each) => ordered(each, dialect));
  if (!isTrained)
    return { trained: [], rest: [...own, ...inner.flatMap(({ trained, rest }) => [...trained, ...rest])] };
  const isKept = ({ spec }: Slot) => spec.isTrainable !== false;
  return {
    trained: [...own.filter(isKept), ...inner.flatMap(({ trained }) => trained)],
    rest: [...own.filter((slot) => !isKept(slot)), ...inner.flatMap(({ rest }) => rest)],
  };
}

/**
 * Binds the weights of a Keras 3 archive.
 * @param root of its file of weights
 * @throws PolyheadError MODEL_MALFORMED, MODEL_UNSUPPORTED
 */
export function bindByPath(model: ModelSpec, root: Hdf5Object): BoundWeights {
  const bound: Bound = new Map();
  const missing: string[] = [];
  bindModel(model, new Place(root, []), bound, missing);
  refuseMissing(missing);
  return bound;
}

/** A layer's group in the file. Keras 2.12 and 2.13 on Windows wrote `layers\\dense` as one name. */
class Place {
  readonly #root: Hdf5Object;
  readonly #path: readonly string[];

  constructor(root: Hdf5Object, path: readonly string[]) {
    this.#root = root;
    this.#path = path;
  }

  get exists(): boolean {
    return this.#path.length === 0 || this.#group("/") !== undefined || this.#group("\\") !== undefined;
  }

  within(...names: readonly string[]): Place {
    return new Place(this.#root, [...this.#path, ...names]);
  }

  /** A weight of the layer itself, by its place among them. */
  weight(index: number): Hdf5Object | undefined {
    if (this.#path.length === 0) return undefined;
    return this.#group("/")?.find(`vars/${index}`) ?? this.#group("\\")?.find(`vars/${index}`);
  }

  #group(separator: string): Hdf5Object | undefined {
    return this.#root.find(this.#path.join(separator));
  }
}

/** Names that versions of Keras have had for the list of a model's layers. */
const LAYER_LISTS = ["layers", "_layer_checkpoint_dependencies"];

/** Layers are called after their class, with a number from the second one on, in the order of the configuration. */
function bindModel(model: ModelSpec, place: Place, bound: Bound, missing: string[]): void {
  const taken = new Map<string, number>();
  for (const layer of model.layers) {
    const snake = snakeCase(layer.className);
    const count = taken.get(snake);
    taken.set(snake, (count ?? -1) + 1);
    const name = count === undefined ? snake : `${snake}_${count + 1}`;
    const candidates = LAYER_LISTS.flatMap((list) => [
      place.within(list, name),
      place.within(list, layer.name),
    ]);
    const own = candidates.find((each) => each.exists);
    bindLayer(layer, own, bound, missing);
  }
}

function bindLayer(layer: LayerSpec, place: Place | undefined, bound: Bound, missing: string[]): void {
  if (layer.inner) {
    const { inner } = layer;
    if (isModelClass(layer.className)) {
      if (place) bindModel(inner, place, bound, missing);
      else
        missing.push(...slotsOf(layer, "keras3").map(({ layer: each, spec }) => `${each.name}/${spec.name}`));
    } else {
      for (const each of inner.layers) bindLayer(each, place?.within("layer"), bound, missing);
    }
    return;
  }
  for (const [at, spec] of weightSpecs(layer, "keras3").entries()) {
    const { part } = spec;
    const places = part ? [place?.within(part.name), place?.within(`_${part.name}`)] : [place];
    const found = places.map((each) => each?.weight(part?.index ?? at)).find((each) => each !== undefined);
    if (found) put(bound, { layer, spec }, found.tensor());
    else if (!spec.isOptional) missing.push(`${layer.name}/${spec.name}`);
  }
}

/** `Conv2DTranspose` is `conv2d_transpose`: the form that Keras gives names of classes. */
export function snakeCase(name: string): string {
  return name
    .replace(/\W+/g, "")
    .replace(/(.)([A-Z][a-z]+)/g, "$1_$2")
    .replace(/([a-z])([A-Z])/g, "$1_$2")
    .toLowerCase();
}
