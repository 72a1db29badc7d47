/**
 * Weights to begin from, random and repeatable. After He et al., "Delving Deep into Rectifiers" (2015): the variance
 * keeps the signal's size from layer to layer where half of it is cut off by a rectifier.
 */
import { gaussian, type Random } from "../base/random.js";
import { elementCount, type Shape } from "../tensor/shape.js";
import { float32, type Tensor } from "../tensor/tensor.js";

/**
 * Normally distributed float32 weights with variance gain^2 / (inputs of one output).
 * @param shape [outputs, inputs, ...kernel], as Conv and a transposed Gemm have it
 * @param gain sqrt(2) before a rectifier (the default), 1 before nothing
 */
export function kaimingNormal(shape: Shape, random: Random, gain = Math.SQRT2): Tensor {
  const deviation = gain / Math.sqrt(Math.max(1, elementCount(shape.slice(1))));
  return float32(
    shape,
    Float32Array.from({ length: elementCount(shape) }, () => deviation * gaussian(random)),
  );
}

/** One number in every element, float32. */
export function filled(shape: Shape, value: number): Tensor {
  return float32(shape, new Float32Array(elementCount(shape)).fill(value));
}
