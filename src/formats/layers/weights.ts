/**
 * Which weights of a file belong to which layer, for files that name them. Keras itself goes by names in TF.js
 * and by order in its own files; see keras/ for those.
 */
import type { Tensor } from "../../tensor/tensor.js";
import { malformed } from "../tfjs/json.js";
import type { BoundWeights, Dialect, WeightSpec } from "./rule.js";
import { findLayerRule } from "./rules.js";
import type { LayerSpec, ModelSpec } from "./topology.js";

/** The weights that a layer itself has, those of layers within left out. */
export function weightSpecs(layer: LayerSpec, dialect: Dialect): readonly WeightSpec[] {
  return findLayerRule(layer)?.weights?.(layer.config, dialect) ?? [];
}

/**
 * Binds weights that are called after their layers: `conv1/kernel`, with anything in front.
 * @throws PolyheadError MODEL_MALFORMED for weights that are missing, or layers whose names are not unique
 */
export function bindByName(
  model: ModelSpec,
  dialect: Dialect,
  tensors: ReadonlyMap<string, Tensor>,
): BoundWeights {
  const byEnd = new Map<string, Tensor>();
  for (const [name, tensor] of tensors) {
    const parts = name.replace(/:\d+$/, "").split("/");
    for (let start = parts.length - 1; start >= 0; start--) byEnd.set(parts.slice(start).join("/"), tensor);
  }
  const bound = new Map<LayerSpec, ReadonlyMap<string, Tensor>>();
  const owners = new Map<Tensor, LayerSpec>();
  const missing: string[] = [];
  for (const { layer, around } of allLayers(model)) {
    const own = new Map<string, Tensor>();
    for (const spec of weightSpecs(layer, dialect)) {
      const names = [spec.name, ...(spec.aliases ?? [])];
      const paths = [layer.name, ...(around ? [around.name] : [])].flatMap((owner) =>
        names.map((name) => `${owner}/${name}`),
      );
      const path = paths.find((each) => byEnd.has(each));
      const tensor = path === undefined ? undefined : byEnd.get(path);
      if (!tensor) {
        if (!spec.isOptional) missing.push(paths[0] ?? spec.name);
        continue;
      }
      const owner = owners.get(tensor);
      if (owner && owner !== layer) {
        throw malformed(
          `Two layers are called ${JSON.stringify(layer.name)}, so that their weights cannot be told apart. Give all layers different names.`,
          { layer: layer.name },
        );
      }
      owners.set(tensor, layer);
      own.set(spec.name, tensor);
    }
    bound.set(layer, own);
  }
  refuseMissing(missing);
  return bound;
}

/**
 * @throws PolyheadError MODEL_MALFORMED with all that is missing
 */
export function refuseMissing(missing: readonly string[]): void {
  if (missing.length === 0) return;
  throw malformed(
    `The file has no weights ${missing.slice(0, 8).join(", ")}${missing.length > 8 ? `, and ${missing.length - 8} more` : ""}; ` +
      "it is cut off, or belongs to another configuration.",
    { missing },
  );
}

/** All layers of a model, those of models within included, each with the wrapper that it stands in. */
export function* allLayers(
  model: ModelSpec,
  around?: LayerSpec,
): Generator<{ readonly layer: LayerSpec; readonly around: LayerSpec | undefined }> {
  for (const layer of model.layers) {
    yield { layer, around };
    if (layer.inner) yield* allLayers(layer.inner, layer);
  }
}
