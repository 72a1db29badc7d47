/**
 * The store that is taken where none is named, in the user's cache. One that is new gets the demo's models: a detector
 * and a food classifier on one backbone.
 */
import { homedir } from "node:os";
import { join } from "node:path";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { openModelOn } from "../../runtime/open-model.js";
import { Runtime } from "../../runtime/runtime.js";
import { routeTo, type Store } from "../../store/index.js";
import { demoPackages } from "../demo/packages.js";
import { prepare } from "../demo/prepare.js";

/** `$XDG_CACHE_HOME/polyhead/store`, or `.cache/polyhead/store` in the home folder. */
export function defaultStoreFolder(environment: NodeJS.ProcessEnv = process.env): string {
  return join(cacheFolder(environment), "store");
}

/**
 * Puts the demo's models into a store whose routes were never changed, with the routes `detector` and `food`.
 * @param version of Polyhead
 * @param say is told what is done, which takes a while the first time
 * @throws PolyheadError FILE_NOT_FOUND when the packages of the demo are not installed
 */
export async function putDemo(store: Store, version: string, say: (line: string) => void): Promise<void> {
  if ((await store.routes()).generation > 0) return;
  const packages = demoPackages();
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    const folder = join(cacheFolder(process.env), "demo");
    const { backbone, detector, food } = await prepare(packages, folder, version, openModelOn(runtime), say);
    await store.put(backbone, { title: "backbone.onnx" });
    const targets = {
      detector: routeTo(await store.put(detector, { title: "detector.onnx" })),
      food: routeTo(await store.put(food, { title: "food.onnx" })),
    };
    await store.change(
      (routes) => {
        for (const [name, route] of Object.entries(targets)) routes.set(name, route);
      },
      { by: "polyhead", reason: "the models of the demo" },
    );
  } finally {
    await runtime.close();
  }
}

function cacheFolder({ XDG_CACHE_HOME }: NodeJS.ProcessEnv): string {
  return join(XDG_CACHE_HOME || join(homedir(), ".cache"), "polyhead");
}
