/**
 * Normalizations. For n = (x - mean) / deviation over some axes, the gradient g with respect to n gives
 * (g - mean(g) - n mean(g n)) / deviation with respect to x: what would only shift or stretch n has no effect.
 */
import { float } from "../../../onnx/model.js";
import { elementCount, type Shape } from "../../../tensor/shape.js";
import type { Context, Rule } from "../context.js";

const axesFrom = (first: number, rank: number): number[] =>
  Array.from({ length: rank - first }, (_, at) => first + at);

/** x normalised over `axes`, and one over its deviation. */
function normalised(c: Context, x: string, axes: readonly number[], epsilon: number, centred = true) {
  const centre = centred ? c.sub(x, c.mean(x, axes)) : x;
  const variance = c.mean(c.square(centre), axes);
  const inverse = c.div(1, c.op("Sqrt", [c.add(variance, epsilon)]));
  return { n: c.mul(centre, inverse), inverse };
}

/** The gradient with respect to x from that with respect to n. */
function throughNormalisation(
  c: Context,
  g: string,
  { n, inverse }: { n: string; inverse: string },
  axes: readonly number[],
  centred = true,
): string {
  const level = centred ? c.sub(g, c.mean(g, axes)) : g;
  return c.mul(c.sub(level, c.mul(n, c.mean(c.mul(g, n), axes))), inverse);
}

/** A parameter with one number a channel, as it is broadcast over [images, channels, ...]. */
const perChannel = (c: Context, value: string, rank: number): string =>
  c.builder.reshape(value, [-1, ...new Array<number>(rank - 2).fill(1)]);

/** factor x + level, one number a channel each: in one pass over x, as a norm of mean 0 and variance 1. */
const alongChannels = (c: Context, x: string, factor: string, level: string): string => {
  const channels: Shape = [c.shape(1)[0] ?? 1];
  const operands = [x, factor, level, c.filled(channels, 0), c.filled(channels, 1)];
  return c.op("BatchNormalization", operands, { epsilon: float(0) });
};

/** Sums everything but channels. */
const overChannels = (c: Context, value: string, rank: number): string =>
  c.sum(value, [0, ...axesFrom(2, rank)], false);

/**
 * Statistics of the batch: all goes through them. With n = (x - mean) inverse and means over the batch,
 * scale inverse (dy - mean(dy) - n mean(dy n)), where the sums are those that bias and scale need anyway. Without momentum
 * the node itself gives mean and variance.
 */
function batchStatistics(c: Context, dy: string): ReturnType<Rule> {
  const shape = c.shape();
  const rank = shape.length;
  const axes = [0, ...axesFrom(2, rank)];
  const count = elementCount(shape) / (shape[1] ?? 1);
  const isPlain = c.float("momentum", 0.9) === 0;
  const mean = isPlain ? c.optional(1) : c.mean(c.x(), axes, false);
  const centred = c.sub(c.x(), perChannel(c, mean, rank));
  const variance = isPlain ? c.optional(2) : c.mean(c.square(centred), axes, false);
  const inverse = c.div(1, c.op("Sqrt", [c.add(variance, c.float("epsilon", 1e-5))]));
  const shift = overChannels(c, dy, rank);
  const stretch = c.mul(overChannels(c, c.mul(dy, centred), rank), inverse);
  return [
    () => {
      const factor = c.mul(c.x(1), inverse);
      const slope = c.neg(c.div(c.mul(c.mul(stretch, inverse), factor), count));
      const level = c.neg(c.div(c.mul(shift, factor), count));
      return c.add(alongChannels(c, dy, factor, level), c.mul(centred, perChannel(c, slope, rank)));
    },
    () => stretch,
    () => shift,
  ];
}

/** scale (x - mean) / sqrt(variance + epsilon) + bias, statistics given (evaluation) or taken from the batch. */
const batchNormalization: Rule = (c, dy) => {
  if (c.int("training_mode", 0) !== 0) return batchStatistics(c, dy);
  const rank = c.shape().length;
  const epsilon = c.float("epsilon", 1e-5);
  const inverse = () => c.div(1, c.op("Sqrt", [c.add(c.x(4), epsilon)]));
  const factor = () => c.mul(c.x(1), inverse());
  const centred = () => overChannels(c, c.mul(dy, c.sub(c.x(), perChannel(c, c.x(3), rank))), rank);
  return [
    () => c.mul(dy, perChannel(c, factor(), rank)),
    () => c.mul(centred(), inverse()),
    () => overChannels(c, dy, rank),
    () => c.neg(c.mul(overChannels(c, dy, rank), factor())),
    () => c.mul(c.mul(centred(), factor()), c.mul(c.square(inverse()), -0.5)),
  ];
};

/** Over all axes from one on; scale and bias have the shape of those axes, or one that is broadcast to it. */
const layerNormalization =
  (centred: boolean): Rule =>
  (c, dy) => {
    const shape = c.shape();
    const axes = axesFrom(c.axis(-1), shape.length);
    const norm = normalised(c, c.x(), axes, c.float("epsilon", 1e-5), centred);
    return [
      () => throughNormalisation(c, c.mul(dy, c.x(1)), norm, axes, centred),
      () => c.builder.sumTo(c.mul(dy, norm.n), shape, c.shape(1)),
      () => c.builder.sumTo(dy, shape, c.shape(2)),
    ];
  };

