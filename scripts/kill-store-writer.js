// Writes to a store until it is killed, and says on standard output what it was told was kept; for kill-store.js.
// Usage: node scripts/kill-store-writer.js STORE NAME LAST-NUMBER
import { writeSync } from "node:fs";
import { graph, model, node, valueInfo } from "../dist/onnx/model.js";
import { weight } from "../dist/onnx/weight.js";
import { Store } from "../dist/store/index.js";
import { float32 } from "../dist/tensor/tensor.js";

const [, , directory = "", name = "", last] = process.argv;
const author = { by: name, reason: "to be killed" };
const say = (/** @type {object} */ told) => writeSync(1, `${JSON.stringify(told)}\n`);
const store = await Store.open(directory);
const base = await store.put(addition(0));
say({});
let number = Number(last);
for (;;) {
  const chance = Math.random();
  if (chance < 0.6) {
    number = Math.max(number, (await store.routes()).routes.get(name)?.targets[0]?.weight ?? 0) + 1;
    const { generation } = await store.change(
      (routes) => routes.set(name, { targets: [{ revision: base, weight: number }] }),
      author,
    );
    say({ number, generation });
  } else if (chance < 0.8) {
    // Big enough that some have their weights in a layer of their own.
    say({ put: await store.put(addition(Math.random(), Math.random() < 0.3 ? 300_000 : 8)) });
  } else if (chance < 0.95) {
    const own = (await store.models()).filter(({ revision }) => revision !== base);
    const victim = own[Math.floor(Math.random() * own.length)];
    if (!victim) continue;
    say({ removing: victim.revision });
    await store.remove(victim.revision).catch((error) => {
      if (error.code !== "NOT_FOUND") throw error; // the other writer was first
    });
  } else {
    await store.gc({ grace: 60_000 });
  }
}

/** A model that adds numbers made of `seed`. */
function addition(/** @type {number} */ seed, length = 4) {
  const values = Float32Array.from({ length }, (_, at) => seed + at);
  return model(
    graph("addition", {
      nodes: [node("Add", ["x", "w"], ["y"])],
      inputs: [valueInfo("x", "float32", [length])],
      outputs: [valueInfo("y", "float32", [length])],
      weights: [weight("w", float32([length], values))],
    }),
  );
}
