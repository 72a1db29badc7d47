/** Folders of real photos, and a small backbone with seeded random weights, for the tests of this folder. */
import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { gaussian, seededRandom } from "../../src/base/random.js";
import { graph, type Model, model, node, valueInfo, withMetadata } from "../../src/onnx/index.js";
import { weight } from "../../src/onnx/weight.js";
import { float32 } from "../../src/tensor/index.js";
import { foodPhoto } from "../vision/pictures.js";

/** Copies photos of food groups into one folder a group: the numbers from 1 to `count` of each letter. */
export async function foodFolder(folder: string, groups: Readonly<Record<string, string>>, count: number) {
  for (const [letter, label] of Object.entries(groups)) {
    await mkdir(join(folder, label), { recursive: true });
    for (let number = 1; number <= count; number++) {
      const name = `${letter}${String(number).padStart(3, "0")}`;
      await copyFile(foodPhoto(name), join(folder, label, `${name}.jpeg`));
    }
  }
}

/**
 * Two convolutions with random weights over [1, 3, 48, 48]; taps `c1` [1, 16, 12, 12] and `c2` [1, 32, 6, 6]. It
 * takes one image at a time.
 */
export function randomBackbone(seed = 7): Model {
  const random = seededRandom(seed);
  const kernel = (name: string, shape: readonly [number, number, number, number]) => {
    const fan = shape[1] * shape[2] * shape[3];
    const values = Array.from({ length: shape[0] * fan }, () => gaussian(random) * Math.sqrt(2 / fan));
    return weight(name, float32(shape, values));
  };
  const made = model(
    graph("backbone", {
      nodes: [
        node("Conv", ["image", "w1"], ["a1"], { strides: [4, 4], pads: [1, 1, 1, 1] }),
        node("Relu", ["a1"], ["c1"]),
        node("Conv", ["c1", "w2"], ["a2"], { strides: [2, 2], pads: [1, 1, 1, 1] }),
        node("Relu", ["a2"], ["c2"]),
      ],
      inputs: [valueInfo("image", "float32", [1, 3, 48, 48])],
      outputs: [valueInfo("c1", "float32", [1, 16, 12, 12]), valueInfo("c2", "float32", [1, 32, 6, 6])],
      weights: [kernel("w1", [16, 3, 4, 4]), kernel("w2", [32, 16, 3, 3])],
    }),
  );
  return withMetadata(made, { role: "backbone", preprocessing: { height: 48, width: 48, range: [-1, 1] } });
}