/** Each channel of each image for itself. */
const instanceNormalization: Rule = (c, dy) => {
  const rank = c.shape().length;
  const axes = axesFrom(2, rank);
  const norm = normalised(c, c.x(), axes, c.float("epsilon", 1e-5));
  return [
    () => throughNormalisation(c, c.mul(dy, perChannel(c, c.x(1), rank)), norm, axes),
    () => overChannels(c, c.mul(dy, norm.n), rank),
    () => overChannels(c, dy, rank),
  ];
};

/** Groups of channels of each image; scale and bias by channel, or by group as up to operator set 20. */
const groupNormalization: Rule = (c, dy) => {
  const shape = c.shape();
  const [images = 1, channels = 1, ...sizes] = shape;
  const groups = c.int("num_groups", 1);
  const inGroups: Shape = [images, groups, channels / groups, elementCount(sizes)];
  const norm = normalised(c, c.builder.reshape(c.x(), inGroups), [2, 3], c.float("epsilon", 1e-5));
  const parameters: Shape =
    c.shape(1)[0] === channels ? [1, groups, channels / groups, 1] : [1, groups, 1, 1];
  const g = c.builder.reshape(dy, inGroups);
  const summed = (value: string, place: number) =>
    c.builder.reshape(c.builder.sumTo(value, inGroups, parameters), c.shape(place));
  return [
    () => {
      const scaled = c.mul(g, c.builder.reshape(c.x(1), parameters));
      return c.builder.reshape(throughNormalisation(c, scaled, norm, [2, 3]), shape);
    },
    () => summed(c.mul(g, norm.n), 1),
    () => summed(g, 2),
  ];
};

const meanVarianceNormalization: Rule = (c, dy) => {
  const axes = c.ints("axes") ?? [0, 2, 3];
  return [() => throughNormalisation(c, dy, normalised(c, c.x(), axes, 0), axes)];
};

/** y = x / |x|: (dy - y' sum(dy y)) / |x|, where y' is y for the Euclidean norm and the sign for the sum of sizes. */
const lpNormalization: Rule = (c, dy) => [
  () => {
    const axes = [c.axis(-1)];
    const isEuclidean = c.int("p", 2) === 2;
    const norm = isEuclidean
      ? c.op("Sqrt", [c.sum(c.square(c.x()), axes)])
      : c.sum(c.op("Abs", [c.x()]), axes);
    const direction = isEuclidean ? c.y() : c.op("Sign", [c.x()]);
    return c.div(c.sub(dy, c.mul(direction, c.sum(c.mul(dy, c.y()), axes))), norm);
  },
];

/** x d^-beta with d = bias + alpha / size (sum of x^2 over neighbouring channels). */
const localResponse: Rule = (c, dy) => [
  () => {
    const shape = c.shape();
    const [size, beta] = [c.int("size", 1), c.float("beta", 0.75)];
    const scale = c.float("alpha", 1e-4) / size;
    const [back, ahead] = [Math.floor((size - 1) / 2), Math.ceil((size - 1) / 2)];
    const places = Array.from({ length: shape[1] ?? 1 }, (_, channel) => channel);
    const near = places.map((i) => places.map((j) => (j >= i - back && j <= i + ahead ? 1 : 0)));
    const turned = places.map((i) => places.map((j) => near[j]?.[i] ?? 0));
    const d = c.add(c.mul(c.alongAxis(c.square(c.x()), shape, 1, near), scale), c.float("bias", 1));
    const direct = c.mul(dy, c.op("Pow", [d, -beta]));
    const byNeighbours = c.alongAxis(c.mul(c.mul(direct, c.x()), c.div(1, d)), shape, 1, turned);
    return c.sub(direct, c.mul(c.mul(c.x(), byNeighbours), 2 * beta * scale));
  },
];

/** y (dy - sum(dy y)). */
const softmax: Rule = (c, dy) => [
  () => {
    const share = c.mul(dy, c.y());
    return c.sub(share, c.mul(c.y(), c.sum(share, [c.axis(-1)])));
  },
];

/** dy - exp(y) sum(dy). */
const logSoftmax: Rule = (c, dy) => [() => c.sub(dy, c.mul(c.op("Exp", [c.y()]), c.sum(dy, [c.axis(-1)])))];

/** In training the mask says what was kept, and what was kept was scaled up. */
const dropout: Rule = (c, dy) => [
  () => {
    if (!c.has(2) || c.constant(2)?.[0] === 0) return dy;
    const ratio = c.has(1) ? (c.constant(1)?.[0] ?? 0.5) : 0.5;
    return c.mul(c.mul(dy, c.builder.cast(c.optional(1), "bool", c.dtype)), 1 / (1 - ratio));
  },
];

/** Rules of the standard operator set. */
export const NORMALIZATION: Readonly<Record<string, Rule>> = {
  BatchNormalization: batchNormalization,
  Dropout: dropout,
  GroupNormalization: groupNormalization,
  InstanceNormalization: instanceNormalization,
  LRN: localResponse,
  LayerNormalization: layerNormalization(true),
  LogSoftmax: logSoftmax,
  LpNormalization: lpNormalization,
  MeanVarianceNormalization: meanVarianceNormalization,
  RMSNormalization: layerNormalization(false),
  Softmax: softmax,
};
