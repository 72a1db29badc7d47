/** The loss of the centre head on a batch: its three terms with their targets, made from boxes. */
import type { Collate } from "../../data/batches.js";
import { float32, type Tensor } from "../../tensor/tensor.js";
import type { TargetTerm } from "../../train/gradients.js";
import { type CentreGrid, centreTargets } from "../../vision/centre-head.js";
import type { ObjectBox } from "../../vision/detections.js";
import type { CentreNames } from "./centre-network.js";

/** Factor of the sizes' term, which are in cells; the paper's. */
const SIZE_WEIGHT = 0.1;

/** Makes the terms of batches whose boxes are in pixels of the model's input. */
export function centreTerms(
  grid: CentreGrid,
  names: CentreNames,
): Collate<readonly ObjectBox[], readonly TargetTerm[]> {
  return (x, boxes) => {
    const { heat, weight, size, offset, mask } = centreTargets(boxes, grid);
    return {
      x,
      y: [
        { loss: { kind: "centre-heat" }, output: names.heat, target: withoutIgnored(heat, weight) },
        {
          loss: { kind: "masked-l1" },
          output: names.size,
          target: withMask(size, mask),
          weight: SIZE_WEIGHT,
        },
        { loss: { kind: "masked-l1" }, output: names.offset, target: withMask(offset, mask) },
      ],
    };
  };
}

/** The heat, -1 in all classes where nothing is to be learned. */
function withoutIgnored(heat: Tensor, weight: Tensor): Tensor {
  const [images = 0, classes = 0, height = 0, width = 0] = heat.shape;
  const cells = height * width;
  const values = (heat.data as Float32Array).slice();
  for (let image = 0; image < images; image++) {
    for (let cell = 0; cell < cells; cell++) {
      if (weight.data[image * cells + cell] !== 0) continue;
      for (let of = 0; of < classes; of++) values[(image * classes + of) * cells + cell] = -1;
    }
  }
  return float32(heat.shape, values);
}

/** [images, channels + 1, height, width] of values and mask. */
function withMask(values: Tensor, mask: Tensor): Tensor {
  const [images = 0, channels = 0, ...sides] = values.shape;
  const [own, one] = [values.data.length / Math.max(1, images), mask.data.length / Math.max(1, images)];
  const both = new Float32Array(values.data.length + mask.data.length);
  for (let image = 0; image < images; image++) {
    const at = image * (own + one);
    both.set((values.data as Float32Array).subarray(image * own, (image + 1) * own), at);
    both.set((mask.data as Float32Array).subarray(image * one, (image + 1) * one), at + own);
  }
  return float32([images, channels + 1, ...sides], both);
}
